"""`mode: shadow`: everything is decided and recorded as it would be, and nothing is started."""

from datetime import timedelta

import asyncpg

from tests.acceptance.world import World, policy, reasons
from tests.integration.api import problem
from tests.servers import TestServers

SHADOW = policy("mode: shadow")


async def outbox(world: World) -> int:
    connection = await asyncpg.connect(world.database)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))
    finally:
        await connection.close()


async def test_what_would_fire_is_told_and_nothing_is_started(servers: TestServers, database: str) -> None:
    async with World(servers, database, SHADOW) as world:
        world.airflow.add_dag("retrain_model")
        first, second = world.alert(model="churn", slice="a"), world.alert(model="churn", slice="b")
        decisions = await world.push(first, second)
        assert reasons(decisions) == [("suppress", "shadow")] * 2
        assert decisions[0]["detail"] == "in shadow mode; live it would fire: a new alert fires"
        shown = await world.trigger()
        assert (shown["mode"], shown["state"], shown["outcome"]) == ("shadow", "cancelled", None)
        assert shown["detail"] == "shadow mode: live it would have started the DAG retrain_model; nothing was started"
        assert shown["fired_at"] is not None
        assert {d["trigger_id"] for d in decisions} == {shown["id"]}
        assert len(shown["alerts"]) == 2
        assert reasons(await world.push(first)) == [("suppress", "duplicate")]
        third = world.alert(model="churn", slice="c")
        assert reasons(await world.push(third)) == [("suppress", "cooldown")]
        explained = await world.explain(first.body()["fingerprint"])
        assert explained["now"]["detail"].startswith("its trigger would have fired; the group cools down until")
        assert explained["would_fire"].startswith(
            "Set `mode: live` in the route accuracy: in shadow mode it starts nothing. Then: "
        )
        assert "nothing was started" in explained["summary"]
        [state] = (await world.get("/api/v1/routes"))["items"][0]["groups"]
        assert (state["state"], state["in_flight"]) == ("cooldown", None)
        await world.services[0].loop("gauges").step()
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_shadow_triggers_total{route="accuracy"} 1.0' in metrics
        assert 'gateway_triggers{route="accuracy"' not in metrics
        await world.pass_by(hours=5, steps=2)
        await world.push(first, second, third)
        assert (await outbox(world), world.airflow.posts) == (0, [])


async def test_the_whole_state_machine_runs_up_to_the_outbox(servers: TestServers, database: str) -> None:
    text = policy("mode: shadow\ndebounce: 10m\nstale_after: 3d\nlimit: {triggers: 2, per: 7d}")
    async with World(servers, database, text) as world:
        world.airflow.add_dag("retrain_model")
        churn, flap = world.alert(model="churn"), world.alert(model="flap")
        assert reasons(await world.push(churn, flap)) == [("hold", "debouncing")] * 2
        assert {t["state"] for t in await world.triggers()} == {"held"}
        assert reasons(await world.push(flap.resolved(world.clock.now()))) == [("cancel", "resolved_while_held")]
        await world.pass_by(minutes=10)
        [would] = [t for t in await world.triggers() if t["fired_at"]]
        assert would["group"] == {"model": "churn"}
        await world.pass_by(hours=24)
        assert len([t for t in await world.triggers() if t["fired_at"]]) == 2, "it still fires after its cooldown"
        assert reasons(await world.push(world.alert(model="fraud"))) == [("suppress", "limit")]
        assert (await outbox(world), world.airflow.posts) == (0, [])


async def test_a_change_of_mode_starts_clean(servers: TestServers, database: str) -> None:
    live = policy("debounce: 10m\nlimit: {triggers: 1, per: 7d}\nstale_after: 3d")
    async with World(servers, database, live + "    mode: shadow\n", replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        alert, held = world.alert(model="churn"), world.alert(model="held")
        await world.push(alert)
        await world.pass_by(minutes=10)
        assert [t["mode"] for t in await world.triggers() if t["fired_at"]] == ["shadow"]
        for replica in (0, 1):
            assert (await world.reload(live, to=replica)).status_code == 200
        await world.settle()
        now = {(t["mode"], t["state"]) for t in await world.triggers()}
        assert now == {("shadow", "cancelled"), ("live", "held")}, (
            "no cooldown of the rehearsal; its debounce begins anew"
        )
        await world.pass_by(minutes=10)
        assert len(world.airflow.posts) == 1, "without a new notification, and the rehearsal counts for no limit"
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.push(held)
        for replica in (0, 1):
            assert (await world.reload(live + "    mode: shadow\n", to=replica)).status_code == 200
        await world.pass_by(minutes=40, steps=4)
        assert (await world.triggers(status="succeeded"))[0]["mode"] == "live", "what has fired is followed to its end"
        assert len(world.airflow.posts) == 1


async def test_what_is_held_when_the_mode_changes_is_let_go_and_decided_anew(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 10m\nmode: shadow")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        assert (await world.reload(policy("debounce: 10m"))).status_code == 200
        assert reasons(await world.push(alert)) == [("hold", "debouncing")]
        await world.settle()
        assert [(t["mode"], t["state"]) for t in await world.triggers()] == [("live", "held"), ("shadow", "cancelled")]
        await world.pass_by(minutes=10)
        assert len(world.airflow.posts) == 1


async def test_a_request_is_refused_recorded_and_rehearsed(servers: TestServers, database: str) -> None:
    async with World(servers, database, SHADOW) as world:
        world.airflow.add_dag("retrain_model")
        body = {"route": "accuracy", "group": {"model": "churn"}, "reason": "new labels"}
        refused = problem(await world.post("/api/v1/triggers", body), 409, "shadow")
        shown = await world.trigger()
        assert (refused["reason"], refused["trigger_id"], shown["mode"]) == ("shadow", shown["id"], "shadow")
        problem(await world.post("/api/v1/triggers", body), 409, "cooldown")
        problem(await world.post("/api/v1/triggers", body | {"force": True}), 409, "shadow")
        assert reasons(await world.push(world.alert(model="churn"))) == [("suppress", "cooldown")]
        await world.pass_by(hours=25, steps=3)
        assert (await outbox(world), world.airflow.posts) == (0, [])


async def test_a_rehearsed_episode_is_spent_without_refire(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("mode: shadow\nrefire: false\nstale_after: 9d")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(hours=25)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert len(await world.triggers()) == 1
        world.clock.pass_by(timedelta(minutes=1))
        await world.push(alert.resolved(world.clock.now()))
        world.clock.pass_by(timedelta(minutes=5))
        assert reasons(await world.push(world.alert(model="churn"))) == [("suppress", "shadow")]
