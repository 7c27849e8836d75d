"""Where a secret is set, only signed requests are taken; a forged, late or replayed one never becomes an alert."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from tests.acceptance.world import World
from tests.integration.api import (
    ALERTMANAGER,
    CLOUDEVENTS,
    GRAFANA,
    NATIVE,
    POLICY,
    cloud_event,
    native_alert,
    notification,
    opened,
    problem,
    token_of,
    webhook_alert,
    word,
)
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = b"0123456789abcdef01234567"
MAPPED = "/api/v1/webhooks/aws"
SOURCES = {GRAFANA: "grafana", NATIVE: "native", MAPPED: "aws"}
HEADER = "X-Grafana-Timestamp"
SECRETS: dict[str, Any] = {
    "grafana_secret": SecretStr("a secret of Grafana"),
    "grafana_timestamp_header": HEADER,
    "webhook_secret": SecretStr("whsec_" + base64.b64encode(KEY).decode()),
}
#: With a source that has a secret of its own, and one that has none.
MAPPING = (
    POLICY
    + f"""
sources:
  - {{name: aws, secret: whsec_{base64.b64encode(KEY[::-1]).decode()}, alert_id: /what, severity: critical, timestamp: /at,
     labels: {{model: /model}}}}
  - {{name: open, alert_id: /what, severity: critical, timestamp: /at}}
"""
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """One gateway with every secret, without tokens."""
    async with opened(
        servers, servers.fresh_database(template), policy=MAPPING, **SECRETS, redis_timeout=5.0
    ) as opened_world:
        yield opened_world


def body_of(path: str, model: str) -> bytes:
    body: Any = native_alert(labels={"model": model})
    if path == GRAFANA:
        body = notification(webhook_alert(model=model))
    elif path == MAPPED:
        body = {"what": "ModelAccuracyLow", "at": "2026-11-23T12:00:00Z", "model": model}
    return json.dumps(body).encode()


def signed(world: World, path: str, body: bytes, *, ago: timedelta = timedelta(0)) -> dict[str, str]:
    """The headers that a sender adds who signs at `ago` before now."""
    time = str(int((world.clock.now() - ago).timestamp()))
    if path == GRAFANA:
        made = hmac.new(b"a secret of Grafana", f"{time}:".encode() + body, hashlib.sha256).hexdigest()
        return {"X-Grafana-Alerting-Signature": made, HEADER: time}
    ident = f"msg_{word()}"
    digest = hmac.new(KEY[::-1] if path == MAPPED else KEY, f"{ident}.{time}.".encode() + body, hashlib.sha256).digest()
    value = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": ident, "webhook-timestamp": time, "webhook-signature": value}


async def send(world: World, path: str, body: bytes, headers: dict[str, str], *, to: int = 0) -> httpx.Response:
    return await world.clients[to].post(path, content=body, headers=headers)


each = pytest.mark.parametrize("path", SOURCES, ids=SOURCES.values())


@each
async def test_a_signed_request_is_taken_without_a_token(world: World, path: str) -> None:
    body = body_of(path, word())
    answer = await send(world, path, body, signed(world, path, body))
    assert (answer.status_code, answer.json()["decisions"][0]["action"]) == (202, "fire")


@each
async def test_a_signature_is_over_the_bytes_as_they_are_sent(world: World, path: str) -> None:
    body = body_of(path, word())
    packed = gzip.compress(body)
    encoded = {"Content-Encoding": "gzip"}
    problem(await send(world, path, packed, signed(world, path, body) | encoded), 401, "bad_signature")
    headers = signed(world, path, packed) | encoded
    answer = await send(world, path, packed, headers)
    assert (answer.status_code, answer.json()["decisions"][0]["action"]) == (202, "fire")
    problem(await send(world, path, packed, headers), 401, "bad_signature")


@each
async def test_what_is_not_signed_or_not_well_is_refused_counted_and_no_alert(world: World, path: str) -> None:
    model = word()
    body = body_of(path, model)
    other = signed(world, path, body + b" ")
    late, early = (signed(world, path, body, ago=timedelta(minutes=m)) for m in (6, -6))
    source = SOURCES[path]
    before = await refused(world, source)
    for headers, says in [
        ({}, "is missing"),
        (other, "does not fit this body"),
        (late, "more than five minutes"),
        (early, "more than five minutes"),
        ({"Authorization": "Bearer tg_anything"}, "is missing"),
    ]:
        answer = await send(world, path, body, headers)
        assert says in problem(answer, 401, "bad_signature")["detail"]
        assert answer.headers["www-authenticate"] == "HMAC-SHA256"
    assert await world.alerts(label=f"model={model}") == []
    assert await refused(world, source) == before + 5


async def refused(world: World, source: str) -> float:
    """Requests of the source that were refused for their signature."""
    lines = (await world.clients[0].get("/metrics")).text.splitlines()
    wanted = f'gateway_bodies_refused_total{{source="{source}",status="401"}} '
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


@each
async def test_a_signed_request_is_taken_once(world: World, path: str) -> None:
    model = word()
    body = body_of(path, model)
    headers = signed(world, path, body)
    assert (await send(world, path, body, headers)).status_code == 202
    world.clock.pass_by(timedelta(minutes=4))
    assert "used before" in problem(await send(world, path, body, headers), 401, "bad_signature")["detail"]
    [alert] = await world.alerts(label=f"model={model}")
    assert alert["count"] == 1
    assert (await send(world, path, body, signed(world, path, body))).status_code == 202  # Its sender tells it anew.


@each
async def test_a_signed_request_that_comes_sixteen_times_at_once_is_taken_once(world: World, path: str) -> None:
    model = word()
    body = body_of(path, model)
    headers = signed(world, path, body)
    answers = await asyncio.gather(*(send(world, path, body, headers) for _ in range(16)))
    assert sorted(answer.status_code for answer in answers) == [202] + [401] * 15
    [alert] = await world.alerts(label=f"model={model}")
    assert alert["count"] == 1


@each
async def test_a_signed_request_that_was_not_taken_may_come_again(world: World, path: str) -> None:
    """A sender that gets an error sends the same bytes with the same signature again."""
    body = b'{"half": '
    headers = signed(world, path, body)
    for _ in range(3):
        problem(await send(world, path, body, headers), 400, "bad_request")


async def test_a_replay_is_refused_by_every_replica(servers: TestServers, database: str) -> None:
    async with opened(servers, database, **SECRETS, replicas=2, redis_timeout=5.0) as two:
        body = body_of(NATIVE, word())
        headers = signed(two, NATIVE, body)
        assert (await send(two, NATIVE, body, headers, to=0)).status_code == 202
        problem(await send(two, NATIVE, body, headers, to=1), 401, "bad_signature")


@each
async def test_a_body_that_could_not_be_read_does_not_spend_its_signature(world: World, path: str) -> None:
    headers = signed(world, path, b"{}")
    for _ in range(2):
        problem(await send(world, path, b"{}", headers), 422, "invalid")


async def test_without_a_timestamp_header_grafana_may_repeat_a_body(servers: TestServers, database: str) -> None:
    async with opened(servers, database, grafana_secret=SECRETS["grafana_secret"]) as world:
        body = body_of(GRAFANA, word())
        made = hmac.new(b"a secret of Grafana", body, hashlib.sha256).hexdigest()
        answers = [await send(world, GRAFANA, body, {"X-Grafana-Alerting-Signature": made}) for _ in range(2)]
        assert [a.json()["decisions"][0]["action"] for a in answers] == ["fire", "suppress"]
        assert (await world.post(NATIVE, native_alert())).status_code == 202  # It has no secret here.


async def test_sources_without_a_secret_are_as_before(world: World) -> None:
    assert (await world.post(ALERTMANAGER, notification(webhook_alert("Nobody")))).status_code == 202
    assert (await world.post(CLOUDEVENTS, cloud_event())).status_code == 202
    assert (await send(world, MAPPED.replace("aws", "open"), body_of(MAPPED, word()), {})).status_code == 202


@each
async def test_a_signature_stands_for_a_token_but_a_token_that_is_sent_must_be_good(
    servers: TestServers, database: str, tmp_path: Path, path: str
) -> None:
    good, wrong = token_of(tmp_path, "ingest"), token_of(tmp_path, "read")
    async with opened(servers, database, policy=MAPPING, tokens_file=tmp_path / "tokens", **SECRETS) as world:
        for token, status in [({}, 202), (good, 202), (wrong, 403), ({"Authorization": "Bearer tg_x"}, 401)]:
            body = body_of(path, word())
            answer = await send(world, path, body, signed(world, path, body) | token)
            assert answer.status_code == status, answer.text
            problem(await send(world, path, body, token), 403 if status == 403 else 401, code_of(status, answer))
        for unsigned in (ALERTMANAGER, MAPPED.replace("aws", "open"), MAPPED.replace("aws", "none")):
            problem(await world.clients[0].post(unsigned, content=body), 401, "unauthorized")
        problem(await world.clients[0].get("/api/v1/alerts", headers=signed(world, path, body)), 401, "unauthorized")


def code_of(status: int, answer: httpx.Response) -> str:
    """What the same request says without its signature: the token is looked at first."""
    return "bad_signature" if status == 202 else str(answer.json()["code"])


async def test_without_redis_a_signed_request_is_taken_and_its_replay_starts_nothing(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, **SECRETS, redis_url="redis://127.0.0.1:1") as world:
        body = body_of(NATIVE, word())
        headers = signed(world, NATIVE, body)
        decisions = [(await send(world, NATIVE, body, headers)).json()["decisions"][0] for _ in range(2)]
        assert [d["action"] for d in decisions] == ["fire", "suppress"]


async def test_all_who_sign_share_one_rate_limit(servers: TestServers, database: str, tmp_path: Path) -> None:
    token = token_of(tmp_path, "ingest")
    more = SECRETS | {"tokens_file": tmp_path / "tokens", "rate_limit": 2, "redis_timeout": 5.0}
    async with opened(servers, database, **more) as world:
        bodies = [body_of(NATIVE, word()) for _ in range(4)]
        found = [(await send(world, NATIVE, b, signed(world, NATIVE, b))).status_code for b in bodies]
        assert found == [202, 202, 429, 429]
        assert (await send(world, NATIVE, bodies[2], signed(world, NATIVE, bodies[2]) | token)).status_code == 202
