"""`confirm`: Prometheus is asked before a fire, with no transaction open, and its word counts as long as it is fresh."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from tests.acceptance.world import World, policy, reasons
from tests.fakes.clock import ManualClock
from tests.fakes.prometheus import FakePrometheus
from tests.servers import TestServers

QUERY = 'model_accuracy{model="{{group.model}}"} < 0.85'


def confirmed(route: str = "", on_error: str = "fire") -> str:
    return policy(
        f"confirm: {{prometheus: 'http://prometheus.test:9090', query: '{QUERY}', on_error: {on_error}}}\n{route}"
    )


@asynccontextmanager
async def opened(
    servers: TestServers, database: str, text: str, **more: Any
) -> AsyncIterator[tuple[World, FakePrometheus]]:
    clock = ManualClock()
    prometheus = FakePrometheus(clock)
    others: dict[str, Any] = {"prometheus.test": prometheus}
    async with World(servers, database, text, clock=clock, others=others, **more) as world:
        world.airflow.add_dag("retrain_model")
        yield world, prometheus


async def test_a_confirmed_alert_fires_at_once_and_is_asked_for_by_its_group(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, confirmed()) as (world, prometheus):
        alert = world.alert(model='chu"rn')
        [decision] = await world.push(alert)
        assert (decision["action"], decision["reason"]) == ("hold", "debouncing")
        assert decision["detail"] == "held until Prometheus has been asked"
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert world.airflow.posts == []
        await world.settle()
        assert prometheus.queries == ['model_accuracy{model="chu\\x22rn"} < 0.85']
        assert len(world.airflow.posts) == 1
        [alert_row] = await world.alerts()
        assert [d["reason"] for d in alert_row["decisions"]] == ["debouncing", "duplicate", "new_alert"]


async def test_to_lift_a_pause_that_is_over_has_nobody_asked(servers: TestServers, database: str) -> None:
    async with opened(servers, database, confirmed()) as (world, prometheus):
        prometheus.says = lambda _: prometheus.vector()
        until = (world.clock.now() + timedelta(minutes=1)).isoformat()
        path = "/api/v1/routes/accuracy/pause"
        assert (await world.post(path, {"reason": "a test", "until": until})).status_code == 200
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=1)
        assert len(prometheus.queries) == 1
        await world.pass_by(minutes=1)
        assert (await world.clients[0].delete(path)).status_code == 404
        await world.settle()
        assert len(prometheus.queries) == 1, "asked again only when five minutes are over"


async def test_what_is_not_confirmed_is_asked_again_after_five_minutes_while_it_fires(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, confirmed("debounce: 10m")) as (world, prometheus):
        prometheus.says = lambda _: prometheus.vector()
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=9, seconds=30, steps=10)
        assert prometheus.queries == []
        await world.pass_by(seconds=30)
        [row] = await world.alerts()
        newest = row["decisions"][-1]
        assert (newest["action"], newest["reason"]) == ("suppress", "unconfirmed")
        assert newest["detail"] == "not confirmed by Prometheus: no series satisfies the query"
        assert (await world.trigger())["state"] == "cancelled"
        await world.pass_by(minutes=2)
        assert reasons(await world.push(alert)) == [("suppress", "unconfirmed")], "told again, and not asked again"
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "unconfirmed"
        assert explained["would_fire"].startswith("Prometheus must confirm the alert. The gateway asks it at ")
        await world.pass_by(minutes=3)
        assert len(prometheus.queries) == 2
        prometheus.says = lambda _: prometheus.vector(0.7)
        await world.pass_by(minutes=5)
        assert (len(prometheus.queries), len(world.airflow.posts)) == (3, 1), "without another notification"
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(hours=25, steps=5)
        assert len(prometheus.queries) == 3


ERRORS = [
    (503, {"status": "error", "errorType": "unavailable", "error": "starting"}),
    (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}),
    (302, {}),
    (200, b"<html>"),
    (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("too slow"),
]


def _the(answer: Any, _: str) -> Any:
    return answer


@pytest.mark.parametrize("on_error", ["fire", "suppress"])
async def test_when_there_is_no_answer_on_error_says_what_counts(
    servers: TestServers, database: str, on_error: str
) -> None:
    async with opened(servers, database, confirmed(on_error=on_error)) as (world, prometheus):
        for number, answer in enumerate(ERRORS):
            prometheus.says = partial(_the, answer)
            await world.push(world.alert(model=f"m{number}"))
            await world.settle()
            [row] = await world.alerts(label=f"model=m{number}")
            newest = row["decisions"][-1]
            assert newest["reason"] == {"fire": "new_alert", "suppress": "unconfirmed"}[on_error]
            if on_error == "suppress":
                assert newest["detail"].startswith("no answer from Prometheus (")
                assert newest["detail"].endswith("), and on_error is suppress")
        assert len(world.airflow.posts) == (len(ERRORS) if on_error == "fire" else 0)
        metrics = (await world.clients[0].get("/metrics")).text
        assert f'gateway_confirms_total{{result="error",route="accuracy"}} {len(ERRORS)}.0' in metrics


@pytest.mark.parametrize("change", ["pause", "resolve and fire anew", "reload"])
async def test_an_answer_that_is_older_than_the_facts_fires_nothing(
    servers: TestServers, database: str, change: str
) -> None:
    async with opened(servers, database, confirmed()) as (world, prometheus):
        alert = world.alert(model="churn")
        await world.push(alert)
        prometheus.hangs = asyncio.Event()
        asking = asyncio.create_task(world.services[0].loop("confirmer").step())
        while not prometheus.queries:  # noqa: ASYNC110 (its question is on the way)
            await asyncio.sleep(0)
        if change == "pause":  # No transaction is open meanwhile: nothing waits for Prometheus.
            answer = await world.post("/api/v1/routes/accuracy/pause", {"reason": "stop"})
            assert answer.status_code == 200
        elif change == "reload":
            assert (await world.reload(confirmed("debounce: 1h"))).status_code == 200
        else:
            await world.push(alert.resolved(world.clock.now()))
            world.clock.pass_by(timedelta(minutes=5))
            await world.push(world.alert(model="churn"))
        prometheus.hangs.set()
        assert await asking == (change != "pause"), "asked again at once, if there is something to ask"
        assert not await world.triggers(status="pending")
        assert len(prometheus.queries) == 1
        prometheus.says = lambda _: prometheus.vector()
        await world.settle()
        assert world.airflow.posts == []
        assert len(prometheus.queries) == (2 if change == "resolve and fire anew" else 1)


async def test_the_time_of_a_long_question_is_no_outage_of_the_gateway(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise every hold would end later, and a group that is asked about would never be decided."""
    async with opened(servers, database, confirmed()) as (world, prometheus):

        def slowly(_: str) -> Any:
            world.clock.pass_by(timedelta(seconds=50))
            return prometheus.vector(0.7)

        prometheus.says = slowly
        await world.push(world.alert(model="churn"))
        await world.services[0].loop("confirmer").step()
        world.clock.pass_by(timedelta(seconds=20))
        await world.services[0].loop("waker").step()
        assert [r for r in caplog.records if r.getMessage() == "holds end later by an outage"] == []
        await world.settle()
        assert (len(prometheus.queries), len(world.airflow.posts)) == (1, 1)


async def test_a_prometheus_that_hangs_holds_up_no_other_route(servers: TestServers, database: str) -> None:
    text = confirmed() + policy().partition("routes:\n")[2].replace("accuracy", "drift").replace(
        "ModelAccuracyLow", "D"
    )
    async with opened(servers, database, text) as (world, prometheus):
        prometheus.hangs = asyncio.Event()
        await world.push(world.alert(model="churn"))
        asking = asyncio.create_task(world.services[0].loop("confirmer").step())
        while not prometheus.queries:  # noqa: ASYNC110 (its question is on the way)
            await asyncio.sleep(0)
        assert reasons(await world.push(world.alert("D", model="churn"))) == [("fire", "new_alert")]
        await world.services[0].loop("waker").step()
        await world.services[0].loop("relay").step()
        assert len(world.airflow.posts) == 1
        prometheus.hangs.set()
        await asking


async def test_a_person_is_not_asked_to_be_confirmed_and_shadow_is(servers: TestServers, database: str) -> None:
    async with opened(servers, database, confirmed("mode: shadow")) as (world, prometheus):
        prometheus.says = lambda query: prometheus.vector(0.7) if "churn" in query else prometheus.vector()
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        await world.settle()
        reasons_by_model = {a["labels"]["model"]: a["decisions"][-1]["reason"] for a in await world.alerts()}
        assert reasons_by_model == {"churn": "shadow", "fraud": "unconfirmed"}
        assert (await world.reload(confirmed())).status_code == 200
        body = {"route": "accuracy", "group": {"model": "other"}, "reason": "it cannot wait"}
        before = len(prometheus.queries)
        assert (await world.post("/api/v1/triggers", body)).status_code == 201
        assert len(prometheus.queries) == before


async def test_an_alert_that_still_fires_after_its_cooldown_is_confirmed_again(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, confirmed("stale_after: 9d")) as (world, prometheus):
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(hours=1, steps=3)
        prometheus.says = lambda _: prometheus.vector()
        await world.pass_by(hours=24)
        assert (len(prometheus.queries) >= 2, len(world.airflow.posts)) == (True, 1)
        prometheus.says = lambda _: prometheus.vector(0.5)
        await world.pass_by(minutes=6)
        assert len(world.airflow.posts) == 2
