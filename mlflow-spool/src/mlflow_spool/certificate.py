"""Completeness of a run: what the journal says was logged against what MLflow shows, each missing thing by name. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_spool.answers import measurements, run_of
from mlflow_spool.records import API, Call, Record, translated

Ask = Callable[[Call], dict[str, Any]]


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


def certify(
    run_id: str, history: Sequence[Record], resolve: Callable[[str], str | None], ask: Ask
) -> Certificate | None:
    """Compare a run's records with the server's answers; None when the journal no longer holds its beginning.

    run_id: the real one. ask: one read of the REST API; what it raises is not caught.
    """
    logged = run_of(history)
    if logged is None:
        return None
    keys = sorted(one["key"] for one in logged["data"]["metrics"])
    expected = _things(logged, {key: measurements(history, key) for key in keys})
    expected = {
        translated(Call("", name), resolve).path: value
        for name, value in translated(Call("", "", expected), resolve).body.items()
    }
    run = ask(Call("GET", f"{API}/runs/get", {"run_id": run_id}))["run"]
    shown = _things(run, {key: list(_history(run_id, key, ask)) for key in keys})
    missing = tuple(name for name, value in expected.items() if shown.get(name) != value)
    return Certificate(run_id, len(expected), len(expected) - len(missing), missing)


def _things(run: dict[str, Any], metrics: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    data = run.get("data", {})
    things: dict[str, Any] = {"status": run["info"].get("status")}
    things |= {f"param {one['key']}": one.get("value") for one in data.get("params", [])}
    things |= {f"tag {one['key']}": one.get("value") for one in data.get("tags", [])}
    for key, values in metrics.items():
        for one in values:
            place = f"metric {key} at step {int(one.get('step', 0))}, time {int(one.get('timestamp', 0))}"
            things[f"{place}: {float(one.get('value', 0.0))!r}"] = True
    for model in run.get("outputs", {}).get("model_outputs", []):
        things[f"output {model['model_id']}"] = True
    return things


def _history(run_id: str, key: str, ask: Ask) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = {"run_id": run_id, "metric_key": key}
    while True:
        answer = ask(Call("GET", f"{API}/metrics/get-history", query))
        found += answer.get("metrics", [])
        if not answer.get("next_page_token"):
            return found
        query = {**query, "page_token": answer["next_page_token"]}
