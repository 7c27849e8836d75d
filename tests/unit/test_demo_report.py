"""What the demo's table says, from the lists as the gateway's API and Airflow give them."""

import io
from typing import Any

import pytest
from rich.console import Console

from demo.airflow import SeenRun
from demo.mlflow import SeenVersion
from demo.report import MODELS, Row, Screen, row, state_of, table
from demo.storm import DROPPING, FLAPPING


def alert(model: str, count: int, *decisions: tuple[str, str, int]) -> dict[str, Any]:
    made = [{"action": action, "reason": reason, "count": times} for action, reason, times in decisions]
    return {"group": {"model": model}, "count": count, "decisions": made}


def trigger(model: str, state: str, fired_at: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{model} {state}",
        "group": {"model": model},
        "state": state,
        "fired_at": fired_at,
        "detail": f"it is {state}",
    }


def run(model: str, state: str) -> SeenRun:
    return SeenRun(f"gateway__accuracy__{model}", state, {"gateway": {"group": {"model": model}}})


def version(model: str, trigger_id: str | None, run_status: str = "FINISHED") -> SeenVersion:
    tags = {"gateway.trigger_id": trigger_id} if trigger_id else {}
    return SeenVersion(model, "1", "0a1b", run_status, tags, {"f1": 0.94})


ALERTS = [
    alert("churn", 40, ("suppress", "cooldown", 40)),
    alert(FLAPPING, 6, ("hold", "debouncing", 1), ("suppress", "duplicate", 3), ("cancel", "resolved_while_held", 2)),
    alert("churn", 138, ("hold", "debouncing", 1), ("suppress", "duplicate", 95), ("fire", "new_alert", 1)),
]
TRIGGERS = [trigger(FLAPPING, "cancelled"), trigger("churn", "succeeded", "2026-11-24T03:00:06Z")]
RUNS = [run("churn", "success"), SeenRun("by_hand", "failed", {})]
VERSIONS = [version("churn", "churn succeeded"), version("churn", None), version("fraud", "somebody else's")]


def test_a_row_adds_up_what_the_lists_say_of_one_model() -> None:
    churn = row("churn", ALERTS, TRIGGERS, RUNS, VERSIONS)
    assert (churn.received, churn.folded) == (178, 176)
    assert (churn.held, churn.called_off, churn.fired) == (1, 0, 1)
    assert churn.suppressed == {"cooldown": 40, "duplicate": 95}
    assert [seen.dag_run_id for seen in churn.runs] == ["gateway__accuracy__churn"]
    assert list(churn.versions) == VERSIONS[:1]
    assert churn.trigger is TRIGGERS[1]


def test_a_trigger_that_was_called_off_did_not_fire() -> None:
    flapping = row(FLAPPING, ALERTS, TRIGGERS, RUNS)
    assert (flapping.held, flapping.called_off, flapping.fired, flapping.runs) == (1, 1, 0, [])


def test_of_a_model_that_nobody_spoke_of_there_is_nothing() -> None:
    assert row("fraud", ALERTS, TRIGGERS, RUNS) == Row("fraud", 0, 0, 0, 0, 0, {}, None, [], [])


@pytest.mark.parametrize(
    ("model", "fired", "ends", "promised"),
    [
        pytest.param(DROPPING[0], 1, ["success"], True, id="one-run-that-succeeded"),
        pytest.param(DROPPING[0], 1, ["failed"], False, id="it-failed"),
        pytest.param(DROPPING[0], 1, ["running"], False, id="it-still-runs"),
        pytest.param(DROPPING[0], 1, [], False, id="fired-without-a-run"),
        pytest.param(DROPPING[0], 1, ["success", "success"], False, id="retrained-twice"),
        pytest.param(DROPPING[0], 2, ["success"], False, id="fired-twice"),
        pytest.param(DROPPING[0], 0, [], False, id="never-retrained"),
        pytest.param(FLAPPING, 0, [], True, id="a-flap-that-started-nothing"),
        pytest.param(FLAPPING, 1, [], False, id="a-flap-that-fired"),
        pytest.param(FLAPPING, 0, ["success"], False, id="a-flap-that-retrained"),
    ],
)
def test_the_promise(model: str, fired: int, ends: list[str], promised: bool) -> None:
    versions = [version(model, "it") for end in ends if end == "success"]
    night = Row(model, 10, 9, 1, 0, fired, {}, None, [run(model, end) for end in ends], versions)
    assert night.as_promised is promised


@pytest.mark.parametrize(
    ("model", "ends", "promised"),
    [
        pytest.param(DROPPING[0], ["FINISHED"], True, id="registered"),
        pytest.param(DROPPING[0], [], False, id="nothing-registered"),
        pytest.param(DROPPING[0], ["RUNNING"], False, id="its-run-never-ended"),
        pytest.param(DROPPING[0], ["FINISHED", "FINISHED"], False, id="registered-twice"),
        pytest.param(FLAPPING, ["FINISHED"], False, id="a-flap-that-registered"),
    ],
)
def test_the_promise_holds_for_what_mlflow_has(model: str, ends: list[str], promised: bool) -> None:
    dropping = model in DROPPING
    runs = [run(model, "success")] if dropping else []
    versions = [version(model, "it", end) for end in ends]
    assert Row(model, 10, 9, 1, 0, int(dropping), {}, None, runs, versions).as_promised is promised


def printed(width: int, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=width, force_terminal=terminal, highlight=False), output


def test_the_table_fits_a_terminal_of_80_columns_and_names_every_reason() -> None:
    console, output = printed(80)
    effects: list[dict[str, Any]] = [
        {"group": {"model": "churn"}, "effect": "recurred"},
        {"group": {"model": "fraud"}, "effect": None},
    ]
    back = {"model": "churn", "state": "rolled_back", "target": "7"}
    moves = [{"model": "churn", "state": "blocked", "target": "9"}, back, back | {"state": "promoted", "target": "8"}]
    console.print(table([row(model, ALERTS, TRIGGERS, RUNS, VERSIONS, effects, moves) for model in MODELS]))
    text = output.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for words in (
        "churn",
        "fraud",
        "recommender",
        "started nothing: cooldown",
        "started nothing: duplicate",
        "success",
        "version 1",
        "did it help",
        "recurred",
        "champion at the end",
        "version 7",
    ):
        assert words in text
    assert text.count("NOT AS PROMISED") == 1


@pytest.mark.parametrize(
    ("triggers", "alerts", "words"),
    [
        pytest.param([], [], "no alert yet", id="silence"),
        pytest.param([], ALERTS, "alerts received", id="no-trigger"),
        pytest.param(TRIGGERS, ALERTS, "succeeded  it is succeeded", id="trigger"),
    ],
)
def test_where_a_model_stands(triggers: list[dict[str, Any]], alerts: list[dict[str, Any]], words: str) -> None:
    assert state_of(row("churn", alerts, triggers)) == words


def test_without_a_terminal_only_changes_are_printed() -> None:
    console, output = printed(80)
    screen, rows = Screen(console), [row("churn", ALERTS, TRIGGERS)]
    with screen.live():
        for _ in range(3):
            screen.show("20 sent", rows)
        screen.show("40 sent", [row("churn", ALERTS, [trigger("churn", "failed", "2026-11-24T03:00:06Z")])])
    assert [line.split() for line in output.getvalue().splitlines()] == [
        ["churn", "succeeded", "it", "is", "succeeded"],
        ["churn", "failed", "it", "is", "failed"],
    ]


def test_on_a_terminal_a_table_changes_in_place() -> None:
    console, output = printed(80, terminal=True)
    with Screen(console).live():
        pass
    screen = Screen(console)
    with screen.live():
        screen.show("20 sent", [row("churn", ALERTS, TRIGGERS)])
        screen.show("40 sent", [row("churn", ALERTS, TRIGGERS)])
    assert "40 sent" in output.getvalue()
    assert "\x1b[" in output.getvalue()
