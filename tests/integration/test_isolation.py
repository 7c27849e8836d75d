"""An item that always fails holds up no other: each loop goes on with the rest. tests/acceptance has groups and switches."""

import logging
from datetime import timedelta
from typing import Any

import pytest

from app.kit.db import transaction
from app.notices.model import Notice, Severity
from tests.acceptance import promotions
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.integration.api import POLICY, opened
from tests.integration.pruned import sql
from tests.servers import TestServers

RECEIVERS = f'receivers: [{{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}]\n'


async def test_a_gauge_that_cannot_be_read_holds_up_no_other(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(servers, database) as world, sql(database) as connection:
        await world.push(world.alert("Drift", model="churn"))
        await connection.execute("ALTER TABLE outbox RENAME TO elsewhere")
        await connection.execute("ALTER TABLE promotions RENAME TO away")
        with pytest.raises(ExceptionGroup) as caught:
            await world.services[0].loop("gauges").step()
        assert len(caught.value.exceptions) == 2
        assert named(caplog, "gauges") == ["the outbox", "promotions"]
        shown = (await world.clients[0].get("/metrics")).text
        assert 'gateway_triggers{route="drift",state="held"} 1.0' in shown
        assert 'gateway_loop_items_failed_total{loop="gauges"} 2.0' in shown


async def test_an_incident_that_cannot_be_repeated_holds_up_no_other(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    others: Any = {FakePagerDuty.host: FakePagerDuty(clock)}
    async with opened(
        servers, database, policy=POLICY + RECEIVERS, clock=clock, others=others, notice_repeat=3600
    ) as world:
        services = world.services[0]
        for key in ("broken", "whole"):
            async with transaction(services.core.engine) as conn:
                found = Notice(key, "test", Severity.INFO, "title", "detail")
                await services.notices.requests._incidents.open(
                    conn, ["oncall"], found, clock.now(), timedelta(hours=1)
                )
        await world.settle()
        async with sql(database) as connection:
            broken = await connection.fetchval("SELECT id FROM notices WHERE key = 'broken'")
            spoil = "UPDATE outbox SET payload = payload || '{\"times\": \"many\"}' WHERE payload->>'notice' = $1"
            await connection.execute(spoil, str(broken))
            clock.pass_by(timedelta(hours=1))
            with pytest.raises(ExceptionGroup) as caught:
                await services.loop("notices").step()
            assert len(caught.value.exceptions) == 1
            assert named(caplog, "notice") == [str(broken)]
            again = await connection.fetch("SELECT payload->>'notice' AS notice FROM outbox WHERE state = 'pending'")
            assert [row["notice"] != str(broken) for row in again] == [True]
            assert not await services.loop("notices").step(), "the broken one is put off"
            shown = (await world.clients[0].get("/metrics")).text
            assert 'gateway_loop_items_failed_total{loop="notices"} 1.0' in shown


async def test_a_promotion_that_cannot_be_repaired_holds_up_no_other(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with promotions.opened(servers, database) as gates, sql(database) as connection:
        for model in ("churn-a", "churn-b"):
            await gates.promote(gates.mlflow.add(model, {"f1": 0.85}), model=model)
        left = "UPDATE promotions SET state = 'moving', ended_at = NULL, lease_until = created_at - interval '1 hour'"
        await connection.execute(left)
        await connection.execute(
            "UPDATE promotions SET registry = 'nowhere', lease_until = lease_until - interval '1h' WHERE model = 'churn-a'"
        )
        sweeper = gates.world.services[0].loop("sweeper")
        assert [await sweeper.step() for _ in range(3)] == [True, True, False]
        assert named(caplog, "model") == ["churn-a"]
        states = await connection.fetch("SELECT state FROM promotions ORDER BY model")
        assert [row["state"] for row in states] == ["moving", "promoted"]
        shown = (await gates.world.clients[0].get("/metrics")).text
        assert 'gateway_loop_items_failed_total{loop="sweeper"} 1.0' in shown


def named(caplog: pytest.LogCaptureFixture, key: str) -> list[str]:
    """What the log names as the items that failed."""
    return [
        getattr(record, key) for record in caplog.records if record.levelno == logging.ERROR and hasattr(record, key)
    ]
