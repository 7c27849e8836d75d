"""The happy path, and the first test to read: an alert fires, one DAG run starts, succeeds, and the group cools down."""

from tests.acceptance.world import World, reasons
from tests.servers import TestServers


async def test_a_firing_alert_starts_one_dag_run_that_is_followed_to_its_end(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        assert reasons(await world.push(alert)) == [("fire", "new_alert")]
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.settle()
        [post] = world.airflow.posts
        [trigger] = await world.triggers()
        assert trigger["state"] in ("submitted", "running")
        assert post["dag_run_id"] == trigger["dag_run_id"] == f"gateway__accuracy__{trigger['id']}"
        assert post["logical_date"] is None
        assert post["conf"]["gateway"]["group"] == {"model": "churn"}
        assert post["conf"]["gateway"]["alerts"][0]["alert_id"] == "ModelAccuracyLow"

        await world.pass_by(minutes=30, steps=6)
        [trigger] = await world.triggers()
        assert (trigger["state"], trigger["outcome"]) == ("succeeded", "success")
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        [found] = (await world.get("/api/v1/alerts"))["items"]
        assert found["count"] == 3
        [route] = (await world.get("/api/v1/routes"))["items"]
        assert route["groups"][0]["state"] == "cooldown"
        assert len(world.airflow.posts) == 1


async def test_an_alert_that_fires_on_after_its_cooldown_starts_another_run_without_a_new_notification(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        for _ in range(8):  # Alertmanager repeats every four hours; the last time an hour before the cooldown ends.
            await world.pass_by(hours=3, steps=6)
            await world.push(alert) if len(world.airflow.posts) == 1 else None
        await world.pass_by(hours=1, steps=4)
        assert len(world.airflow.posts) == 2
        assert [t["reason"] for t in await world.triggers()] == ["still_firing", "new_alert"]
