"""Joining a backlog: the same things in the same order, in as few requests as MLflow's limits allow."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_spool.joining import LIMITS, MOST, MOST_BYTES, joined
from mlflow_spool.records import API, Call, Record, draft
from tests.sizes import size

Write = tuple[str, dict[str, Any]]
METRIC = st.builds(
    lambda key, step: ("log-metric", {"key": key, "value": 1.0, "timestamp": step, "step": step}),
    st.sampled_from("ab"),
    st.integers(0, 9),
)
PARAM = st.builds(lambda key, value: ("log-parameter", {"key": key, "value": value}), st.sampled_from("pq"), st.text())
TAG = st.builds(lambda key, value: ("set-tag", {"key": key, "value": value}), st.sampled_from("st"), st.text())
BATCH = st.sampled_from([1, 400, 700]).map(
    lambda many: (
        "log-batch",
        {"metrics": [{"key": "m", "value": 0.0, "timestamp": n, "step": n} for n in range(many)]},
    )
)
OTHER = st.just(("update", {"status": "FINISHED"}))


def records(writes: list[Write]) -> list[Record]:
    drafted = [draft(Call("POST", f"{API}/runs/{name}", {"run_id": "r", **body}), 0) for name, body in writes]
    return [record for record in drafted if record is not None]


def logged_by(call: Call) -> list[tuple[str, str]]:
    """What a call logs, item by item."""
    name, body = call.path.rpartition("/")[2], call.body
    if name == "log-batch":
        return [(kind, json.dumps(entry, sort_keys=True)) for kind in LIMITS for entry in body.get(kind, [])]
    kind = {"log-metric": "metrics", "log-parameter": "params", "set-tag": "tags"}.get(name, name)
    return [(kind, json.dumps({k: v for k, v in body.items() if k != "run_id"}, sort_keys=True))]


@settings(max_examples=size(40, 2000), deadline=None)
@given(st.lists(METRIC | PARAM | TAG | BATCH | OTHER, max_size=8))
def test_nothing_is_lost_reordered_or_beyond_the_limits(writes: list[Write]) -> None:
    before = records(writes)
    batches = list(joined(before))
    assert [record for batch in batches for record in batch.records] == before
    for kind in (*LIMITS, "update"):
        wanted = [item for record in before for item in logged_by(record.call) if item[0] == kind]
        assert [item for batch in batches for item in logged_by(batch.call) if item[0] == kind] == wanted
    for batch in batches:
        if len(batch.records) > 1:
            assert all(len(batch.call.body.get(kind, [])) <= limit for kind, limit in LIMITS.items())
            assert sum(len(batch.call.body.get(kind, [])) for kind in LIMITS) <= MOST
            for kind in ("params", "tags"):
                keys = [entry["key"] for entry in batch.call.body.get(kind, [])]
                assert len(keys) == len(set(keys))


def test_a_thousand_metrics_go_in_one_request() -> None:
    write: Write = ("log-metric", {"key": "m", "value": 1.0, "timestamp": 1, "step": 1})
    assert [len(batch.records) for batch in joined(records([write] * 2500))] == [1000, 1000, 500]


def test_a_request_stays_below_a_megabyte() -> None:
    big: Write = ("set-tag", {"key": "k", "value": "x" * 5000})
    writes = [(name, {**body, "key": f"k{number}"}) for number, (name, body) in enumerate([big] * 400)]
    assert all(len(json.dumps(batch.call.body)) < MOST_BYTES for batch in joined(records(writes)))
