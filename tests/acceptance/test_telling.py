"""Somebody is told: what becomes of a trigger is an incident at the receivers, exactly one an outage, and resolved
(issue: the trigger failed and told nobody)."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.promotions import opened
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, answer, busy, limbo, page, refuse, timeout
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.fakes.server import Hang
from tests.servers import TestServers

RECEIVERS = f"""
receivers:
  - {{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}
"""


class Told:
    """A world with a fake PagerDuty. Runs end after 20 minutes, in the states that `outcomes` gives one after the other."""

    def __init__(
        self, servers: TestServers, database: str, *outcomes: str, text: str = "", replicas: int = 1, **settings: Any
    ) -> None:
        self.clock = ManualClock()
        self.pagerduty = FakePagerDuty(self.clock)
        states, ends = iter(outcomes), dict[str, str]()

        def outcome(run: FakeRun) -> str:
            return ends.setdefault(run.dag_run_id, next(states, "success"))

        self.airflow = FakeAirflow(self.clock, auto_finish=timedelta(minutes=20), outcome=outcome)
        self.airflow.add_dag("retrain_model")
        self.world = World(
            servers,
            database,
            policy(text) + RECEIVERS,
            clock=self.clock,
            airflow=self.airflow,
            others={FakePagerDuty.host: self.pagerduty},
            replicas=replicas,
            **settings,
        )


Make = Callable[..., Told]


@pytest.fixture
def make(servers: TestServers, database: str) -> Make:
    return lambda *outcomes, **more: Told(servers, database, *outcomes, **more)


async def test_a_failed_run_is_told_once_and_resolved_by_the_next_that_succeeds(make: Make) -> None:
    case = make("failed", "failed", external_url="https://gateway.example/tg")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=30, steps=5)
        [incident] = case.pagerduty.open()
        assert incident.summary == "The retraining of accuracy, model=churn failed"
        assert incident.severity == "warning"
        assert incident.details == {"detail": "the DAG run failed", "labels": {"model": "churn", "route": "accuracy"}}
        assert incident.key.startswith("trigger-gateway/run_failed:accuracy:")
        [event] = case.pagerduty.calls("event")
        link = f"https://gateway.example/tg/ui/triggers/{(await world.trigger())['id']}"
        assert (event.call.body["client_url"], event.call.body["links"][0]["href"]) == (link, link)
        await world.pass_by(hours=1, steps=6)  # The second run fails as well.
        assert len(await world.triggers()) == 2
        assert case.pagerduty.open() == [incident]
        await world.pass_by(hours=3, steps=18)
        assert case.pagerduty.opened == [incident]
        assert (incident.triggers, case.pagerduty.open()) == (1, [])


async def test_a_dead_trigger_is_told_and_resolved_when_airflow_takes_it_after_a_redrive(make: Make) -> None:
    case = make(delivery_deadline=60.0)
    case.airflow.remove_dag("retrain_model")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=5, steps=20)
        [incident] = case.pagerduty.open()
        assert incident.summary == "No retraining of accuracy, model=churn: its trigger is dead"
        assert incident.severity == "critical"
        assert "retrain_model" in incident.details["detail"]
        case.airflow.add_dag("retrain_model")
        trigger = await world.trigger()
        await world.post(f"/api/v1/triggers/{trigger['id']}/redrive", b"")
        await world.pass_by(seconds=30)
        assert (case.pagerduty.opened, case.pagerduty.open()) == ([incident], [])


async def test_a_run_past_its_timeout_is_told_as_lost_until_it_ends(make: Make) -> None:
    case = make(text="run_timeout: 10m")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=12, steps=12)
        [incident] = case.pagerduty.open()
        assert incident.summary == "The retraining of accuracy, model=churn does not end"
        await world.pass_by(minutes=12, steps=12)
        assert case.pagerduty.open() == []
        assert case.pagerduty.opened == [incident]


async def test_a_trigger_that_waits_too_long_is_told_with_what_blocks_it_and_resolved_when_it_starts(
    make: Make,
) -> None:
    case = make(waiting_notice=1800.0)
    case.airflow.pause("retrain_model")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=29, steps=29)
        assert case.pagerduty.opened == []
        await world.pass_by(hours=3, steps=60)
        [incident] = case.pagerduty.open()
        assert incident.summary == "The retraining of accuracy, model=churn waits for Airflow"
        assert "paused" in incident.details["detail"]
        case.airflow.unpause("retrain_model")
        await world.pass_by(minutes=1, steps=4)
        assert (case.pagerduty.opened, case.pagerduty.open()) == ([incident], [])


async def test_who_is_named_after_an_incident_opened_hears_of_it_at_its_next_repeat(
    servers: TestServers, database: str
) -> None:
    """Whatever it is: a switch that is down, and a trigger that waits. Who is named no more hears of the end."""
    clock = ManualClock()
    before, after = FakePagerDuty(clock), FakePagerDuty(clock)
    pager = f'  - {{name: pager, pagerduty: {{routing_key: {KEY}, url: "http://pager.test"}}}}\n'
    switch = "deadman: [{name: export, expect: heartbeat, every: 1h, repeat: 2h, receivers: [%s]}]\n"
    others = {FakePagerDuty.host: before, "pager.test": after}
    first = policy("notify: {trigger_waiting: [oncall]}") + RECEIVERS + switch % "oncall"
    async with World(servers, database, first, clock=clock, others=others, notice_repeat=7200.0) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.pause("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=61, steps=3)
        assert (len(before.open()), after.opened) == (2, [])
        second = policy("notify: {trigger_waiting: [pager]}") + RECEIVERS + pager + switch % "pager"
        assert (await world.reload(second)).status_code == 200
        await world.pass_by(hours=2)
        assert sorted(incident.key for incident in after.open()) == sorted(incident.key for incident in before.open())
        assert [incident.triggers for incident in before.open()] == [1, 1]
        world.airflow.unpause("retrain_model")
        await world.post("/ping/export", b"")
        await world.pass_by(minutes=5, steps=2)
        assert (before.open(), after.open()) == ([], [])


async def test_an_open_run_that_cannot_be_read_for_long_is_told_and_resolved_by_the_next_read(make: Make) -> None:
    case = make(waiting_notice=300.0)
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=2, steps=4)
        case.airflow.down = True
        await world.pass_by(minutes=5, steps=10)
        assert case.pagerduty.opened == [], "a short absence is nobody's trouble"
        await world.pass_by(minutes=3, steps=6)
        [incident] = case.pagerduty.open()
        assert incident.summary == "The retraining of accuracy, model=churn waits for Airflow"
        assert "cannot be read" in incident.details["detail"]
        case.airflow.down = False
        await world.pass_by(minutes=1, steps=2)
        assert (await world.trigger())["state"] == "running"
        assert (case.pagerduty.opened, case.pagerduty.open(), incident.triggers) == ([incident], [], 1)


async def test_an_open_incident_is_repeated_and_two_groups_are_two_incidents(make: Make) -> None:
    case = make("failed", "failed", text="on_failure: keep", notice_repeat=3600.0)
    async with case.world as world:
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        await world.pass_by(minutes=30, steps=5)
        await world.pass_by(hours=3, steps=6)
        assert [incident.triggers for incident in case.pagerduty.open()] == [4, 4]


async def test_a_promotion_that_was_refused_is_told_again_while_it_stands(servers: TestServers, database: str) -> None:
    async with opened(servers, database, notice_repeat=3600.0) as gates:
        gates.mlflow.add("churn", {"f1": 0.5})
        assert (await gates.ask("1")).status_code == 409
        await gates.world.pass_by(hours=3, steps=6)
        assert [incident.triggers for incident in gates.pagerduty.open()] == [4]


FAULTS = {
    "refused": refuse,
    "timeout, arrived": lambda: timeout(after_commit=True),
    "429": lambda: busy(30),
    "502, arrived": lambda: answer(502, after_commit=True),
    "login page": page,
    "403": lambda: answer(403),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whatever_happens_to_its_answers_pagerduty_has_one_incident_and_it_ends(
    make: Make, fault: Callable[[], Fault]
) -> None:
    """Three times when it opens, three times when it is resolved."""
    case = make("failed")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        case.pagerduty.disturb(fault(), times=3)
        await world.pass_by(minutes=40, steps=20)
        assert case.pagerduty.faults_pending == 0
        [incident] = case.pagerduty.open()
        case.pagerduty.disturb(fault(), times=3)
        await world.pass_by(hours=2, steps=40)
        assert case.pagerduty.faults_pending == 0
        assert (case.pagerduty.opened, case.pagerduty.open()) == ([incident], [])


async def test_a_late_request_of_the_same_incident_opens_no_second_one(make: Make) -> None:
    case = make("failed")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        case.pagerduty.disturb(limbo(), times=1)
        await world.pass_by(minutes=30, steps=10)
        case.pagerduty.land()
        assert len(case.pagerduty.opened) == 1
        assert case.pagerduty.open()[0].triggers == 2


async def test_what_happens_while_pagerduty_is_down_for_hours_reaches_it_in_order(make: Make) -> None:
    case = make("failed", "success")
    async with case.world as world:
        case.pagerduty.down = True
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=4, steps=48)
        assert (await world.triggers())[0]["state"] == "succeeded"
        case.pagerduty.down = False
        await world.pass_by(minutes=5, steps=5)
        actions = [seen.call.body["event_action"] for seen in case.pagerduty.calls("event") if seen.status == 202]
        assert actions == ["trigger", "resolve"]
        assert (len(case.pagerduty.opened), case.pagerduty.open()) == (1, [])


async def test_an_event_that_pagerduty_refuses_for_good_is_dead_and_named_and_holds_up_nothing(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    pagerduty, airflow = FakePagerDuty(clock), FakeAirflow(clock)
    airflow.add_dag("retrain_model")
    short = (
        policy()
        + RECEIVERS.replace(KEY, "short")
        + RECEIVERS.replace("oncall", "second").replace("receivers:\n", "").lstrip("\n")
    )
    async with World(
        servers, database, short, clock=clock, airflow=airflow, others={pagerduty.host: pagerduty}
    ) as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(seconds=30)
        airflow.finish((await world.trigger())["dag_run_id"], "failed")
        await world.pass_by(minutes=5, steps=5)
        assert len(pagerduty.open()) == 1
        answers = [seen.status for seen in pagerduty.calls("event")]
        assert answers in ([202, 400], [400, 202]), "a refused event is not sent again"
        [gauges] = [loop for loop in world.services[0].loops if loop.name == "gauges"]
        await gauges.step()
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_outbox_dead{target="receiver:oncall"} 1.0' in metrics


@pytest.mark.parametrize("fault", [None, timeout()], ids=["it arrived", "it did not arrive"])
@pytest.mark.parametrize("outcome", ["failed", "success"])
async def test_a_replica_killed_while_it_tells_is_followed_by_another_one(
    make: Make, outcome: str, fault: Fault | None
) -> None:
    case = make("failed", "success", replicas=2)
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        if outcome == "success":
            await world.pass_by(hours=1, steps=6)  # The first run has failed and was told; the second is under way.
        world.clock.pass_by(timedelta(minutes=21))
        for services in world.services:
            await services.loop("follower").step()
        await world.die_during("event", fault=fault, at=case.pagerduty)
        world.services.pop(0)
        await world.pass_by(hours=2, steps=12)
        [incident] = case.pagerduty.opened
        assert incident.resolved_at is not None


async def test_a_receiver_that_hangs_holds_up_no_dag_run(make: Make) -> None:
    """PagerDuty's round is still under way when the next trigger fires."""
    case = make("failed")
    async with case.world as world, asyncio.timeout(60):
        relay, follower = (world.services[0].loop(name) for name in ("relay", "follower"))
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.clock.pass_by(timedelta(minutes=21))
        await follower.step()
        hang = case.pagerduty.hang = Hang()
        stepping = asyncio.create_task(relay.step())
        await hang.begun.wait()
        world.clock.pass_by(timedelta(seconds=1))
        assert await stepping, "PagerDuty's round is under way"
        await world.push(world.alert(model="fraud"))
        await relay.step()
        assert len(case.airflow.posts) == 2
        assert case.pagerduty.opened == []
        hang.over.set()
        await world.settle()
        assert len(case.pagerduty.open()) == 1


async def test_three_replicas_tell_an_outage_once(make: Make) -> None:
    case = make("failed", replicas=3)
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        for _ in range(30):
            world.clock.pass_by(timedelta(minutes=5))
            await asyncio.gather(*(loop.step() for s in world.services for loop in s.loops))
            await world.settle()
        [incident] = case.pagerduty.opened
        assert incident.triggers == 1
        assert incident.resolved_at is not None
