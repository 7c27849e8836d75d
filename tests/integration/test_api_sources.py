"""Whoever tells of it, the same alert comes to the same decision: Grafana, CloudEvents in each mode, a body that the policy
maps, and the native body."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.acceptance.world import ZERO, World
from tests.integration.api import CLOUDEVENTS, GRAFANA, NATIVE, cloud_event, opened, problem, webhook_alert, word
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAPPED = "/api/v1/webhooks/aws"
DOCUMENTED = Path(__file__).parents[1] / "fixtures" / "grafana"
POLICY = """
version: 1
airflow:
  - {name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity="critical"']
    group_by: [model]
    debounce: 10m
    cooldown: 24h
    dag: {id: retrain_model}
sources:
  - name: aws
    alerts: /Records
    alert_id: /detail/alarmName
    severity: /detail/level
    timestamp: /time
    status: /detail/state/value
    states: {ALARM: firing, OK: resolved}
    labels: {model: /detail/dimensions/EndpointName}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """One gateway for all of them; each test has a model of its own."""
    async with opened(servers, servers.fresh_database(template), policy=POLICY) as opened_world:
        yield opened_world


@dataclass(frozen=True)
class Said:
    """What a monitor has to say of one model."""

    model: str
    at: datetime
    began: datetime
    firing: bool = True
    name: str = "ModelAccuracyLow"
    severity: str = "critical"

    @property
    def status(self) -> str:
        return "firing" if self.firing else "resolved"


Request = tuple[str, dict[str, str], bytes]


def native(message: Said) -> Request:
    return (
        NATIVE,
        {},
        json.dumps(data_of(message) | {"alert_id": message.name, "timestamp": message.at.isoformat()}).encode(),
    )


def data_of(message: Said) -> dict[str, Any]:
    return {"severity": message.severity, "status": message.status, "labels": {"model": message.model}}


def grafana(message: Said) -> Request:
    body = json.loads((DOCUMENTED / "firing_single.json").read_bytes())
    body["alerts"][0] |= {
        "status": message.status,
        "labels": {"alertname": message.name, "severity": message.severity, "model": message.model},
        "startsAt": message.began.isoformat(),
        "endsAt": ZERO if message.firing else message.at.isoformat(),
        "fingerprint": f"{message.name}-{message.model}",
    }
    return GRAFANA, {"Content-Type": "application/json"}, json.dumps(body).encode()


def event_of(message: Said) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": word(),
        "source": "https://monitor.test/models",
        "type": "test.monitor.accuracy",
        "time": message.at.isoformat(),
    }


def structured(message: Said) -> Request:
    event = event_of(message) | {"data": data_of(message) | {"alert_id": message.name}}
    return CLOUDEVENTS, {"Content-Type": "application/cloudevents+json"}, json.dumps(event).encode()


def batch(message: Said) -> Request:
    event = event_of(message) | {"data": data_of(message) | {"alert_id": message.name}}
    return CLOUDEVENTS, {"Content-Type": "application/cloudevents-batch+json"}, json.dumps([event]).encode()


def binary(message: Said) -> Request:
    headers = {f"ce-{name}": value for name, value in event_of(message).items()} | {"Content-Type": "application/json"}
    return CLOUDEVENTS, headers, json.dumps(data_of(message) | {"alert_id": message.name}).encode()


def mapped(message: Said) -> Request:
    detail = {
        "alarmName": message.name,
        "level": message.severity,
        "state": {"value": "ALARM" if message.firing else "OK"},
        "dimensions": {"EndpointName": message.model},
    }
    body = {"Records": [{"time": message.at.isoformat(), "region": "eu-west-1", "detail": detail}]}
    return MAPPED, {"Content-Type": "application/json"}, json.dumps(body).encode()


SOURCES = [native, grafana, structured, batch, binary, mapped]


async def send(world: World, request: Request) -> httpx.Response:
    path, headers, body = request
    return await world.clients[0].post(path, content=body, headers=headers)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
async def test_the_same_story_comes_to_the_same_decisions_whoever_tells_it(
    world: World, source: Callable[[Said], Request]
) -> None:
    model, began, decided = word(), world.clock.now(), []
    story: list[tuple[int, dict[str, Any]]] = [
        (0, {"severity": "info"}),  # no route
        (0, {}),  # held
        (1, {}),  # told again
        (4, {"firing": False}),  # over before the debounce is
        (20, {"began": 20}),  # held again
        (31, {"began": 20}),  # after the debounce: its run is under way
        (60, {"began": 20}),  # in the cooldown
    ]
    for minute, change in story:
        await world.pass_by(minutes=(began + timedelta(minutes=minute) - world.clock.now()) / timedelta(minutes=1))
        change |= {"began": began + timedelta(minutes=change.get("began", 0))}
        answer = await send(world, source(Said(model, **({"at": world.clock.now()} | change))))
        assert answer.status_code == 202, answer.text
        [decision] = answer.json()["decisions"]
        decided.append((decision["route"], decision["group"], decision["action"], decision["reason"]))
    ours = ("accuracy", {"model": model})
    assert decided == [
        (None, {}, "ignore", "no_route"),
        (*ours, "hold", "debouncing"),
        (*ours, "suppress", "duplicate"),
        (*ours, "cancel", "resolved_while_held"),
        (*ours, "hold", "debouncing"),
        (*ours, "suppress", "duplicate"),
        (*ours, "suppress", "duplicate"),
    ]
    assert [t["state"] for t in await world.triggers(label=f"model={model}")] == ["succeeded", "cancelled"]


async def test_two_sources_that_tell_of_one_model_start_one_run(world: World) -> None:
    model, now = word(), world.clock.now()
    found = [(await send(world, source(Said(model, now, now)))).json()["decisions"][0] for source in SOURCES]
    assert found[0]["reason"] == "debouncing"
    assert {d["trigger_id"] for d in found} == {found[0]["trigger_id"]}


@pytest.mark.parametrize("name", ["firing_single", "mixed_firing_and_resolved", "resolved_without_values"])
async def test_a_documented_body_of_grafana_is_taken_whole(world: World, name: str) -> None:
    body = (DOCUMENTED / f"{name}.json").read_bytes()
    answer = await send(world, (GRAFANA, {"Content-Type": "application/json"}, body))
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["decisions"]) == len(json.loads(body)["alerts"])
    assert "quarantined" not in answer.json()


async def test_the_history_tells_who_said_it(world: World) -> None:
    model, now = word(), world.clock.now()
    for source in SOURCES:
        await send(world, source(Said(model, now, now, name=f"Nobody-{source.__name__}")))
    found = await world.alerts(label=f"model={model}")
    assert {a["source"] for a in found} == {"native", "grafana", "cloudevents", "aws"}
    [event] = [a for a in found if a["alert_id"] == "Nobody-binary"]
    assert event["labels"]["source"] == "https://monitor.test/models"


async def test_an_event_that_is_delivered_twice_is_counted_and_decided_once(world: World) -> None:
    message = Said(word(), world.clock.now(), world.clock.now())
    event = event_of(message) | {
        "data": data_of(message) | {"labels": {"model": message.model, "alertname": message.name}}
    }
    request = (CLOUDEVENTS, {"Content-Type": "application/cloudevents+json"}, json.dumps(event).encode())
    decisions = [(await send(world, request)).json()["decisions"][0]["reason"] for _ in range(3)]
    assert decisions == ["debouncing", "duplicate", "duplicate"]
    [alert] = await world.alerts(label=f"model={message.model}")
    assert (alert["alert_id"], alert["count"]) == (event["id"], 3)


async def test_an_empty_batch_of_events_is_taken(world: World) -> None:
    answer = await send(world, (CLOUDEVENTS, {"Content-Type": "application/cloudevents-batch+json"}, b"[]"))
    assert (answer.status_code, answer.json()) == (202, {"decisions": []})


async def test_one_bad_event_of_a_batch_stands_alone_in_quarantine(world: World) -> None:
    good = [cloud_event(alert_id=f"n-{word()}") for _ in range(5)]
    bad = cloud_event(alert_id="bad", status="acknowledged")
    world.clock.pass_by(timedelta(seconds=1))
    answer = (await world.post(CLOUDEVENTS, [*good[:2], bad, *good[2:]])).json()
    assert [d["alert_id"] for d in answer["decisions"]] == [e["data"]["alert_id"] for e in good]
    assert [(q["index"], q["id"]) for q in answer["quarantined"]] == [(2, "bad")]
    [newest] = (await world.get("/api/v1/quarantine", limit=1))["items"]
    assert (newest["source"], json.loads(newest["body"])) == ("cloudevents", bad)


async def test_one_bad_alert_of_grafana_stands_alone_in_quarantine(world: World) -> None:
    answer = await world.post(GRAFANA, {"alerts": [webhook_alert("Nobody"), {"status": "pending"}]})
    assert (answer.status_code, len(answer.json()["decisions"])) == (202, 1)
    assert answer.json()["quarantined"][0]["index"] == 1


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"Content-Type": "application/cloudevents+avro"}, b"\x00\x01", "only in the JSON format"),
        ({"ce-id": "1", "ce-source": "%FF"}, b"{}", "ce-source"),
        ({"ce-id": "1" * 10_000}, b'{"severity": "info"}', "none of the alerts"),
        ({"Content-Type": "application/cloudevents+json"}, b'{"specversion": "0.3"}', "none of the alerts"),
    ],
    ids=["another format", "a header that is not UTF-8", "a header too long", "an older version"],
)
async def test_a_request_that_is_no_event_is_a_problem_that_says_why(
    world: World, headers: dict[str, str], body: bytes, says: str
) -> None:
    answer = await send(world, (CLOUDEVENTS, headers, body))
    assert says.lower() in problem(answer, 422, "invalid")["detail"].lower()


@pytest.mark.parametrize(
    ("source", "name"),
    [(native, "native"), (grafana, "grafana"), (batch, "cloudevents"), (mapped, "aws")],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_source_moves_its_own_counter(world: World, source: Callable[[Said], Request], name: str) -> None:
    async def counted() -> float:
        lines = (await world.clients[0].get("/metrics")).text.splitlines()
        start = f'gateway_alerts_total{{source="{name}"}} '
        return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))

    before = await counted()
    await send(world, source(Said(word(), world.clock.now(), world.clock.now())))
    assert await counted() == before + 1


async def test_an_alert_of_a_mapped_body_that_lacks_a_part_is_quarantined_alone(world: World) -> None:
    model = word()
    _, headers, body = mapped(Said(model, world.clock.now(), world.clock.now()))
    [good] = json.loads(body)["Records"]
    answer = await send(world, (MAPPED, headers, json.dumps({"Records": [{"time": "now"}, good]}).encode()))
    assert answer.status_code == 202
    [decision] = answer.json()["decisions"]
    assert decision["group"] == {"model": model}
    [bad] = answer.json()["quarantined"]
    assert (bad["index"], bad["error"]) == (0, "alert_id: there is nothing at /detail/alarmName")
    kept = (await world.get("/api/v1/quarantine"))["items"]
    assert bad["error"] in [item["error"] for item in kept if item["source"] == "aws"]
    [alert] = await world.alerts(label=f"model={model}")
    assert alert["source"] == "aws"


async def test_a_source_that_the_policy_does_not_name_is_not_found(world: World) -> None:
    problem(await send(world, ("/api/v1/webhooks/gcp", {}, b"{}")), 404, "not_found")
