"""What the log of a whole story holds: the id of the trigger in every line about one, and no secret in any line."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.kit import log as gateway_log
from tests.acceptance.test_schedules import DAILY
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer, refuse
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.integration.api import token_of
from tests.servers import TestServers

PASSWORD = "swordfish-of-airflow"
MARK = "this line is there"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything that is logged, at every level, as the gateway writes it."""
    root = logging.getLogger()
    kept = (root.level, root.handlers[:])
    stream = io.StringIO()
    gateway_log.configure("debug", json=True, stream=stream)
    yield stream
    root.setLevel(kept[0])
    root.handlers[:] = kept[1]
    structlog.reset_defaults()


#: What the log says of triggers in this story, each line with the id of its trigger.
ABOUT_TRIGGERS = {
    "trigger held",
    "trigger pending",
    "trigger cancelled",
    "a delivery waits",
    "a delivery is dead",
    "trigger redriven",
    "the DAG run is in Airflow",
    "trigger ended: success",
    "trigger ended: failed",
    "trigger ended: dead",
    "a DAG run cannot be read now",
    "schedule decided: scheduled",
    "a request was decided: manual",
}


async def story(servers: TestServers, database: str, folder: Any) -> tuple[set[str], list[str]]:
    """Held and fired, held and cancelled, delivered late, dead and redriven, failed, asked for, scheduled, told. The ids of
    the triggers, and every secret that was used on the way."""
    headers = token_of(folder, "admin")
    clock = ManualClock()
    ends = iter(["failed"])
    airflow = FakeAirflow(clock, auto_finish=None, outcome=lambda _: next(ends, "success"))
    pagerduty = FakePagerDuty(clock)
    text = policy("debounce: 10m", cooldown="1h").replace("password: gateway", f"password: {PASSWORD}") + RECEIVERS
    text += f"schedules: [{DAILY}]\n"
    more: dict[str, Any] = {"tokens_file": folder / "tokens", "clock": clock, "airflow": airflow}
    async with World(servers, database, text, others={FakePagerDuty.host: pagerduty}, **more) as world:
        world.clients[0].headers.update(headers)
        airflow.users["gateway"] = PASSWORD
        airflow.add_dag("retrain_model", paused=True)
        first, flap = world.alert(model="churn"), world.alert(model="fraud")
        await world.push(first, flap)
        await world.pass_by(minutes=3)
        await world.push(flap.resolved(world.clock.now()))
        await world.pass_by(minutes=7)
        airflow.unpause("retrain_model")
        airflow.disturb(answer(422, {"detail": f"no such conf {PASSWORD}"}), on="trigger")
        await world.pass_by(minutes=1)
        dead = (await world.triggers(status="dead"))[0]["id"]
        assert (await world.post(f"/api/v1/triggers/{dead}/redrive", b"")).status_code == 200
        await world.settle()
        airflow.disturb(refuse(), on="run")
        await world.pass_by(minutes=1)
        for _, run in list(airflow.runs):
            airflow.finish(run, "failed")
        await world.pass_by(minutes=1)
        body = {"route": "accuracy", "group": {"model": "asked"}, "reason": "new labels"}
        assert (await world.post("/api/v1/triggers", body)).status_code == 201
        await world.settle()
        for _, run in list(airflow.runs):
            airflow.finish(run, "success")
        await world.push(first.resolved(world.clock.now()))
        await world.pass_by(hours=16, steps=4)
        assert pagerduty.opened
        logging.getLogger("app.story").warning(MARK)
        return {t["id"] for t in await world.triggers()}, [PASSWORD, KEY, headers["Authorization"].split()[1]]


async def test_every_line_about_a_trigger_has_its_id_and_no_line_has_a_secret(
    servers: TestServers, database: str, tmp_path: Any, lines: io.StringIO
) -> None:
    ids, secrets = await story(servers, database, tmp_path)
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert any(line["event"] == MARK for line in written), "the log is caught"
    of_triggers = [line for line in written if line["event"] in ABOUT_TRIGGERS]
    assert {line["event"] for line in of_triggers} == ABOUT_TRIGGERS
    assert [line for line in of_triggers if line.get("trigger_id") not in ids] == []
    assert {line["trigger_id"] for line in of_triggers} == ids, "each trigger's way is in the log"
    text = lines.getvalue()
    assert [secret for secret in secrets if secret in text] == []


def test_a_secret_in_the_log_would_be_seen(lines: io.StringIO) -> None:
    """The other way around: what the test above looks for is found when it is there, and what has a secret's name is not."""
    logging.getLogger("app.story").warning("asking with %s", PASSWORD, extra={"password": KEY})
    assert PASSWORD in lines.getvalue()
    assert KEY not in lines.getvalue()


@pytest.mark.parametrize(
    "nasty", ['x\n{"event": "forged"}', "x\r\nforged", "\x1b[2Jx", "x\u2028forged", "x\x00y"], ids=repr
)
def test_what_a_sender_wrote_stays_in_its_line(nasty: str, lines: io.StringIO) -> None:
    logging.getLogger("app.story").warning("refused %s", nasty, extra={"group": {"model": nasty}})
    [line] = lines.getvalue().splitlines()
    assert json.loads(line)["group"] == {"model": nasty}
