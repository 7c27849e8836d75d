"""Nothing happened, and somebody asks why: each way to silence, told in sentences and in numbers."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.explain.why_api import WhyOut
from tests.acceptance.world import World, policy
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import opened, problem
from tests.integration.test_api_cli import ask
from tests.servers import TestServers

Situation = Callable[[World], Awaitable[None]]
ROUTES = (
    policy("limit: {triggers: 2, per: 30d}\nstale_after: 30d\ndebounce: 10m").replace(
        "match: ['alertname=\"ModelAccuracyLow\"']",
        "match: ['alertname=\"ModelAccuracyLow\"', 'severity=\"critical\"']",
    )
    + """
  - {name: late, match: ['alertname="ModelAccuracyLow"', 'model="late"'], dag: {id: retrain_model}}
"""
)


async def fires(world: World, model: str = "churn", minutes: float = 40) -> Any:
    """An alert that lasts, its run, and its end after that many minutes."""
    alert = world.alert(model=model)
    await world.push(alert)
    await world.pass_by(minutes=10)
    await world.pass_by(minutes=minutes, steps=4)
    return alert


async def nothing_at_all(world: World) -> None:
    del world


async def other_alerts(world: World) -> None:
    await world.push(world.alert("DiskFull", severity="page"))


async def nearly(world: World) -> None:
    await world.push(world.alert(model="churn", severity="warning"))
    await world.push(world.alert("DiskFull", severity="page"))


async def cooling(world: World) -> None:
    await fires(world)
    for pod in range(40):
        await world.push(world.alert(model="churn", pod=f"p{pod}"))
        await world.pass_by(minutes=1)


async def flapping(world: World) -> None:
    for _ in range(3):
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=3)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(minutes=5)


async def paused(world: World) -> None:
    world.airflow.pause("retrain_model")
    await fires(world)


async def full(world: World) -> None:
    for model in ("a", "b", "churn"):
        await fires(world, model)


async def dead(world: World) -> None:
    world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
    await fires(world, minutes=1)


async def asked_in_vain(world: World) -> None:
    alert = await fires(world)
    await world.push(alert.resolved(world.clock.now()))
    body = {"route": "accuracy", "group": {"model": "churn"}, "reason": "new labels"}
    for _ in range(2):
        assert (await world.post("/api/v1/triggers", body)).status_code == 409


async def held_up_by_hand(world: World) -> None:
    await fires(world)
    await world.post("/api/v1/routes/accuracy/pause", {"reason": "stop", "until": "2026-11-24T12:00:00Z"})


async def ended_long_ago(world: World) -> None:
    alert = await fires(world)
    await world.push(alert.resolved(world.clock.now()))
    await world.pass_by(days=9)


#: After what; words of the summary; of what would fire; of what to do.
SITUATIONS: list[tuple[Situation, str, str, str]] = [
    (
        nothing_at_all,
        "The route accuracy has fired no trigger for model=churn. No alert matched this route since 2026-11-16T12:00:00Z, "
        "and no other alert has arrived. Does your Alertmanager send to this gateway?",
        'labels satisfy alertname="ModelAccuracyLow" and severity="critical"',
        "doctor --alertmanager",
    ),
    (
        other_alerts,
        "The newest other alert is DiskFull, at 2026-11-23T12:00:00Z. Does your Alertmanager send the alert of this route?",
        "or a request: `trigger-gateway trigger accuracy --group model=churn --reason WHY`",
        "doctor --alertmanager",
    ),
    (
        nearly,
        'The nearest alert is ModelAccuracyLow, at 2026-11-23T12:00:00Z, which does not satisfy severity="critical".',
        'severity="critical"',
        "doctor --alertmanager",
    ),
    (
        cooling,
        "41 alerts arrived since 2026-11-16T13:30:00Z: 40 in cooldown, 1 fired.",
        "when the cooldown of 1d ends",
        "Nothing.",
    ),
    (
        flapping,
        "3 resolved while held. These alerts do not fire at this moment.",
        "An alert whose labels",
        "Nothing.",
    ),
    (paused, "pending: the DAG retrain_model is paused in Airflow", "has ended", "Unpause the DAG retrain_model"),
    (full, "1 over the limit. At this moment: suppress, limit:", "limit (2 in 30d)", "Nothing."),
    (dead, "The last success is not in the history.", "backoff after the failure", "`redrive` the trigger"),
    (
        held_up_by_hand,
        "duplicate: its trigger has fired; the group cools down until 2026-11-24T12:10:00Z. "
        "The route is muted until 2026-11-24T12:00:00Z: anonymous has paused it: stop.",
        "when the cooldown of 1d ends",
        "Nothing.",
    ),
    (asked_in_vain, "Requests and schedules were refused: 2 for the cooldown.", "An alert whose labels", "Nothing."),
    (
        ended_long_ago,
        "No alert matched this route since 2026-11-25T12:50:00Z. The newest before that was ModelAccuracyLow, at 2026-",
        "An alert whose labels",
        "Nothing.",
    ),
]
IDS = [situation[0].__name__ for situation in SITUATIONS]


@pytest.mark.parametrize(("bring_about", "says", "would", "do"), SITUATIONS, ids=IDS)
async def test_silence_is_explained_from_the_history(
    servers: TestServers, database: str, bring_about: Situation, says: str, would: str, do: str
) -> None:
    async with opened(servers, database, policy=ROUTES) as world:
        await bring_about(world)
        explained = await world.get("/api/v1/routes/accuracy/explain", label="model=churn")
        for name in ("summary", "would_fire", "next_step"):
            print(explained[name])
            reads_well(explained[name])
        assert list(explained) == list(WhyOut.model_fields)
        assert says in explained["summary"]
        assert would in explained["would_fire"]
        assert do in explained["next_step"]
        assert sum(row["alerts"] for row in explained["decisions"]) == explained["alerts"]
        shown = " ".join((await ask(world, "explain", "--route", "accuracy", "--group", "model=churn")).split())
        assert " ".join(explained["summary"].split()) in shown
        assert f"What to do: {explained['next_step']}" in shown


def reads_well(text: str) -> None:
    """Sentences with an end, absolute times in UTC, no Python in them."""
    assert text.endswith((".", "?")), text
    assert not re.search(r"None|\{|datetime|UUID\(|  |\.\.", text), text


async def test_a_group_is_told_apart_from_its_route(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy=ROUTES) as world:
        await fires(world, "churn")
        await fires(world, "fraud", minutes=1)
        route = await world.get("/api/v1/routes/accuracy/explain")
        assert (route["alerts"], route["triggers"]) == (2, {"running": 1, "succeeded": 1})
        assert "At this moment 2 groups have a firing alert: " in route["summary"]
        assert "model=churn: " in route["would_fire"]
        assert [g["group"]["model"] for g in route["groups"]] == ["fraud", "churn"]
        churn = await world.get("/api/v1/routes/accuracy/explain", label="model=churn")
        assert (churn["alerts"], churn["triggers"]) == (1, {"succeeded": 1})
        assert churn["last_success_at"] is not None
        assert [g["group"]["model"] for g in churn["groups"]] == ["churn"]


async def test_a_route_behind_one_that_takes_its_alerts_is_told_so(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy=ROUTES) as world:
        await world.push(world.alert(model="late"))
        explained = await world.get("/api/v1/routes/late/explain")
        assert "satisfies its matchers but went to accuracy, an earlier route" in explained["summary"]


async def test_only_the_time_asked_for_is_told(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy=ROUTES) as world:
        alert = await fires(world)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=3)
        counts = {}
        for since in (
            "1d",
            "4d",
            "9999w",
            "2026-11-23T11:00:00Z",
            "2026-11-25T00:00:00+02:00",
            "0001-01-01T00:00:00+14:00",
        ):
            explained = await world.get("/api/v1/routes/accuracy/explain", since=since)
            counts[since] = (explained["alerts"], sum(explained["triggers"].values()))
        assert list(counts.values()) == [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ("nowhere/explain", 404, "not_found"),
        ("accuracy/explain?since=yesterday", 422, "invalid"),
        ("accuracy/explain?since=0d", 422, "invalid"),
        ("accuracy/explain?label=model", 422, "invalid"),
        ("No%20Such/explain", 422, "invalid"),
    ],
)
async def test_a_question_that_makes_no_sense_is_a_problem(
    servers: TestServers, database: str, asked: str, status: int, code: str
) -> None:
    async with opened(servers, database, policy=ROUTES) as world:
        problem(await world.clients[0].get(f"/api/v1/routes/{asked}"), status, code)
