"""Join log calls of one run that follow each other into few runs/log-batch requests, within MLflow's limits. Pure.

So a backlog is delivered many times faster. The limits are those of MLflow's server (mlflow.utils.validation): 1000
metrics, 100 params, 100 tags, 1000 in all, and a megabyte.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_spool.records import API, Call, Kind, Record

LIMITS = {"metrics": 1000, "params": 100, "tags": 100}
MOST = 1000
MOST_BYTES = 900_000  # of the JSON, a little below the megabyte, since the server counts in another way
Items = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Batch:
    """Records that go in one request: `call` has all that they log, in their order."""

    records: tuple[Record, ...]
    call: Call


def joined(records: Sequence[Record]) -> Iterator[Batch]:
    """The same records in the same order. Neighbours are joined where that changes nothing."""
    waiting: list[Record] = []
    items: Items = _none()
    size = 0
    for record in records:
        own, length = _items(record), len(json.dumps(record.call.body))
        if waiting and (own is None or not _fits(waiting[0], record, items, own) or size + length > MOST_BYTES):
            yield _batch(waiting, items)
            waiting, items, size = [], _none(), 0
        if own is None:
            yield Batch((record,), record.call)
            continue
        waiting.append(record)
        size += length
        for name, several in own.items():
            items[name] += several
    if waiting:
        yield _batch(waiting, items)


def _none() -> Items:
    return {name: [] for name in LIMITS}


def _batch(records: list[Record], items: Items) -> Batch:
    if len(records) == 1:
        return Batch((records[0],), records[0].call)
    body = {"run_id": records[0].call.body["run_id"], **{name: several for name, several in items.items() if several}}
    return Batch(tuple(records), Call("POST", f"{API}/runs/log-batch", body))


def _items(record: Record) -> Items | None:
    """What a call logs; None when it is another kind of call, or has something that a batch does not have. Such a call goes
    alone, and MLflow judges it."""
    if record.kind is not Kind.LOG:
        return None
    name, body = record.call.path.rpartition("/")[2], record.call.body
    if name == "log-batch":
        if not body.keys() <= {"run_id", *LIMITS}:
            return None
        items = {field: body.get(field, []) for field in LIMITS}
    else:
        item = {field: value for field, value in body.items() if field not in {"run_id", "run_uuid"}}
        field = {"log-metric": "metrics", "log-parameter": "params", "set-tag": "tags"}[name]
        items = {**_none(), field: [item]}
    return items if "run_id" in body and all(_are_items(several) for several in items.values()) else None


def _are_items(several: Any) -> bool:
    """Whether this is a list of things with a name each, as MLflow's API has them."""
    return isinstance(several, list) and all(
        isinstance(item, dict) and isinstance(item.get("key"), str) for item in several
    )


def _fits(first: Record, record: Record, items: Items, own: Items) -> bool:
    if first.call.body.get("run_id") != record.call.body.get("run_id"):
        return False
    sizes = {name: len(items[name]) + len(own[name]) for name in LIMITS}
    if sum(sizes.values()) > MOST or any(sizes[name] > limit for name, limit in LIMITS.items()):
        return False
    # If a param or a tag came twice in one request, the server would choose between them.
    return not any(
        {item["key"] for item in items[name]} & {item["key"] for item in own[name]} for name in ("params", "tags")
    )
