"""Completeness of a run: what was logged against what MLflow shows, each missing thing by name. Pure.

`certifying` yields each read and is given its answer, as `replay.replaying` does.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mlflow_spool.answers import logged_model_of, measurements, run_of
from mlflow_spool.errors import Refused
from mlflow_spool.files import NAMES_IDS
from mlflow_spool.records import API, Call, Kind, Record, local_version, translated
from mlflow_spool.replay import GONE, Steps

Resolve = Callable[[str], str | None]
Things = dict[str, Any]


@dataclass(frozen=True)
class Logged:
    """The records of one run: its own, those of its files, of each model logged in it, of versions registered from it; and
    what MLflow refused for good, in words."""

    run: Sequence[Record]
    files: Sequence[Record] = ()
    models: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    versions: Sequence[Record] = ()
    refused: Sequence[str] = ()


@dataclass(frozen=True)
class Certificate:
    """One run: how many things were spooled, how many of them MLflow shows as they were, and which it does not."""

    run: str
    spooled: int
    readable: int
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return not self.missing


def certifying(run_id: str, logged: Logged, resolve: Resolve) -> Steps[Certificate]:
    """Compare what was logged with the server's answers. run_id: the real one, or a local one that has none yet.

    Raises TransportError and Refused, but not for what is not there: that is missing.
    """
    run = run_of(logged.run) or _continued(logged.run)
    keys = sorted(one["key"] for one in run["data"]["metrics"])
    expected = _things(run, {key: measurements(logged.run, key) for key in keys})
    there = resolve(run_id) if run_id.startswith("spool-") else run_id
    shown = (yield from _shown(there, keys)) if there else {}
    for record in logged.versions:
        name, number = record.call.body.get("name"), f"version:{local_version(record.key)}"
        expected[f"version {resolve(number) or number} of {name}"] = True
        shown |= yield from _version(str(name), resolve(number))
    for token, history in logged.models.items():
        expected |= _model(logged_model_of(history) or {}, f"model {token}")
        shown |= yield from _model_shown(token, resolve)
    expected |= {_file(record): _size(record) for record in logged.files}
    shown |= yield from _files_shown(logged.files, there, resolve)
    expected = _named(expected, resolve)
    shown = {translated(Call("", name), resolve).path: value for name, value in shown.items()}
    missing = [name for name, value in expected.items() if name not in shown or value not in (shown[name], None)]
    missing += logged.refused
    total = len(expected) + len(logged.refused)
    return Certificate(there or run_id, total, total - len(missing), tuple(missing))


def _continued(history: Sequence[Record]) -> dict[str, Any]:
    """A run whose beginning is somebody else's: only what was logged is compared."""
    begun = Record("0" * 32, "", Kind.RUN, Call("POST", "", {}), 0)
    run = run_of([begun, *history])
    assert run is not None
    if run["info"]["status"] == "RUNNING":
        run["info"]["status"] = None  # Nobody said so.
    return run


def _named(expected: Things, resolve: Resolve) -> Things:
    return {
        translated(Call("", name), resolve).path: translated(Call("", "", {"v": value}), resolve).body["v"]
        for name, value in expected.items()
    }


def _things(run: dict[str, Any], metrics: dict[str, list[dict[str, Any]]]) -> Things:
    data = run.get("data", {})
    things: Things = {"status": status} if (status := run["info"].get("status")) else {}
    things |= {f"param {one['key']}": one.get("value") for one in data.get("params", [])}
    things |= {f"tag {one['key']}": one.get("value") for one in data.get("tags", [])}
    for key, values in metrics.items():
        for one in values:
            place = f"metric {key} at step {int(one.get('step', 0))}, time {int(one.get('timestamp', 0))}"
            things[f"{place}: {float(one.get('value', 0.0))!r}"] = True
    for model in run.get("outputs", {}).get("model_outputs", []):
        things[f"output {model['model_id']}"] = True
    for one in run.get("inputs", {}).get("dataset_inputs", []):
        things[f"input {one['dataset'].get('name')} {one['dataset'].get('digest')}"] = True
    return things


def _ask(path: str, query: Mapping[str, str]) -> Steps[dict[str, Any]]:
    """The answer to a read; empty when there is no such thing."""
    answer = yield Call("GET", f"{API}/{path}", dict(query))
    if answer.status < 300:
        return answer.body
    if answer.body.get("error_code") == GONE:
        return {}
    raise Refused(answer.status, answer.body)


def _shown(run_id: str, keys: list[str]) -> Steps[Things]:
    run = (yield from _ask("runs/get", {"run_id": run_id})).get("run")
    if run is None:
        return {}
    metrics = {}
    for key in keys:
        metrics[key] = yield from _pages("metrics/get-history", "metrics", {"run_id": run_id, "metric_key": key})
    return _things(run, metrics)


def _pages(path: str, name: str, query: Mapping[str, str]) -> Steps[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = yield from _ask(path, query)
        found += answer.get(name, [])
        if not answer.get("next_page_token"):
            return found
        query = {**query, "page_token": str(answer["next_page_token"])}


def _model(model: dict[str, Any], name: str) -> Things:
    params = model.get("data", {}).get("params", [])
    things: Things = {f"{name} param {one['key']}": one.get("value") for one in params}
    return {f"{name} status": model.get("info", {}).get("status"), **things}


def _model_shown(token: str, resolve: Resolve) -> Steps[Things]:
    model_id = resolve(token) if "spool-" in token else token
    if model_id is None:
        return {}
    answer = yield from _ask(f"logged-models/{quote(model_id, safe='')}", {})
    return _model(answer["model"], f"model {token}") if "model" in answer else {}


def _version(name: str, version: str | None) -> Steps[Things]:
    if version is None:
        return {}
    found = yield from _ask("model-versions/get", {"name": name, "version": version})
    return {f"version {version} of {name}": True} if "model_version" in found else {}


def _owner(record: Record) -> str:
    return record.stream.partition(":")[2]


def _file(record: Record) -> str:
    model = f" of model {_owner(record)}" if record.stream.startswith("logged-model:") else ""
    return f"artifact {record.call.body['path']}{model}"


def _size(record: Record) -> int | None:
    """Bytes; unknown of the one file in which ids are put right on the way."""
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
        for one in (yield from _pages(path, "files", query)):
            if not one.get("is_dir"):
                shown[f"artifact {one['path']}{suffix}"] = int(one.get("file_size", 0))
    return shown


def gather(
    ids: Sequence[str],
    streams: Callable[[Sequence[str]], Sequence[Record]],
    of_kind: Callable[[Kind], Iterator[Record]],
    refused: Callable[[Sequence[str]], Sequence[str]],
) -> Logged:
    """The records of a run that goes by `ids` (local and real), out of a journal or a database.

    streams: the records of streams, in order; of_kind: all of a kind; refused: what was set aside of streams, in words.
    """
    models = [one for one in of_kind(Kind.LOGGED_MODEL) if one.call.body.get("source_run_id") in ids]
    named = {one.token: streams([f"logged-model:{one.token}"]) for one in models}
    versions = [one for one in of_kind(Kind.VERSION) if _is_from(one, ids, named)]
    own, files = [f"run:{one}" for one in ids], [*streams([f"artifacts:{one}" for one in ids])]
    for history in named.values():
        files += [record for record in history if record.kind is Kind.ARTIFACT]
    return Logged(streams(own), files, named, versions, refused([*own, *(f"logged-model:{name}" for name in named)]))


def _is_from(version: Record, ids: Sequence[str], models: Mapping[str, Any]) -> bool:
    body = version.call.body
    return body.get("run_id") in ids or any(token in json.dumps(body.get("source", "")) for token in models)
