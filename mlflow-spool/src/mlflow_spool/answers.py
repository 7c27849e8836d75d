"""Answers out of the journal alone, in the shapes of MLflow's REST API. Pure."""

import math
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from mlflow_spool.records import API, Call, Kind, Record, local_version, text_at

NAME_TAG = "mlflow.runName"


def answer_write(record: Record, history: Iterable[Record] = ()) -> dict[str, Any]:
    """The answer to a write that waits. history: the records of its stream, with this one."""
    body = record.call.body
    if record.kind is Kind.RUN:
        return {"run": run_of([record])}
    if record.kind is Kind.EXPERIMENT:
        return {"experiment_id": record.token}
    if record.kind is Kind.LOGGED_MODEL:
        return {"model": logged_model_of([record])}
    if record.kind is Kind.REGISTERED_MODEL:
        return {"registered_model": _registered(record)}
    if record.kind is Kind.VERSION:
        return {"model_version": version_of(record)}
    if record.call.path.endswith("/runs/update"):
        run = run_of(history)
        return {"run_info": run["info"]} if run else {"run_info": {"run_id": body.get("run_id")}}
    if record.call.path in {f"{API}/model-versions/update", f"{API}/model-versions/transition-stage"}:
        number = text_at(body, "version")
        return {"model_version": version_in(history, number) or _others(body, number)}
    if record.call.path == f"{API}/registered-models/update":
        return {"registered_model": registered_of(history)}
    if record.call.method == "PATCH" and record.stream.startswith("logged-model:"):
        return {"model": logged_model_of(history) or {"info": {"model_id": record.stream.partition(":")[2]}}}
    return {}


def run_of(history: Iterable[Record], base: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A run as GET runs/get shows it, out of what was logged; None when its creation is not in `history`.

    base: the run as it was shown before what is in `history`.
    """
    run = _opened(base) if base else None
    for record in history:
        if record.kind is Kind.RUN:
            run = _new_run(record)
        elif run is not None:
            _apply(run, record.call)
    if run is None:
        return None
    data = run["data"]
    lists = {name: list(data[name].values()) for name in ("metrics", "params", "tags")}
    return {**run, "data": lists}


def _opened(shown: dict[str, Any]) -> dict[str, Any]:
    data = shown.get("data", {})
    items = {name: {item["key"]: item for item in data.get(name, [])} for name in ("metrics", "params", "tags")}
    parts = {name: {key: list(value) for key, value in shown.get(name, {}).items()} for name in ("inputs", "outputs")}
    return {"info": dict(shown["info"]), "data": items, **parts}


def begun_elsewhere(run_id: str, experiment_id: str) -> dict[str, Any]:
    """A run that somebody else made, of which nothing is known while the server is away."""
    info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": experiment_id, "status": "RUNNING"}
    info |= {"artifact_uri": f"spool-artifacts:/{run_id}/artifacts", "lifecycle_stage": "active"}
    return {"info": info, "data": {}}


def model_of_others(model_id: str, experiment_id: str) -> dict[str, Any]:
    """The same for a logged model."""
    info = {"model_id": model_id, "experiment_id": experiment_id, "status": "LOGGED_MODEL_PENDING"}
    return {"info": info | {"artifact_uri": f"spool-artifacts:/{model_id}/artifacts"}}


def _new_run(record: Record) -> dict[str, Any]:
    body = record.call.body
    info = {
        "run_id": record.token,
        "run_uuid": record.token,
        "experiment_id": str(body.get("experiment_id", "0")),
        "run_name": body.get("run_name", ""),
        "user_id": body.get("user_id", ""),
        "status": "RUNNING",
        "start_time": body.get("start_time", record.made_at),
        "artifact_uri": f"spool-artifacts:/{record.token}/artifacts",
        "lifecycle_stage": "active",
    }
    tags = {tag["key"]: tag for tag in body.get("tags", [])}
    return {"info": info, "data": {"metrics": {}, "params": {}, "tags": tags}, "inputs": {}, "outputs": {}}


def _apply(run: dict[str, Any], call: Call) -> None:
    body, data = call.body, run["data"]
    name = call.path.rpartition("/runs/")[2]
    if name == "update":
        kept = ("status", "end_time", "run_name")
        run["info"].update({field: body[field] for field in kept if body.get(field) is not None})
        if body.get("run_name"):  # MLflow's store keeps the name as this tag too.
            data["tags"][NAME_TAG] = {"key": NAME_TAG, "value": body["run_name"]}
    elif name == "log-metric":
        _measure(data["metrics"], body)
    elif name == "log-parameter":
        data["params"].setdefault(body["key"], {"key": body["key"], "value": body["value"]})
    elif name == "set-tag":
        data["tags"][body["key"]] = {"key": body["key"], "value": body["value"]}
    elif name == "delete-tag":
        data["tags"].pop(body["key"], None)
    elif name == "log-batch":
        for metric in body.get("metrics", []):
            _measure(data["metrics"], metric)
        for param in body.get("params", []):
            data["params"].setdefault(param["key"], param)
        data["tags"].update({tag["key"]: tag for tag in body.get("tags", [])})
    elif name == "log-inputs":
        for field, plural in (("datasets", "dataset_inputs"), ("models", "model_inputs")):
            run["inputs"].setdefault(plural, []).extend(body.get(field, []))
    elif name == "outputs":
        run["outputs"].setdefault("model_outputs", []).extend(body.get("models", []))
    elif name in {"delete", "restore"}:
        run["info"]["lifecycle_stage"] = "deleted" if name == "delete" else "active"


def stored(value: Any) -> float:
    """The value of a metric as MLflow's store keeps it: the largest double for an infinite one."""
    number = float(value)
    return math.copysign(sys.float_info.max, number) if math.isinf(number) else number


def _order(metric: dict[str, Any]) -> tuple[int, int, float]:
    # MLflow's own store finds the latest value of a metric so: by step, then timestamp, then value. It keeps NaN as 0.
    value = stored(metric.get("value", 0.0))
    return int(metric.get("step", 0)), int(metric.get("timestamp", 0)), 0.0 if math.isnan(value) else value


def _measure(latest: dict[str, Any], metric: dict[str, Any]) -> None:
    shown = {name: metric[name] for name in ("key", "value", "timestamp", "step") if name in metric}
    if metric["key"] not in latest or _order(metric) >= _order(latest[metric["key"]]):
        latest[metric["key"]] = shown


def measurements(history: Iterable[Record], key: str) -> list[dict[str, Any]]:
    """Every value of one metric, in the order of the log calls."""
    found = []
    for record in history:
        name = record.call.path.rpartition("/runs/")[2]
        several = record.call.body.get("metrics", []) if name == "log-batch" else []
        single = [record.call.body] if name == "log-metric" else []
        found += [metric for metric in (*several, *single) if metric.get("key") == key]
    return [
        {name: metric[name] for name in ("key", "value", "timestamp", "step") if name in metric} for metric in found
    ]


def logged_model_of(history: Iterable[Record], base: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A logged model as GET logged-models/{id} shows it; None when its creation is not in `history`.

    base: the model as it was shown before what is in `history`.
    """
    model = None
    if base:
        tags, params = base["info"].get("tags", []), base.get("data", {}).get("params", [])
        model = {"info": {**base["info"], "tags": tags}, "data": {**base.get("data", {}), "params": params}}
    for record in history:
        body = record.call.body
        if record.kind is Kind.LOGGED_MODEL:
            model = _new_model(record)
        elif model is None:
            continue
        elif record.kind is Kind.MODEL_PARAMS:
            model["data"]["params"] = [*model["data"]["params"], *body.get("params", [])]
        elif record.call.path.endswith("/tags"):
            fresh = {tag["key"] for tag in body.get("tags", [])}
            kept = [tag for tag in model["info"]["tags"] if tag["key"] not in fresh]
            model["info"]["tags"] = [*kept, *body.get("tags", [])]
        elif record.kind is Kind.DELETE and "/tags/" in record.call.path:
            gone = unquote(record.call.path.rpartition("/tags/")[2])
            model["info"]["tags"] = [tag for tag in model["info"]["tags"] if tag["key"] != gone]
        elif record.kind is Kind.DELETE:
            model = None
        elif record.call.method == "PATCH":
            model["info"]["status"] = body.get("status", model["info"]["status"])
            model["info"]["last_updated_timestamp_ms"] = record.made_at
    return model


def _new_model(record: Record) -> dict[str, Any]:
    body = record.call.body
    info = {
        "model_id": record.token,
        "experiment_id": str(body.get("experiment_id", "0")),
        "name": body.get("name") or record.token,
        "creation_timestamp_ms": record.made_at,
        "last_updated_timestamp_ms": record.made_at,
        "artifact_uri": f"spool-artifacts:/{record.token}/artifacts",
        "status": "LOGGED_MODEL_PENDING",
        "model_type": body.get("model_type", ""),
        "source_run_id": body.get("source_run_id", ""),
        "tags": body.get("tags", []),
    }
    return {"info": info, "data": {"params": body.get("params", [])}}


def registered_of(history: Iterable[Record], shown: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A registered model after its records. shown: as the server showed it before them. None: nothing is known of it."""
    model = shown
    for record in history:
        body = record.call.body
        if record.kind is Kind.REGISTERED_MODEL:
            model = {**_registered(record), **(model or {})}
            continue
        model = model or {"name": body.get("name"), "creation_timestamp": record.made_at}
        name = record.call.path.rpartition("/registered-models/")[2]
        if name == "delete":
            model = None
        elif name == "update":
            model = {**model, "description": body.get("description", "")}
        elif name in {"set-tag", "delete-tag"}:
            model = _with(model, "tags", "key", _tag(body), gone=record.kind is Kind.DELETE)
        elif name == "alias":
            alias = {"alias": body["alias"], "version": str(body.get("version", ""))}
            model = _with(model, "aliases", "alias", alias, gone=record.kind is Kind.DELETE)
    return model


def _with(
    model: dict[str, Any], name: str, known_by: str, item: dict[str, Any], *, gone: bool = False
) -> dict[str, Any]:
    others = [other for other in model.get(name, []) if other[known_by] != item[known_by]]
    return {**model, name: others if gone else [*others, item]}


def _tag(body: dict[str, Any]) -> dict[str, Any]:
    return {"key": body["key"], "value": body.get("value", "")}


def _registered(record: Record) -> dict[str, Any]:
    body, at = record.call.body, record.made_at
    kept = ("name", "tags", "description")
    shown: dict[str, Any] = {name: body[name] for name in kept if name in body}
    return {**shown, "creation_timestamp": at, "last_updated_timestamp": at}


def version_of(record: Record, later: Iterable[Record] = (), number: str = "") -> dict[str, Any]:
    """A model version after later records of its model. number: the real one; without it the registration waits."""
    body, at, local = record.call.body, record.made_at, str(local_version(record.key))
    kept = ("name", "source", "run_id", "run_link", "tags", "description", "model_id")
    shown = {name: body[name] for name in kept if name in body}
    shown |= {
        "version": number or local,
        "status": "READY" if number else "PENDING_REGISTRATION",
        "current_stage": "None",
        "creation_timestamp": at,
        "last_updated_timestamp": at,
    }
    for other in later:
        shown = _revised(shown, other, {local, number})
    return shown


def version_in(history: Iterable[Record], number: str, real: str = "") -> dict[str, Any] | None:
    """The version with a local number, after the records of its model; None when it is not among them, or was deleted.
    real: its real number, if it has one."""
    waiting = iter(history)
    for record in waiting:
        if record.kind is Kind.VERSION and str(local_version(record.key)) == number:
            shown = version_of(record, waiting, real)
            return None if "deleted" in shown else shown
    return None


def _revised(version: dict[str, Any], record: Record, numbers: set[str]) -> dict[str, Any]:
    """A version with one of these numbers after a record of its model."""
    body, name = record.call.body, record.call.path.removeprefix(f"{API}/")
    own, gone = text_at(body, "version") in numbers, record.kind is Kind.DELETE
    if name == "registered-models/alias":
        others = [alias for alias in version.get("aliases", []) if alias != body["alias"]]
        return {**version, "aliases": [*others, body["alias"]] if own and not gone else others}
    if name == "model-versions/transition-stage":
        stage = str(body.get("stage")).capitalize()
        archived = bool(body.get("archive_existing_versions")) and version["current_stage"] == stage
        return {**version, "current_stage": stage if own else "Archived" if archived else version["current_stage"]}
    if own and name in {"model-versions/set-tag", "model-versions/delete-tag"}:
        return _with(version, "tags", "key", _tag(body), gone=gone)
    if own and name == "model-versions/update":
        return {**version, "description": body.get("description", "")}
    return {**version, "deleted": True} if own and name == "model-versions/delete" else version


def _others(body: dict[str, Any], number: str) -> dict[str, Any]:
    """What is known of a version of others after a change of it."""
    shown = {"name": body.get("name"), "version": number, "description": body.get("description", "")}
    return {**shown, "current_stage": str(body.get("stage", "None")).capitalize()}


def experiment_of(record: Record, later: Iterable[Record] = ()) -> dict[str, Any]:
    """An experiment after its creation and later records of it."""
    body = record.call.body
    shown = {
        "experiment_id": record.token,
        "name": body.get("name", ""),
        "artifact_location": body.get("artifact_location", ""),
        "lifecycle_stage": "active",
        "creation_time": record.made_at,
        "last_update_time": record.made_at,
        "tags": body.get("tags", []),
    }
    return experiment_after(shown, later)


def experiment_after(shown: dict[str, Any], later: Iterable[Record]) -> dict[str, Any]:
    """An experiment as it was shown, after later records of it."""
    for record in later:
        body, name = record.call.body, record.call.path.rpartition("/experiments/")[2]
        if name == "update":
            shown = {**shown, "name": body.get("new_name") or shown["name"]}
        elif name in {"delete", "restore"}:
            shown = {**shown, "lifecycle_stage": "deleted" if name == "delete" else "active"}
        elif name in {"set-experiment-tag", "delete-experiment-tag"}:
            shown = _with(shown, "tags", "key", _tag(body), gone=record.kind is Kind.DELETE)
    return shown
