"""One gateway, two Airflows: each route's runs go to its own, and the trouble of one is none of the other's."""

from datetime import timedelta
from pathlib import Path

from tests.acceptance.world import World
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.servers import TestServers

TWO = """
version: 1
airflow:
  - {name: near, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}, max_parallel: 1}
  - {name: far, url: "http://far.test:8080", auth: {username: guest, password: other}}
routes:
  - {name: drift, match: ['alertname="Drift"'], group_by: [model], dag: {airflow: far, id: retrain_far}}
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    dag: {airflow: near, id: retrain_near}
"""


def two_airflows(servers: TestServers, database: str) -> tuple[World, FakeAirflow]:
    clock = ManualClock()
    far = FakeAirflow(clock, auto_finish=timedelta(minutes=20))
    far.users["guest"] = "other"
    far.add_dag("retrain_far")
    world = World(servers, database, TWO, clock=clock, others={"far.test": far})
    world.airflow.add_dag("retrain_near")
    return world, far


async def test_each_route_starts_its_runs_in_its_own_airflow_with_its_own_login(
    servers: TestServers, database: str
) -> None:
    world, far = two_airflows(servers, database)
    async with world:
        await world.push(world.alert(model="churn"), world.alert("Drift", model="churn"))
        await world.settle()
        assert [dag for dag, _ in world.airflow.runs] == ["retrain_near"]
        assert [dag for dag, _ in far.runs] == ["retrain_far"]
        await world.pass_by(minutes=30, steps=3)
        assert {(t["airflow"], t["state"]) for t in await world.triggers()} == {
            ("near", "succeeded"),
            ("far", "succeeded"),
        }


async def test_a_login_may_be_a_token_or_a_file_that_holds_one(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    near, far = FakeAirflow(clock := ManualClock()), FakeAirflow(clock)
    near.add_dag("retrain_near")
    far.add_dag("retrain_far")
    (tmp_path / "token").write_text(far.mint())
    text = TWO.replace("{username: gateway, password: gateway}", f"{{token: {near.mint()}}}")
    text = text.replace("{username: guest, password: other}", f"{{token_file: {tmp_path / 'token'}}}")
    async with World(servers, database, text, clock=clock, airflow=near, others={"far.test": far}) as world:
        await world.push(world.alert(model="churn"), world.alert("Drift", model="churn"))
        await world.settle()
        assert (len(near.posts), len(far.posts)) == (1, 1)
        assert not near.calls("login")


async def test_an_airflow_that_is_away_holds_up_only_its_own(servers: TestServers, database: str) -> None:
    world, far = two_airflows(servers, database)
    async with world:
        far.down = True
        await world.push(world.alert(model="churn"), world.alert("Drift", model="churn"))
        await world.pass_by(minutes=5, steps=5)
        assert (len(world.airflow.posts), len(far.posts)) == (1, 0)
        far.down = False
        await world.pass_by(minutes=5, steps=5)
        assert (len(world.airflow.posts), len(far.posts)) == (1, 1)


async def test_max_parallel_is_counted_for_each_by_itself(servers: TestServers, database: str) -> None:
    world, far = two_airflows(servers, database)
    async with world:
        for model in "abc":
            await world.push(world.alert(model=model), world.alert("Drift", model=model))
        await world.settle()
        assert (len(world.airflow.posts), len(far.posts)) == (1, 3)
        await world.pass_by(hours=2, steps=12)
        assert (len(world.airflow.posts), world.airflow.most_open) == (3, 1)
