"""A page of an ingress, or a file of our login that is gone, says nothing of Airflow: no deadline runs meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.faults import page, redirect
from tests.servers import TestServers
from tests.sizes import size

WAYS: dict[str, Callable[[FakeAirflow], None]] = {
    "a page": lambda airflow: airflow.disturb(page(), on=lambda _: True, times=None),
    "a page with 404": lambda airflow: airflow.disturb(page(404), on=lambda _: True, times=None),
    "a page with 403": lambda airflow: airflow.disturb(page(403), on=lambda _: True, times=None),
    "a page with 401": lambda airflow: airflow.disturb(page(401), on=lambda _: True, times=None),
    "a redirect": lambda airflow: airflow.disturb(redirect("http://sso.test/"), on=lambda _: True, times=None),
    "a page, but its health": lambda airflow: airflow.disturb(page(), on=lambda c: c.op != "health", times=None),
}


@pytest.mark.parametrize("way", size(["a page with 401", "a redirect", "a page, but its health"], list(WAYS)))
async def test_an_ingress_that_answers_pages_for_hours_kills_no_trigger(
    servers: TestServers, database: str, way: str
) -> None:
    async with World(servers, database, delivery_deadline=600.0) as world:
        world.airflow.add_dag("retrain_model")
        WAYS[way](world.airflow)
        await world.push(*(world.alert(model=f"m{n}") for n in range(3)))
        await world.pass_by(hours=6, steps=60)
        triggers = await world.triggers()
        assert {(t["state"], t["blocked"]) for t in triggers} == {("pending", "not_airflow")}
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_breaker_open{target="airflow:default"} 1.0' in metrics
        world.airflow.calm()
        await world.pass_by(minutes=5, steps=20)
        assert len(world.airflow.posts) == 3


@pytest.mark.parametrize(
    ("key", "code"), [("auth: {token_file: FILE}", "token_file"), ("ca_file: FILE", "ca_file")], ids=["token", "CA"]
)
async def test_a_file_of_our_login_that_is_gone_for_hours_kills_no_trigger(
    servers: TestServers, database: str, tmp_path: Path, key: str, code: str
) -> None:
    text = policy().replace(
        "auth: {username: gateway, password: gateway}", key.replace("FILE", f'"{tmp_path / "file"}"')
    )
    async with World(servers, database, text, delivery_deadline=600.0) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=6, steps=60)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", code)


async def test_a_page_for_one_dag_alone_is_given_up_after_the_deadline(servers: TestServers, database: str) -> None:
    text = policy().replace("{id: retrain_model}", '{id: "retrain_{{group.model}}"}')
    async with World(servers, database, text, delivery_deadline=600.0) as world:
        world.airflow.add_dag("retrain_bad")
        world.airflow.add_dag("retrain_well")
        world.airflow.disturb(page(), on=lambda call: "retrain_bad" in call.path, times=None)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=20, steps=60)
        assert (await world.trigger())["state"] == "dead"
        await world.push(world.alert(model="well"))
        await world.pass_by(seconds=4, steps=4)
        assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": "well"}]
