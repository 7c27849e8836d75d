"""Retrains that do not help: counted, told, and with `then: hold` the group fires no more until it is released."""

from typing import Any

import pytest

from app.replay.check import check
from app.replay.replay import REORDER
from tests.acceptance.lives import recorded_history
from tests.acceptance.test_effects import opened
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import FakeAlert, World, policy, reasons
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import FakePagerDuty
from tests.integration.api import problem
from tests.integration.pruned import prune
from tests.servers import TestServers
from tests.sizes import size

#: An alert is told once a day, and does not go stale meanwhile.
DAILY = "stale_after: 3d"
HOLD = DAILY + "\non_no_effect: {after: 2, then: hold}"


def drizzle(servers: TestServers, database: str, route: str, **more: Any) -> tuple[World, FakePagerDuty]:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    others = {FakePagerDuty.host: pagerduty}
    return opened(servers, database, policy(route) + RECEIVERS, clock=clock, others=others, **more), pagerduty


async def days(world: World, alert: FakeAlert, number: int) -> None:
    """The alert goes on, day by day. In fewer steps the end of a run is seen so late that `settle` lasts into the next day.
    Then the group fires once more before the effect is known."""
    for _ in range(number):
        await world.push(alert)
        await world.settle()
        await world.pass_by(days=1, minutes=1, steps=4)


@pytest.mark.parametrize(
    ("rule", "most"),
    [("{then: hold}", 3), ("{after: 1, then: hold}", 1), ("{after: 3, then: tell}", None)],
    ids=["three-by-default", "one", "control-nothing-holds-it"],
)
async def test_an_alert_that_never_ends_gets_three_retrains_and_not_one_a_day(
    servers: TestServers, database: str, rule: str, most: int | None
) -> None:
    year = size(6, 365)
    world, pagerduty = drizzle(servers, database, f"{DAILY}\non_no_effect: {rule}")
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, year)
        assert len(world.airflow.posts) == (most or year + 1)
        [incident] = pagerduty.open()
        assert "did not end it: look at the data" in str(incident)
        assert "The newest took " in str(incident)


async def test_by_default_a_person_is_told_and_the_retrains_go_on(servers: TestServers, database: str) -> None:
    world, pagerduty = drizzle(servers, database, DAILY)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 2)
        assert pagerduty.open() == []
        await days(world, alert, 2)
        assert len(world.airflow.posts) == 5
        assert len(pagerduty.open()) == 1


async def test_the_reason_is_in_every_explanation(servers: TestServers, database: str) -> None:
    world, _ = drizzle(servers, database, HOLD)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 4)
        [decision] = await world.push(alert)
        assert reasons([decision]) == [("suppress", "ineffective")]
        assert (decision["until"], decision["detail"]) == (
            None,
            "2 retrains since 23 Nov did not end it: look at the data",
        )
        found = await world.explain((await world.alerts())[0]["id"])
        assert "a person must `reset` the group" in found["would_fire"]
        why = await world.get("/api/v1/routes/accuracy/explain")
        assert "At this moment: suppress, ineffective: 2 retrains since 23 Nov did not end it" in why["summary"]


async def test_requests_of_people_obey_it_and_force_overrides_it(servers: TestServers, database: str) -> None:
    world, _ = drizzle(servers, database, HOLD)
    async with world:
        await days(world, world.alert(model="churn"), 4)
        asked = {"route": "accuracy", "group": {"model": "churn"}, "reason": "new data"}
        refused = problem(await world.post("/api/v1/triggers", asked), 409, "ineffective")
        assert (refused["reason"], refused["until"]) == ("ineffective", None)
        assert refused["detail"].startswith("Retraining does not help: 2 retrains since 23 Nov")
        forced = await world.post("/api/v1/triggers", asked | {"force": True})
        assert (forced.status_code, forced.json()["reason"]) == (201, "forced")


async def test_a_reset_releases_the_group_and_the_count_begins_anew(servers: TestServers, database: str) -> None:
    world, pagerduty = drizzle(servers, database, HOLD)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 5)
        assert len(world.airflow.posts) == 2
        await world.post("/api/v1/routes/accuracy/reset", {"group": {"model": "churn"}})
        await world.settle()
        await world.pass_by(minutes=2)
        assert len(world.airflow.posts) == 3
        assert pagerduty.open() == []
        await days(world, alert, 5)
        assert len(world.airflow.posts) == 4
        assert len(pagerduty.open()) == 1


async def test_the_replay_of_what_was_recorded_holds_the_group_as_long_as_live_did(
    servers: TestServers, database: str
) -> None:
    world, _ = drizzle(servers, database, HOLD)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 5)
        await world.post("/api/v1/routes/accuracy/reset", {"group": {"model": "churn"}})
        await world.settle()
        await days(world, alert, 5)
        checked = check(await recorded_history(world), None, world.clock.now(), REORDER)
    assert (len(checked.pairs), checked.differences) == (len(world.airflow.posts), []), checked.as_text()
    assert len(checked.pairs) == 4


async def test_a_count_that_ends_wakes_no_group_that_it_did_not_hold(servers: TestServers, database: str) -> None:
    """Otherwise the moment of a review would decide when a group goes to the other mode."""
    world, _ = drizzle(servers, database, DAILY)
    async with world:
        await days(world, world.alert(model="churn"), 1)  # The first retrain did not help, and the second is under way.
        [group] = (await world.get("/api/v1/routes"))["items"][0]["groups"]
        assert group["in_flight"], group
        await world.reload(policy(DAILY + "\nmode: shadow") + RECEIVERS)
        await world.settle()
        await world.pass_by(minutes=25)
        assert [t["state"] for t in await world.triggers()] == ["succeeded", "succeeded"]


async def test_another_entry_of_the_policy_releases_the_group(servers: TestServers, database: str) -> None:
    world, pagerduty = drizzle(servers, database, HOLD)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 4)
        await world.reload(policy(HOLD + "\nnotify: {run_failed: []}") + RECEIVERS)
        await days(world, alert, 1)
        assert len(world.airflow.posts) == 2
        await world.reload(policy(HOLD + "\nrun_timeout: 20h") + RECEIVERS)
        await world.settle()
        await world.pass_by(minutes=2)
        assert len(world.airflow.posts) == 3
        assert pagerduty.open() == []


@pytest.mark.parametrize(("hours", "fires"), [(-1, 0), (1, 1)], ids=["before", "after"])
async def test_an_end_and_a_quiet_watch_release_the_group(
    servers: TestServers, database: str, hours: int, fires: int
) -> None:
    world, _ = drizzle(servers, database, HOLD + "\neffect: {settle: 6h, watch: 2d}")
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 4)
        posts = len(world.airflow.posts)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=2, hours=hours)
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=2)
        assert len(world.airflow.posts) == posts + fires


async def test_an_alert_that_began_anew_and_ended_releases_the_group_too(servers: TestServers, database: str) -> None:
    """After a restart of Prometheus the alert has another beginning, and nobody sends an end of the earlier one. Another
    alert that is over when it arrives never fired here, so it begins nothing."""
    world, _ = drizzle(servers, database, HOLD + "\neffect: {settle: 6h, watch: 2d}")
    async with world:
        await days(world, world.alert(model="churn"), 4)
        posts = len(world.airflow.posts)
        anew = world.alert(model="churn")
        await world.push(anew)
        await world.pass_by(hours=1)
        await world.push(anew.resolved(world.clock.now()))
        await world.pass_by(days=1)
        await world.push(world.alert(model="churn", slice="over").resolved(world.clock.now()))
        await world.pass_by(days=1, hours=1)
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=2)
        assert len(world.airflow.posts) == posts + 1


@pytest.mark.parametrize("retention", [0, 86_400], ids=["for-ever", "shorter-than-watch"])
async def test_a_retention_that_is_shorter_than_watch_releases_no_group_early(
    servers: TestServers, database: str, retention: int
) -> None:
    world, _ = drizzle(servers, database, HOLD + "\neffect: {settle: 6h, watch: 4d}", retention=retention)
    async with world:
        alert = world.alert(model="churn")
        await days(world, alert, 4)
        await world.push(alert.resolved(world.clock.now()))
        for _ in range(3):
            await world.pass_by(days=1)
            await prune(world)
        decisions = await world.push(world.alert(model="churn"))
        assert reasons(decisions) == [("suppress", "ineffective")]


async def test_a_group_that_retraining_does_not_help_stops_no_other(servers: TestServers, database: str) -> None:
    world, _ = drizzle(servers, database, HOLD)
    async with world:
        await days(world, world.alert(model="churn"), 4)
        [decision] = await world.push(world.alert(model="fraud"))
        assert reasons([decision]) == [("fire", "new_alert")]
