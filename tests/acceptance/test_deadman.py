"""Nothing happened, and somebody is told: switches over the whole gateway, with a clock that the test moves."""

from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.world import POLICY, World
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.integration.api import problem
from tests.integration.pruned import prune
from tests.servers import TestServers

SWITCHES = (
    POLICY
    + """
deadman:
  - {name: churn-retrained, expect: {retrain: accuracy, group: {model: churn}}, every: 7d, grace: 12h}
  - {name: prometheus-alive, expect: heartbeat, match: ['alertname="Watchdog"'], every: 5m, grace: 2m}
  - {name: export, expect: heartbeat, every: 1d, grace: 1h}
"""
)


async def switch(world: World, name: str, *, to: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await world.get(f"/api/v1/deadman/{name}", to=to)
    return found


async def state(world: World, name: str) -> str:
    return str((await switch(world, name))["state"])


async def flips(world: World, name: str) -> list[str]:
    """What it became, the oldest first."""
    return [flip["after"] for flip in reversed((await switch(world, name))["flips"])]


async def incidents(world: World, name: str) -> list[tuple[str, bool]]:
    """What was told of a switch: (key, is it over), the oldest first."""
    async with world.services[0].core.engine.connect() as conn:
        rows = await conn.exec_driver_sql("SELECT key, resolved_at FROM notices ORDER BY opened_at")
        return [(row.key, row.resolved_at is not None) for row in rows if row.key == f"deadman:{name}"]


async def health(world: World) -> int:
    return (await world.clients[0].get("/health/deadman")).status_code


async def start(world: World, conf: dict[str, Any] | None = None, dag: str = "retrain_model") -> None:
    """Somebody starts a run in Airflow itself."""
    async with world.airflow_client() as client:
        token = (await client.post("/auth/token", json={"username": "gateway", "password": "gateway"})).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        body = {"logical_date": None, "conf": conf or {}}
        answer = await client.post(f"/api/v2/dags/{dag}/dagRuns", json=body, headers=headers)
        assert answer.status_code == 200, answer.text


async def by_hand(world: World, conf: dict[str, Any] | None = None) -> None:
    """Somebody starts a run in Airflow itself; it takes twenty minutes."""
    await start(world, conf)
    await world.pass_by(minutes=21)


async def test_a_switch_is_new_then_due_then_down_and_up_again_and_its_incident_follows(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        assert (await state(world, "export"), await health(world)) == ("new", 200)
        await world.pass_by(hours=24, minutes=-1)
        assert await state(world, "export") == "new"
        await world.pass_by(minutes=1)
        assert await state(world, "export") == "grace"
        await world.pass_by(minutes=60)
        assert await state(world, "export") == "down"
        assert await incidents(world, "export") == [("deadman:export", False)]
        assert (await health(world), await state(world, "churn-retrained")) == (503, "new")
        assert (await world.post("/ping/export", b"")).text == "OK"
        assert await flips(world, "export") == ["grace", "down", "up"]
        assert await incidents(world, "export") == [("deadman:export", True)]


async def test_a_gateway_whose_alertmanager_was_never_wired_pages_after_its_period(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(minutes=7)
        shown = await switch(world, "prometheus-alive")
        assert shown["state"] == "down"
        assert shown["flips"][0]["detail"].startswith("no alert in the 7m since it began to count")


async def test_a_watchdog_that_fires_keeps_its_switch_up_and_its_end_does_not(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        watchdog = world.alert("Watchdog", severity="none")
        for _ in range(5):
            await world.pass_by(minutes=4)
            [decision] = await world.push(watchdog)
            assert decision["reason"] == "no_route"
            await world.settle()
            assert await state(world, "prometheus-alive") == "up"
        await world.pass_by(minutes=6)
        await world.push(watchdog.resolved(world.clock.now()))
        await world.settle()
        assert await state(world, "prometheus-alive") == "grace"
        await world.pass_by(minutes=1)
        assert await state(world, "prometheus-alive") == "down"
        await world.push(world.alert("Watchdog", severity="none"))
        await world.settle()
        assert await flips(world, "prometheus-alive") == ["up", "grace", "down", "up"]


@pytest.mark.parametrize(
    ("conf", "counted"),
    [
        pytest.param({"model": "churn", "rows": 5}, True, id="a conf that names the group"),
        pytest.param({"gateway": {"group": {"model": "churn"}, "route": "other"}}, True, id="another route of ours"),
        pytest.param({"model": "fraud"}, False, id="another group"),
        pytest.param({}, False, id="a conf that says nothing"),
    ],
)
async def test_a_retrain_that_somebody_started_in_airflow_counts(
    servers: TestServers, database: str, conf: dict[str, Any], counted: bool
) -> None:
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(days=5)
        await by_hand(world, conf)
        assert await state(world, "churn-retrained") == ("up" if counted else "new")
        await world.pass_by(days=2, hours=12)
        assert await state(world, "churn-retrained") == ("up" if counted else "down")


async def test_a_retrain_of_ours_counts_and_a_failed_one_does_not(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    ends = iter(["failed", "success"])
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20), outcome=lambda _: next(ends))
    every = SWITCHES + (
        "  - {name: ended, expect: {retrain: accuracy, outcome: any, started_by: gateway}, every: 7d}\n"
        "  - {name: ours, expect: {retrain: accuracy, started_by: gateway}, every: 7d}\n"
        "  - {name: fraud, expect: {retrain: accuracy, group: {model: fraud}}, every: 7d}\n"
    )
    async with World(servers, database, every, airflow=airflow, clock=clock) as world:
        airflow.add_dag("retrain_model")
        await world.settle()
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=25, steps=5)
        assert await state(world, "churn-retrained") == "new"
        assert (await state(world, "ended"), await state(world, "ours")) == ("up", "new")
        await world.pass_by(minutes=60, steps=6)
        assert await state(world, "churn-retrained") == "up"
        assert (await state(world, "ours"), await state(world, "fraud")) == ("up", "new")
        assert "ended with success" in (await switch(world, "churn-retrained"))["last_event"]


async def test_a_switch_that_wants_our_own_runs_counts_no_other(servers: TestServers, database: str) -> None:
    ours = "  - {name: ours, expect: {retrain: accuracy, started_by: gateway}, every: 7d}\n"
    anybodys = "  - {name: anybodys, expect: {retrain: accuracy}, every: 7d}\n"
    async with World(servers, database, POLICY + "deadman:\n" + ours + anybodys) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await by_hand(world)
        await by_hand(world, {"gateway": {"route": "another-route-of-ours", "group": {}}})
        assert (await state(world, "ours"), await state(world, "anybodys")) == ("new", "up")


async def test_a_dag_whose_id_the_group_fills_tells_by_itself_whose_run_it_is(
    servers: TestServers, database: str
) -> None:
    of_model = SWITCHES.replace("{id: retrain_model}", '{id: "retrain_{{group.model}}"}')
    fraud = "  - {name: fraud, expect: {retrain: accuracy, group: {model: fraud}}, every: 7d}\n"
    async with World(servers, database, of_model + fraud) as world:
        world.airflow.add_dag("retrain_churn")
        world.airflow.add_dag("retrain_fraud")
        await world.settle()
        await start(world, dag="retrain_churn")
        await world.pass_by(minutes=21)
        assert (await state(world, "churn-retrained"), await state(world, "fraud")) == ("up", "new")


async def test_a_run_that_ended_by_a_clock_ahead_of_ours_hides_no_later_one(
    servers: TestServers, database: str
) -> None:
    fraud = "  - {name: fraud, expect: {retrain: accuracy, group: {model: fraud}}, every: 7d}\n"
    async with World(servers, database, SWITCHES + fraud) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await start(world, {"model": "churn"})
        [run] = world.airflow.open_runs()
        run.end("success", world.clock.now() + timedelta(hours=3))
        await world.pass_by(minutes=1)
        await by_hand(world, {"model": "fraud"})
        assert (await state(world, "churn-retrained"), await state(world, "fraud")) == ("up", "up")


async def test_only_the_newest_groups_of_a_route_are_looked_at_and_the_log_says_so(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    each = 'deadman:\n  - {name: "m-{{group.model}}", expect: {retrain: accuracy}, for_each: {model: []}, every: 7d}\n'
    async with World(servers, database, POLICY + each) as world:
        await world.settle()
        await world.push(world.alert(model="newest"))
        async with world.services[0].core.engine.begin() as conn:
            [columns] = await conn.exec_driver_sql(
                "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns "
                "WHERE table_name = 'groups' AND column_name NOT IN ('key', 'labels', 'fired_at')"
            )
            await conn.exec_driver_sql(
                f"INSERT INTO groups (key, labels, fired_at, {columns[0]}) SELECT n::text, '{{}}', "
                f"fired_at - interval '1 day', {columns[0]} FROM groups, generate_series(1, 5000) n"
            )
            await conn.exec_driver_sql(
                "UPDATE groups SET fired_at = fired_at WHERE labels <> '{}'"
            )  # Behind the others.
        await world.pass_by(minutes=1)
        assert [item["name"] for item in (await world.get("/api/v1/deadman"))["items"]] == ["m-newest"]
        assert "only the newest groups of a route were looked at" in caplog.text


async def test_values_that_alerts_bring_make_switches_of_their_own(servers: TestServers, database: str) -> None:
    each = (
        'deadman:\n  - {name: "retrained-{{group.model}}", expect: {retrain: accuracy}, '
        "for_each: {model: [churn]}, every: 7d}\n"
        '  - {name: "alive-{{group.cluster}}", expect: heartbeat, match: [alertname=Watchdog], '
        "for_each: {cluster: []}, every: 5m}\n"
    )
    async with World(servers, database, POLICY + each) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        assert [item["name"] for item in (await world.get("/api/v1/deadman"))["items"]] == ["retrained-churn"]
        await world.push(world.alert(model="fraud"), world.alert("Watchdog", cluster="eu"))
        await world.pass_by(minutes=1)
        names = [item["name"] for item in (await world.get("/api/v1/deadman"))["items"]]
        assert names == ["alive-eu", "retrained-churn", "retrained-fraud"]
        assert (await world.post("/api/v1/deadman/alive-eu/forget", {})).status_code == 200
        assert (await world.post("/api/v1/deadman/retrained-fraud/forget", {})).status_code == 200
        assert (await world.post("/api/v1/deadman/retrained-churn/forget", {})).status_code == 200
        await world.pass_by(hours=3)
        assert [item["name"] for item in (await world.get("/api/v1/deadman"))["items"]] == ["retrained-churn"]
        await world.push(world.alert("Watchdog", cluster="eu"))
        assert await state(world, "alive-eu") == "new"
        await world.pass_by(days=1)
        await world.push(world.alert(model="fraud"))
        await world.pass_by(minutes=1)
        assert await state(world, "retrained-fraud") == "new"


async def test_a_paused_switch_is_silent_and_counts_anew(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(hours=26)
        assert await state(world, "export") == "down"
        until = world.clock.now() + timedelta(days=3)
        answer = await world.post("/api/v1/deadman/export/pause", {"until": until.isoformat(), "reason": "freeze"})
        assert answer.json()["explanation"].startswith("It is paused by anonymous: freeze, until ")
        assert await incidents(world, "export") == [("deadman:export", True)]
        await world.pass_by(days=3)
        assert await state(world, "export") == "new"
        await world.pass_by(hours=25)
        assert await state(world, "export") == "down"
        assert (await world.post("/api/v1/deadman/export/resume", {})).status_code == 409


async def test_a_switch_that_leaves_the_policy_ends_its_incident(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(hours=25)
        assert await incidents(world, "export") == [("deadman:export", False)]
        await world.reload(POLICY)
        await world.pass_by(seconds=5)
        assert await incidents(world, "export") == [("deadman:export", True)]
        assert (await world.get("/api/v1/deadman"))["items"] == []


# -- our own outages ----------------------------------------------------------------------------------------------------


async def test_an_incident_of_a_switch_that_is_down_is_nobodys_to_end(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(hours=25)
        [notice] = [n for n in (await world.get("/api/v1/notices"))["items"] if n["key"] == "deadman:export"]
        path = f"/api/v1/notices/{notice['id']}/resolve"
        refused = problem(await world.post(path, {"reason": "seen"}), 409, "wrong_state")
        assert (refused["state"], "deadman pause" in refused["detail"]) == ("open", True)
        assert await incidents(world, "export") == [("deadman:export", False)]
        await world.post("/ping/export", b"")
        assert problem(await world.post(path, {}), 409, "wrong_state")["state"] == "resolved"


async def test_a_retrain_that_is_missed_explains_itself_from_the_history(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES.replace("cooldown: 24h", "cooldown: 9d")) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.push(world.alert(model="churn", instance="0"))
        await world.pass_by(minutes=30, steps=3)
        for number in range(1, 4):
            await world.push(world.alert(model="churn", instance=str(number)))
        world.airflow.pause("retrain_model")
        await world.pass_by(days=9, hours=1)
        await world.push(world.alert(model="churn", instance="4"))
        await world.pass_by(minutes=5)
        found = await switch(world, "churn-retrained")
        assert found["state"] == "down"
        text = found["explanation"]
        assert text.startswith("No successful run of route accuracy for model=churn for 9d1h: due at ")
        assert "4 alerts arrived since" in text
        assert "1 fired" in text
        assert "3 in cooldown" in text
        assert "the DAG retrain_model is paused in Airflow" in text
        assert "cannot be seen" not in text
        world.airflow.down = True
        await world.pass_by(minutes=1)
        text = (await switch(world, "churn-retrained"))["explanation"]
        assert "Runs that were started in Airflow itself cannot be seen: cannot connect to airflow.test:8080" in text


async def test_flips_are_kept_for_the_retention(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES, retention=30 * 86400.0) as world:
        await world.settle()
        await world.pass_by(hours=26)
        await world.post("/ping/export", b"")
        await world.pass_by(days=20)
        await prune(world)
        assert await flips(world, "export") == ["down", "up", "down"]
        await world.pass_by(days=11)
        await prune(world)
        await world.services[0].loop("gauges").step()
        assert await flips(world, "export") == ["down"]
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_deadman_down{switch="export"} 1.0' in metrics
