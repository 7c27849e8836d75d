"""Labels that make an id which no server can have: it is refused alone, and no target counts as away."""

import httpx
import pytest

from app.kit.errors import Rejected, Unreachable
from app.kit.http import open_http
from tests.acceptance.world import World, policy
from tests.fakes.faults import answer
from tests.servers import TestServers

TWO_LABELS = policy(group_by="[model, pod]").replace(
    "{id: retrain_model}", '{id: "{{group.model}}' + 16 * "{{group.pod}}" + '"}'
)
LONG = {
    "65,000 characters": ("a", "b" * 4070),
    "251 characters": ("a" * 234, "b"),
    "what no address can have": ("a\x01", "b"),
    "another alphabet at length": ("a", "é" * 4070),
}


@pytest.mark.parametrize("labels", LONG.values(), ids=LONG)
async def test_a_dag_id_that_no_dag_can_have_is_dead_at_once_and_named_and_others_start(
    servers: TestServers, database: str, labels: tuple[str, str]
) -> None:
    async with World(servers, database, TWO_LABELS) as world:
        world.airflow.add_dag("well")
        await world.push(*(world.alert(model=f"{n}{labels[0]}", pod=labels[1]) for n in range(9)))
        await world.settle()
        assert world.airflow.seen == []
        triggers = await world.triggers()
        assert {(trigger["state"], trigger["outcome"]) for trigger in triggers} == {("dead", "dead")}
        assert all(trigger["detail"].startswith("a DAG's id has 250 letters") for trigger in triggers)
        assert all(len(trigger["detail"]) < 700 for trigger in triggers)
        await world.push(world.alert(model="well", pod=""))
        await world.pass_by(seconds=4, steps=4)
        assert [post["conf"]["gateway"]["group"]["model"] for post in world.airflow.posts] == ["well"]
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_breaker_open{target="airflow:default"} 1.0' not in metrics


@pytest.mark.parametrize("status", [413, 414, 431])
async def test_a_run_that_is_too_large_for_a_proxy_is_dead_at_once(
    servers: TestServers, database: str, status: int
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(answer(status, "<html>", headers={"content-type": "text/html"}), on="trigger", times=None)
        await world.push(world.alert(model="churn"))
        await world.pass_by(seconds=10, steps=2)
        assert (await world.trigger())["state"] == "dead"


ADDRESSES = {
    "a long path": "http://mlflow.test/" + "a" * 70_000,
    "a long query": "http://mlflow.test/get?run_id=" + "a" * 70_000,
    "a control character": "http://mlflow.test/a\x01",
}


@pytest.mark.parametrize("url", ADDRESSES.values(), ids=ADDRESSES)
async def test_an_address_that_cannot_be_sent_is_the_fault_of_the_request(url: str) -> None:
    async with open_http(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        with pytest.raises(Rejected) as raised:
            await http.request("GET", url)
        assert raised.value.code == "unsendable"
        with pytest.raises(Unreachable):
            await http.request("GET", "http://[::1/x")
