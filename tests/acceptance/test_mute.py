"""`mute`: while a time interval holds nothing fires, and what still fires at its end is decided then."""

from datetime import timedelta

from tests.acceptance.world import World, at, policy, reasons
from tests.fakes.clock import ManualClock
from tests.servers import TestServers

# The clock of Madrid is put forward in this night: 02:00 is 03:00. So the freeze has 5 hours and 30 minutes.
FREEZE = """
time_intervals:
  - name: freeze
    time_intervals:
      - {times: [{start_time: '00:00', end_time: '06:30'}], days_of_month: ['29'], months: [march], location: Europe/Madrid}
"""
MIDNIGHT, END = at("2026-03-28T23:00"), at("2026-03-29T04:30")


def muted(route: str = "") -> str:
    return policy(f"mute: [freeze]\n{route}") + FREEZE


async def test_an_alert_in_a_mute_fires_when_it_ends_without_another_notification(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock(MIDNIGHT - timedelta(minutes=1))
    async with World(servers, database, muted(), clock=clock) as world:
        world.airflow.add_dag("retrain_model")
        assert reasons(await world.push(world.alert(model="early"))) == [("fire", "new_alert")]
        await world.pass_by(minutes=1)
        alert = world.alert(model="churn")
        [decision] = await world.push(alert)
        assert (decision["action"], decision["reason"], decision["until"]) == (
            "suppress",
            "muted",
            "2026-03-29T04:30:00Z",
        )
        assert decision["detail"] == "muted until 2026-03-29T04:30:00Z: the time interval 'freeze' holds"
        assert reasons(await world.push(alert)) == [("suppress", "muted")]
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "muted"
        assert (
            explained["would_fire"]
            == "The alert must still fire at 2026-03-29T04:30:00Z, when nothing mutes its route."
        )
        await world.pass_by(hours=5, minutes=29, steps=6)
        assert len(world.airflow.posts) == 1
        await world.pass_by(minutes=1)
        assert world.clock.now() == END
        assert len(world.airflow.posts) == 2
        [row] = await world.alerts(label="model=churn")
        assert [(d["action"], d["reason"], d["count"]) for d in row["decisions"]] == [
            ("suppress", "muted", 2),
            ("fire", "new_alert", 1),
        ]


async def test_a_hold_that_ends_in_a_mute_is_cancelled_told_and_decided_again(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock(MIDNIGHT - timedelta(minutes=5))
    async with World(servers, database, muted("debounce: 10m"), clock=clock) as world:
        world.airflow.add_dag("retrain_model")
        churn, fraud = world.alert(model="churn", slice="a"), world.alert(model="fraud")
        assert reasons(await world.push(churn, fraud)) == [("hold", "debouncing")] * 2
        await world.pass_by(minutes=10)
        assert [t["state"] for t in await world.triggers()] == ["cancelled"] * 2
        assert "the time interval 'freeze' holds" in (await world.triggers())[0]["detail"]
        await world.push(fraud.resolved(world.clock.now()))
        await world.pass_by(hours=5, minutes=30)
        [fired] = [t for t in await world.triggers() if t["state"] != "cancelled"]
        assert (fired["group"], len(world.airflow.posts)) == ({"model": "churn"}, 1)


async def test_a_request_of_a_person_is_not_muted(servers: TestServers, database: str) -> None:
    async with World(servers, database, muted(), clock=ManualClock(MIDNIGHT)) as world:
        world.airflow.add_dag("retrain_model")
        body = {"route": "accuracy", "group": {"model": "churn"}, "reason": "it cannot wait"}
        assert (await world.post("/api/v1/triggers", body)).status_code == 201


async def test_a_mute_that_leaves_the_policy_ends_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, muted(), clock=ManualClock(MIDNIGHT)) as world:
        world.airflow.add_dag("retrain_model")
        assert reasons(await world.push(world.alert(model="churn"))) == [("suppress", "muted")]
        assert (await world.reload(policy())).status_code == 200
        await world.settle()
        assert len(world.airflow.posts) == 1


async def test_an_alert_that_is_heard_again_in_the_next_night_is_decided_at_its_end(
    servers: TestServers, database: str
) -> None:
    night = (
        policy("mute: [night]")
        + """
time_intervals:
  - {name: night, time_intervals: [{times: [{start_time: '00:00', end_time: '06:00'}]}]}
"""
    )
    async with World(servers, database, night, clock=ManualClock(at("2026-11-24T00:00"))) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        assert reasons(await world.push(alert)) == [("suppress", "muted")]
        await world.pass_by(hours=6, minutes=1)
        assert world.airflow.posts == [], "it was not heard of for longer than stale_after"
        await world.pass_by(hours=18)
        assert reasons(await world.push(alert)) == [("suppress", "muted")]
        await world.pass_by(hours=5, minutes=59)
        assert len(world.airflow.posts) == 1
