"""Accepted is not success: the run is followed to its end, and the cooldown follows the outcome."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.acceptance.world import FakeAlert, World, policy, reasons
from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer
from tests.servers import TestServers


def _world(
    servers: TestServers, database: str, text: str, outcome: Callable[[FakeRun], str] | None = None
) -> tuple[World, FakeAirflow]:
    """A world whose runs end after 20 minutes as `outcome` says; without one they end when the test says so."""
    clock = ManualClock()
    if outcome is None:
        airflow = FakeAirflow(clock)
    else:
        airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20), outcome=outcome)
    airflow.add_dag("retrain_model")
    return World(servers, database, text, clock=clock, airflow=airflow), airflow


async def _fired(world: World) -> list[str]:
    """Ids of the DAG runs, the oldest first."""
    return [t["dag_run_id"] for t in reversed(await world.triggers())]


async def test_a_failed_run_frees_its_group_after_a_backoff_that_doubles_until_a_success_resets_it(
    servers: TestServers, database: str
) -> None:
    world, airflow = _world(servers, database, policy("stale_after: 7d"), lambda _: "failed")
    async with world:
        alert = world.alert(model="churn")
        await world.push(alert)
        fires: list[datetime] = []
        for _ in range(80):
            await world.settle()
            if len(airflow.posts) > len(fires):
                fires.append(world.clock.now())
            if len(fires) == 5:
                break
            world.clock.pass_by(timedelta(minutes=10))
        pauses = [later - earlier for earlier, later in pairwise(fires)]
        # 20 minutes of run, at most 10 until its end is seen and 10 until the wake: then 30m, 1h, 2h, 4h.
        for pause, backoff in zip(pauses, (30, 60, 120, 240), strict=True):
            assert timedelta(minutes=20 + backoff) <= pause <= timedelta(minutes=40 + backoff)
        assert (await world.alerts())[0]["count"] == 1, "there was no new notification"
        assert {t["reason"] for t in await world.triggers()} == {"new_alert", "still_firing"}
        airflow.outcome = lambda _: "success"
        await world.pass_by(minutes=40, steps=4)
        [route] = (await world.get("/api/v1/routes"))["items"]
        group = route["groups"][0]
        assert (group["state"], group["last_outcome"], group["failures_in_a_row"]) == ("cooldown", "success", 0)
        assert len(airflow.posts) == 5
        assert airflow.most_open == 1


async def test_between_a_failure_and_the_end_of_its_backoff_a_new_notification_is_told_why(
    servers: TestServers, database: str
) -> None:
    world, airflow = _world(servers, database, policy(), lambda _: "failed")
    async with world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.pass_by(minutes=21)
        [decision] = await world.push(alert)
        assert (decision["action"], decision["reason"]) == ("suppress", "cooldown")
        assert "failure 1 in a row" in decision["detail"]
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "cooldown"
        assert "reset" in explained["would_fire"]
        assert (await world.trigger())["outcome"] == "failed"
        assert len(airflow.posts) == 1


async def test_with_on_failure_keep_a_failed_run_keeps_the_cooldown(servers: TestServers, database: str) -> None:
    world, airflow = _world(servers, database, policy("on_failure: keep\nstale_after: 7d"), lambda _: "failed")
    async with world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=23, steps=6)
        assert len(airflow.posts) == 1
        assert (await world.trigger())["state"] == "failed"
        await world.pass_by(hours=5, steps=2)
        assert len(airflow.posts) == 2


async def test_on_failure_is_the_one_the_trigger_fired_under(servers: TestServers, database: str) -> None:
    world, airflow = _world(servers, database, policy("on_failure: keep"), lambda _: "failed")
    async with world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.restart(policy("on_failure: release"))
        await world.pass_by(hours=5, steps=10)
        assert (await world.trigger())["state"] == "failed"
        assert len(airflow.posts) == 1


@pytest.mark.parametrize("debounce", ["0s", "10m", "3h"], ids="debounce {}".format)
@pytest.mark.parametrize("resolved", [False, True], ids=["still firing", "resolved meanwhile"])
async def test_an_alert_told_once_in_the_last_hour_of_a_cooldown_is_decided_when_it_ends(
    servers: TestServers, database: str, debounce: str, resolved: bool
) -> None:
    world, airflow = _world(servers, database, policy(f"debounce: {debounce}"), lambda _: "success")
    async with world:
        first = world.alert(model="churn", pod="a")
        await world.push(first)
        held = timedelta(hours=3) if debounce == "3h" else timedelta(minutes=10 if debounce == "10m" else 0)
        await world.pass_by(seconds=held.total_seconds())
        await world.pass_by(hours=1, steps=2)
        await world.push(first.resolved(world.clock.now()))
        await world.pass_by(hours=22, minutes=15)
        late = world.alert(model="churn", pod="b")
        assert reasons(await world.push(late)) == [("suppress", "cooldown")]
        await world.pass_by(minutes=15)
        if resolved:
            await world.push(late.resolved(world.clock.now()))
        await world.pass_by(minutes=50, steps=2)
        if debounce == "3h":
            assert len(airflow.posts) == 1, "a debounce that is not over is waited for"
            await world.pass_by(hours=2, steps=2)
        assert len(airflow.posts) == (1 if resolved else 2)


async def test_a_run_past_its_run_timeout_that_succeeds_later_is_told_lost_once_and_never_doubled(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    world, airflow = _world(servers, database, policy("run_timeout: 2h\nstale_after: 7d"))
    async with world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        [run_id] = await _fired(world)
        airflow.start_run(run_id)
        await world.pass_by(hours=1)
        assert (await world.trigger())["outcome"] is None
        await world.pass_by(hours=2)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("running", "lost")
        await world.pass_by(hours=28, steps=9)
        assert "run_timeout" in trigger["detail"]
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert reasons(await world.push(world.alert(model="churn", pod="b"))) == [("suppress", "in_flight")]
        assert [r.getMessage() for r in caplog.records if "lost" in r.getMessage()] == ["trigger ended: lost"]
        assert len(airflow.posts) == 1
        airflow.finish(run_id)
        await world.pass_by(minutes=2, steps=2)
        newer, older = await world.triggers()
        assert (older["state"], older["outcome"]) == ("succeeded", "success")
        assert newer["state"] in ("submitted", "running"), (
            "the cooldown counts from the fire, and that was 31 hours ago"
        )
        await world.pass_by(minutes=1)
        assert len(airflow.posts) == 2
        assert airflow.most_open == 1


async def test_a_lost_run_that_then_fails_counts_as_one_failure(servers: TestServers, database: str) -> None:
    world, airflow = _world(servers, database, policy("run_timeout: 2h"))
    async with world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        [run_id] = await _fired(world)
        airflow.start_run(run_id)
        await world.pass_by(hours=4, steps=4)
        airflow.finish(run_id, "failed")
        await world.pass_by(minutes=1)
        [route] = (await world.get("/api/v1/routes"))["items"]
        group = route["groups"][0]
        assert (group["failures_in_a_row"], group["last_outcome"], group["state"]) == (1, "failed", "cooldown")


async def test_a_run_still_queued_at_its_run_timeout_is_failed_in_airflow_before_another_may_start(
    servers: TestServers, database: str
) -> None:
    world, airflow = _world(servers, database, policy("run_timeout: 2h"))
    async with world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        [first] = await _fired(world)
        await world.pass_by(minutes=119, steps=2)
        assert airflow.run(first).state == "queued"
        await world.pass_by(minutes=2, steps=2)
        assert airflow.run(first).state == "failed"
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("failed", "failed")
        assert "still queued after its run_timeout" in trigger["detail"]
        await world.pass_by(minutes=31)
        assert len(airflow.posts) == 2
        assert airflow.most_open == 1


async def test_a_run_deleted_in_airflow_is_gone_and_releases_its_group(servers: TestServers, database: str) -> None:
    world, airflow = _world(servers, database, policy())
    async with world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        [run_id] = await _fired(world)
        airflow.start_run(run_id)
        await world.pass_by(minutes=5)
        del airflow.runs["retrain_model", run_id]
        await world.pass_by(minutes=1)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("failed", "gone")
        await world.pass_by(minutes=31)
        assert len(airflow.posts) == 2


async def test_a_replica_killed_while_it_reads_the_end_of_a_run_leaves_it_to_another_one(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20))
    airflow.add_dag("retrain_model")
    async with World(servers, database, clock=clock, airflow=airflow, replicas=2) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        clock.pass_by(timedelta(minutes=21))
        await world.die_during("run", replica=0, loop="follower")
        assert (await world.trigger())["outcome"] is None
        await world.pass_by(minutes=1)
        assert (await world.trigger())["outcome"] == "success"
        assert len(airflow.posts) == 1


async def test_a_replica_killed_after_it_failed_a_queued_run_leaves_no_second_one_beside_it(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    airflow = FakeAirflow(clock)
    airflow.add_dag("retrain_model")
    async with World(servers, database, policy("run_timeout: 2h"), clock=clock, airflow=airflow, replicas=2) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        clock.pass_by(timedelta(minutes=121))
        await world.die_during("fail_run", replica=0, loop="follower")
        [run_id] = await _fired(world)
        assert airflow.run(run_id).state == "failed"
        assert (await world.trigger())["state"] == "submitted"
        await world.pass_by(minutes=1)
        assert (await world.trigger())["outcome"] == "failed"
        await world.pass_by(minutes=31)
        assert len(airflow.posts) == 2
        assert airflow.most_open == 1


async def test_refire_false_gives_an_episode_one_success_and_a_new_episode_another(
    servers: TestServers, database: str
) -> None:
    ends = iter(["failed", "success", "success"])
    answered: dict[str, str] = {}

    def outcome(run: FakeRun) -> str:
        return answered.setdefault(run.dag_run_id, next(ends, "success"))

    world, airflow = _world(servers, database, policy("refire: false\nstale_after: 30d"), outcome)
    async with world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(hours=2, steps=12)
        assert len(airflow.posts) == 2, "a failure does not spend the episode"
        await world.pass_by(days=3, steps=6)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert len(airflow.posts) == 2
        explained = await world.explain(alert.body()["fingerprint"])
        assert "`refire` is off" in explained["would_fire"]
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(hours=1)
        assert reasons(await world.push(FakeAlert(alert.labels, world.clock.now()))) == [("fire", "new_alert")]


async def test_a_run_that_airflow_no_longer_lets_us_read_says_so_until_it_does(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy()) as world:
        world.airflow.auto_finish = None
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.airflow.disturb(answer(403, {"detail": "no"}), on="run", times=None)
        await world.pass_by(minutes=5)
        trigger = await world.trigger()
        assert trigger["blocked"] == "forbidden"
        assert trigger["detail"].startswith("the DAG run cannot be read: ")
        assert (await world.explain(trigger["id"]))["next_step"] != "Nothing."
        world.airflow.calm()
        await world.pass_by(minutes=5)
        trigger = await world.trigger()
        assert (trigger["blocked"], trigger["detail"]) == (None, "the DAG run is queued in Airflow")


async def test_a_run_of_an_airflow_that_left_the_policy_says_so(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy()) as world:
        world.airflow.auto_finish = None
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
    other = policy().replace("name: default", "name: prod").replace("{id: retrain", "{airflow: prod, id: retrain")
    async with World(servers, database, other, clock=world.clock, airflow=world.airflow) as world:
        await world.pass_by(minutes=5)
        trigger = await world.trigger()
        assert trigger["blocked"] == "no_airflow"
        assert "default" in trigger["detail"]
