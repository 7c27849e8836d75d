"""A report as records: the writes of MLflow's REST API that store it. Pure.

The key of a creation is a hash of what it creates. So reports of one run may come in any order, and the first of them
creates the run. The key of any other record is a hash of the report's id and its number.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Container, Iterator
from datetime import datetime
from typing import Any

from app.lineage.report_schemas import Dataset, Report
from mlflow_spool.records import API, Call, Record, draft

TRIGGER_TAG, COMPONENT_TAG = "gateway.trigger_id", "gateway.component"
_DIGEST = 36  # characters of a dataset's digest that MLflow 3.17.2 keeps
_AHEAD = 500  # keys that are looked at together when somebody else took the usual one
_TAGS = 100  # at most, in one runs/log-batch
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED"}


def run_of(report: Report, taken: Container[str] = ()) -> str:
    """The id of a report's run: MLflow's, or a local one. taken: keys that the report may not use."""
    return report.run_id or f"spool-{_run_key(report, taken)}"


def records_of(report: Report, key: str, who: str, now: datetime, taken: Container[str] = ()) -> list[Record]:
    """The records of a report. key: a text of the report alone, which nobody knows before; now: when it came; taken: keys
    that the report may not use."""
    at = _milliseconds(report.at or now)
    records = [*_creations(report, at, taken)] if report.run_id is None else []
    for number, call in enumerate(_writes(report, run_of(report, taken), who, at)):
        record = draft(call, at, _digest("write", key, str(number)))
        assert record is not None, call.path
        records.append(record)
    return records


def next_keys(report: Report, taken: Container[str]) -> list[str]:
    """The keys that a report would use next, when those are taken too."""
    parts = [_run_parts(report), ("experiment", report.experiment)]
    return [key for part in parts for key in itertools.islice(_free(taken, *part), _AHEAD)]


def _run_parts(report: Report) -> tuple[str, ...]:
    return "run", str(report.trigger_id or ""), report.component, report.run


def _run_key(report: Report, taken: Container[str]) -> str:
    return next(_free(taken, *_run_parts(report)))


def _free(taken: Container[str], *parts: str) -> Iterator[str]:
    """The keys of these parts that are not taken. Every report with the same parts finds the same."""
    others = (_digest(*parts, str(number)) for number in itertools.count(1))
    return (key for key in itertools.chain([_digest(*parts)], others) if key not in taken)


def _creations(report: Report, at: int, taken: Container[str]) -> Iterator[Record]:
    experiment_id = "0"
    if report.experiment:
        key = next(_free(taken, "experiment", report.experiment))
        made = draft(Call("POST", f"{API}/experiments/create", {"name": report.experiment}), at, key)
        assert made is not None
        yield made
        experiment_id = made.token
    body: dict[str, Any] = {
        "experiment_id": experiment_id,
        "run_name": " ".join(filter(None, [report.component, report.run])),
        "start_time": at,
        "tags": _pairs(_origin(report)),
    }
    run = draft(Call("POST", f"{API}/runs/create", body), at, _run_key(report, taken))
    assert run is not None
    yield run


def _writes(report: Report, run: str, who: str, at: int) -> Iterator[Call]:
    if report.metrics:
        metrics = [
            {"key": k, "value": value, "timestamp": at, "step": report.step} for k, value in report.metrics.items()
        ]
        yield Call("POST", f"{API}/runs/log-batch", {"run_id": run, "metrics": metrics})
    tags = _pairs(_tags(report, who))
    for first in range(0, len(tags), _TAGS):
        yield Call("POST", f"{API}/runs/log-batch", {"run_id": run, "tags": tags[first : first + _TAGS]})
    for name, value in report.params.items():
        # Each by itself: MLflow refuses a param that already has another value.
        yield Call("POST", f"{API}/runs/log-parameter", {"run_id": run, "key": name, "value": str(value)})
    if report.datasets:
        inputs = [_input(dataset) for dataset in report.datasets]
        yield Call("POST", f"{API}/runs/log-inputs", {"run_id": run, "datasets": inputs})
    if report.run_id is None and report.state in _STATUS:
        ended = {"run_id": run, "status": _STATUS[report.state], "end_time": at}
        yield Call("POST", f"{API}/runs/update", ended)


def _origin(report: Report) -> dict[str, str]:
    trigger = {TRIGGER_TAG: str(report.trigger_id)} if report.trigger_id else {}
    return {**trigger, COMPONENT_TAG: report.component}


def _tags(report: Report, who: str) -> dict[str, str]:
    tags = _origin(report)
    if report.run_id is None:
        tags["mlflow.user"] = who
    else:  # The component itself sets the owner and the end of its run; here the state is only a tag.
        tags[f"gateway.state.{report.component}"] = report.state
    if report.git_commit:
        tags["mlflow.source.git.commit"] = report.git_commit
    tags |= {f"gateway.artifact.{name}": uri for name, uri in report.artifacts.items()}
    tags |= {f"gateway.dataset.{dataset.name}": dataset.digest for dataset in report.datasets}
    return {**tags, **report.tags}


def _input(dataset: Dataset) -> dict[str, Any]:
    scheme = _SCHEME.match(dataset.uri)  # Not urlsplit: it refuses some texts, such as s3://[1].
    digest = dataset.digest.rpartition(":")[2][:_DIGEST]
    described = {
        "name": dataset.name,
        "digest": digest,
        "source_type": scheme[1].lower()[:36] if scheme else "local",
        "source": json.dumps({"uri": dataset.uri}),
    }
    return {"dataset": described, "tags": _pairs({"mlflow.data.context": dataset.context})}


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
