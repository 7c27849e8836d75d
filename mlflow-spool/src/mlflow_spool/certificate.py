"""Completeness of a run: what was logged against what MLflow shows, each missing thing by name. Pure.

`certifying` yields each read and is sent its answer, as `replay.replaying` does.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mlflow_spool.answers import logged_model_of, measurements, run_of, stored
from mlflow_spool.files import NAMES_IDS, sent_as
from mlflow_spool.questions import Steps, ask
from mlflow_spool.records import API, Call, Kind, Record, local_version, translated
from mlflow_spool.replay import Resolve

#: What was logged, or what MLflow shows: the name of each thing and its value. None matches every value.
Things = dict[str, Any]
Read = Callable[[dict[str, Any]], Things]


@dataclass(frozen=True)
class Logged:
    """The records of one run."""

    run: Sequence[Record]
    files: Sequence[Record] = ()
    models: Mapping[str, Sequence[Record]] = field(default_factory=dict)  # of each model logged in it, by its id
    versions: Sequence[Record] = ()  # registered from it
    refused: Sequence[str] = ()  # what MLflow refused for good, in words


@dataclass(frozen=True)
class Certificate:
    """How many things of one run were spooled, how many MLflow shows unchanged, and the names of the others."""

    run: str
    spooled: int
    readable: int
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return not self.missing


def certifying(run_id: str, logged: Logged, resolve: Resolve) -> Steps[Certificate]:
    """Compare what was logged with what MLflow shows. run_id: the real one, or a local one without a real one yet.

    What MLflow does not have is missing. Raises TransportError, and Refused when an answer does not show it.
    """
    run = run_of(logged.run) or _continued(logged.run)
    keys = sorted(metric["key"] for metric in run["data"]["metrics"])
    expected = _things(run)
    for key in keys:
        expected |= _points(key, measurements(logged.run, key))
    real_id = resolve(run_id) if run_id.startswith("spool-") else run_id
    shown = (yield from _shown(real_id, keys)) if real_id else {}
    for record in logged.versions:
        name, number = record.call.body.get("name"), f"version:{local_version(record.key)}"
        expected[f"version {resolve(number) or number} of {name}"] = True
        shown |= yield from _version(str(name), resolve(number))
    for token, history in logged.models.items():
        expected |= _model(logged_model_of(history) or {}, f"model {token}")
        shown |= yield from _model_shown(token, resolve)
    expected |= {_artifact(record): _size(record) for record in logged.files}
    shown |= yield from _files_shown(logged.files, real_id, resolve)
    expected = _named(expected, resolve)
    shown = {translated(Call("", name), resolve).path: value for name, value in shown.items()}
    missing = [name for name, value in expected.items() if name not in shown or value not in (shown[name], None)]
    missing += logged.refused
    total = len(expected) + len(logged.refused)
    return Certificate(real_id or run_id, total, total - len(missing), tuple(missing))


def _continued(history: Sequence[Record]) -> dict[str, Any]:
    """A run that somebody else began: only what was logged here is compared."""
    begun = Record("0" * 32, "", Kind.RUN, Call("POST", "", {}), 0)
    run = run_of([begun, *history])
    assert run is not None
    if run["info"]["status"] == "RUNNING":
        run["info"]["status"] = None  # No record sets it.
    return run


def _named(expected: Things, resolve: Resolve) -> Things:
    return {
        translated(Call("", name), resolve).path: translated(Call("", "", {"v": value}), resolve).body["v"]
        for name, value in expected.items()
    }


def _things(run: dict[str, Any]) -> Things:
    """Everything of a run but its metrics."""
    data = run.get("data", {})
    things: Things = {"status": status} if (status := run["info"].get("status")) else {}
    things |= {f"param {param['key']}": param.get("value") for param in data.get("params", [])}
    things |= {f"tag {tag['key']}": tag.get("value") for tag in data.get("tags", [])}
    things |= {f"output {model['model_id']}": True for model in run.get("outputs", {}).get("model_outputs", [])}
    datasets = (item["dataset"] for item in run.get("inputs", {}).get("dataset_inputs", []))
    return things | {f"input {dataset.get('name')} {dataset.get('digest')}": True for dataset in datasets}


def _points(key: str, values: Sequence[dict[str, Any]]) -> Things:
    """Every value of one metric."""
    points: Things = {}
    for point in values:
        place = f"metric {key} at step {int(point.get('step', 0))}, time {int(point.get('timestamp', 0))}"
        points[f"{place}: {stored(point.get('value', 0.0))!r}"] = True
    return points


def _read(path: str, query: Mapping[str, str], read: Read) -> Steps[Things]:
    """What `read` finds in an answer; empty when MLflow has no such thing."""
    return (yield from ask(Call("GET", f"{API}/{path}", dict(query)), read)) or {}


def _pages(path: str, query: Mapping[str, str], read: Read) -> Steps[Things]:
    """What `read` finds in an answer of several pages."""
    things: Things = {}
    following: dict[str, str] = {}

    def page(body: dict[str, Any]) -> Things:
        if body.get("next_page_token"):
            following["page_token"] = str(body["next_page_token"])
        return read(body)

    while True:
        query = {**query, **following}
        following.clear()
        things |= yield from _read(path, query, page)
        if not following:
            return things


def _shown(run_id: str, keys: list[str]) -> Steps[Things]:
    things = yield from _read("runs/get", {"run_id": run_id}, lambda body: _things(body["run"]))
    if not things:
        return {}
    for key in keys:

        def points(body: dict[str, Any], key: str = key) -> Things:
            return _points(key, body.get("metrics", []))

        things |= yield from _pages("metrics/get-history", {"run_id": run_id, "metric_key": key}, points)
    return things


def _model(model: dict[str, Any], name: str) -> Things:
    params = model.get("data", {}).get("params", [])
    things: Things = {f"{name} param {param['key']}": param.get("value") for param in params}
    return {f"{name} status": model.get("info", {}).get("status"), **things}


def _model_shown(token: str, resolve: Resolve) -> Steps[Things]:
    model_id = resolve(token) if "spool-" in token else token
    if model_id is None:
        return {}
    path = f"logged-models/{quote(model_id, safe='')}"
    return (yield from _read(path, {}, lambda body: _model(body["model"], f"model {token}")))


def _version(name: str, version: str | None) -> Steps[Things]:
    if version is None:
        return {}

    def read(body: dict[str, Any]) -> Things:
        return {f"version {body['model_version']['version']} of {name}": True}

    return (yield from _read("model-versions/get", {"name": name, "version": version}, read))


def _owner(record: Record) -> str:
    return record.stream.partition(":")[2]


def _artifact(record: Record) -> str:
    model = f" of model {_owner(record)}" if record.stream.startswith("logged-model:") else ""
    return f"artifact {sent_as(record.call.body['path'])}{model}"


def _size(record: Record) -> int | None:
    """Bytes; None for the one file whose ids are replaced on the way, since that changes its size."""
    path = PurePosixPath(record.call.body["path"])
    return None if path.name == NAMES_IDS else int(record.call.body["bytes"])


def _files_shown(files: Sequence[Record], run_id: str | None, resolve: Resolve) -> Steps[Things]:
    shown: Things = {}
    folders = {(record.stream, str(PurePosixPath(record.call.body["path"]).parent)) for record in files}
    for stream, parent in sorted(folders):
        noun, _, owner = stream.partition(":")
        folder, suffix = ("" if parent == "." else parent), ""
        if noun == "logged-model":
            model_id = resolve(owner) if "spool-" in owner else owner
            path = f"logged-models/{quote(model_id or '', safe='')}/artifacts/directories"
            query, where, suffix = {}, "artifact_directory_path", f" of model {owner}"
        else:
            model_id, path, query, where = run_id, "artifacts/list", {"run_id": run_id or ""}, "path"
        if model_id is None:
            continue
        query |= {where: folder} if folder else {}

        def sizes(body: dict[str, Any], suffix: str = suffix) -> Things:
            there = (file for file in body.get("files", []) if not file.get("is_dir"))
            return {f"artifact {file['path']}{suffix}": int(file.get("file_size", 0)) for file in there}

        shown |= yield from _pages(path, query, sizes)
    return shown


def gather(
    ids: Sequence[str],
    streams: Callable[[Sequence[str]], Sequence[Record]],
    of_kind: Callable[[Kind], Iterator[Record]],
    refused: Callable[[Sequence[str]], Sequence[str]],
) -> Logged:
    """The records of the run with these `ids` (local and real), out of a journal or a database.

    streams: the records of streams, in order; of_kind: all records of a kind; refused: what MLflow refused of streams, in
    words.
    """
    models = [record for record in of_kind(Kind.LOGGED_MODEL) if record.call.body.get("source_run_id") in ids]
    named = {record.token: streams([f"logged-model:{record.token}"]) for record in models}
    versions = [record for record in of_kind(Kind.VERSION) if _is_from(record, ids, named)]
    own, files = [f"run:{run_id}" for run_id in ids], [*streams([f"artifacts:{run_id}" for run_id in ids])]
    for history in named.values():
        files += [record for record in history if record.kind is Kind.ARTIFACT]
    return Logged(streams(own), files, named, versions, refused([*own, *(f"logged-model:{name}" for name in named)]))


def _is_from(version: Record, ids: Sequence[str], models: Mapping[str, Any]) -> bool:
    body = version.call.body
    return body.get("run_id") in ids or any(token in json.dumps(body.get("source", "")) for token in models)
