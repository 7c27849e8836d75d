"""A restart with another policy: deadlines follow the policy in force, episodes keep what took them."""

from tests.acceptance.world import World, policy, reasons
from tests.servers import TestServers


async def test_a_shortened_cooldown_counts_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("stale_after: 7d")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(hours=3, steps=3)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.restart(policy("stale_after: 7d", cooldown="2h"))
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 2, "without a new notification"


async def test_a_lengthened_cooldown_counts_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("stale_after: 7d", cooldown="2h")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=1)
        await world.restart(policy("stale_after: 7d", cooldown="24h"))
        await world.pass_by(hours=22, steps=4)
        assert len(world.airflow.posts) == 1
        await world.pass_by(hours=2, steps=2)
        assert len(world.airflow.posts) == 2


async def test_a_shortened_debounce_counts_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 2h")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=20)
        await world.restart(policy("debounce: 10m"))
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 1


async def test_an_open_episode_keeps_its_group_when_group_by_is_refined(servers: TestServers, database: str) -> None:
    refined = policy(group_by="[model, pod]")
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn", pod="a")
        await world.push(alert)
        await world.pass_by(hours=1)
        await world.restart(refined)
        [decision] = await world.push(alert)
        assert reasons([decision]) == [("suppress", "duplicate")]
        assert decision["group"] == {"model": "churn"}
        assert (await world.explain(alert.body()["fingerprint"]))["now"]["reason"] == "duplicate"
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(hours=24, steps=2)
        [decision] = await world.push(world.alert(model="churn", pod="a"))
        assert (decision["action"], decision["group"]) == ("fire", {"model": "churn", "pod": "a"})


async def test_a_route_that_left_the_policy_cancels_what_it_held_and_says_so(
    servers: TestServers, database: str
) -> None:
    other = (
        policy("debounce: 10m").replace("name: accuracy", "name: another").replace("ModelAccuracyLow", "SomethingElse")
    )
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=2)
        await world.restart(other)
        await world.pass_by(minutes=20, steps=2)
        assert not world.airflow.posts
        assert (await world.trigger())["state"] == "cancelled"
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "no_route"
        assert "left the policy" in explained["summary"]
        assert reasons(await world.push(alert)) == [("ignore", "no_route")]


async def test_a_run_that_was_fired_is_followed_although_its_route_left_the_policy(
    servers: TestServers, database: str
) -> None:
    other = policy().replace("name: accuracy", "name: another").replace("ModelAccuracyLow", "SomethingElse")
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.restart(other)
        await world.settle()
        await world.pass_by(minutes=30, steps=2)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == 1
