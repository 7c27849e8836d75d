"""What every route of the application must do, found from its document and its routes, so that no new one is forgotten."""

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import pytest_asyncio

from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.api import ALERTMANAGER, CLOUDEVENTS, NATIVE, POLICY, cloud_event, native_alert, opened, problem
from tests.integration.test_closed_routes import APP, ROUTES
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT: dict[str, Any] = APP.openapi()
LIMIT = 50_000
MORE = """
deadman:
  - {name: nightly, expect: heartbeat, every: 1d, grace: 1h, receivers: [ops]}
receivers:
  - {name: ops, webhook: {url: "http://ops.test/hook", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
sources:
  - name: azure
    alert_id: /data/rule
    severity: critical
    timestamp: /time
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    async with opened(servers, servers.fresh_database(template), policy=POLICY + MORE, max_body=LIMIT) as world:
        yield world


def filled(path: str) -> str:
    """The path with values that fit its parameters."""
    known = {"name": "nightly", "switch": "nightly", "signal": "start", "source": "azure"}
    if path.startswith("/api/v1/routes/"):
        known["name"] = "accuracy"
    ident = "01a20967-2119-717a-bc81-761cac4c96d5"
    return re.sub(r"{(\w+)(:\w+)?}", lambda found: known.get(found[1], ident), path)


def operations(method: str) -> list[tuple[str, dict[str, Any]]]:
    return [(path, item[method]) for path, item in DOCUMENT["paths"].items() if method in item]


GETS = sorted({path for method, path in ROUTES if method == "GET"})
BODIES = [
    (method, path)
    for method in ("post", "put", "patch", "delete")
    for path, shown in operations(method)
    if "requestBody" in shown
]
TIMES = [
    (path, parameter["name"])
    for path, shown in operations("get")
    for parameter in shown.get("parameters", [])
    if parameter["in"] == "query" and "date-time" in json.dumps(parameter["schema"])
]
IDS = [f"{method} {path}" for method, path in BODIES]
every_body = pytest.mark.parametrize(("method", "path"), BODIES, ids=IDS)


async def test_the_rules_below_are_tried_on_something() -> None:
    assert len(GETS) > 20
    assert len(BODIES) > 12
    assert len(TIMES) >= 5


@pytest.mark.parametrize("path", GETS)
async def test_head_is_get_without_its_body(world: World, path: str) -> None:
    client = world.clients[0]
    head, get = await client.head(filled(path)), await client.get(filled(path))
    assert (head.status_code, head.content) == (get.status_code, b"")
    shown, expected = dict(head.headers), dict(get.headers)
    assert int(shown.pop("content-length")) > 0 or get.content == b""
    length = int(expected.pop("content-length"))
    assert shown == expected
    if path not in ("/metrics", "/readyz"):  # Their bodies change from one request to the next.
        assert int(head.headers["content-length"]) == length == len(get.content)


async def test_a_ping_by_head_is_a_ping(world: World) -> None:
    client = world.clients[0]
    before = (await client.get("/api/v1/deadman/nightly")).json()
    assert (await client.head("/ping/nightly")).status_code == 200
    assert (await client.get("/api/v1/deadman/nightly")).json() != before


# Bodies.


async def send(world: World, method: str, path: str, content: bytes, **headers: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": "application/json"} | headers
    return await world.clients[0].request(method, filled(path), content=content, headers=kind)


def of(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


@every_body
async def test_a_compressed_body_is_answered_like_a_plain_one(world: World, method: str, path: str) -> None:
    wrong = b'{"nonsense": "' + b"x" * 3000 + b'"}'
    plain = await send(world, method, path, wrong)
    assert plain.status_code in (202, 400, 422), "one that reads its body"
    assert of(await send(world, method, path, gzip.compress(wrong), Content_Encoding="gzip")) == of(plain)


@every_body
async def test_json_of_any_depth_is_no_fault_of_the_server(world: World, method: str, path: str) -> None:
    """In the place of each member of a good body, and as the body itself."""
    content = DOCUMENT["paths"][path][method]["requestBody"]["content"]
    example: Any = next((kind["example"] for kind in content.values() if "example" in kind), {})
    example = example[0] if isinstance(example, list) else example
    for depth in (33, 700, 950, 9_000):
        for deep in ("[" * depth + "1" + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            bodies = [json.dumps(example | {member: "DEEP"}).replace('"DEEP"', deep) for member in ("conf", *example)]
            for body in (deep, *bodies):
                answer = await send(world, method, path, body.encode(), Idempotency_Key=str(hash(body)))
                assert answer.status_code < 500, (depth, body[:200], answer.text)


@every_body
async def test_a_body_that_cannot_be_inflated_is_refused(world: World, method: str, path: str) -> None:
    for content, encoding, status, code in (
        (b"{}", "br", 415, "unsupported_encoding"),
        (b"{}", "gzip", 400, "bad_request"),
        (gzip.compress(b"{}")[:-1], "gzip", 400, "bad_request"),
        (gzip.compress(bytes(LIMIT + 1)), "gzip", 413, "too_large"),
    ):
        answer = await send(world, method, path, content, Content_Encoding=encoding)
        problem(answer, status, code)
        assert str(status) in DOCUMENT["paths"][path][method]["responses"]


@pytest.mark.parametrize("path", ["/ping/{switch}", "/ping/{switch}/{signal}"])
async def test_the_body_of_a_ping_may_be_compressed(world: World, path: str) -> None:
    """The document shows no body here, because any bytes will do."""
    assert (await send(world, "POST", path, gzip.compress(b"went well"), Content_Encoding="gzip")).text == "OK"
    problem(await send(world, "POST", path, b"went well", Content_Encoding="gzip"), 400, "bad_request")
    problem(await send(world, "POST", path, b"went well", Content_Encoding="br"), 415, "unsupported_encoding")


async def test_compressed_alerts_are_taken(world: World) -> None:
    body = gzip.compress(json.dumps(native_alert(labels={"model": "packed"})).encode())
    answer = await send(world, "POST", NATIVE, body, Content_Encoding="gzip")
    assert (answer.status_code, answer.json()["decisions"][0]["action"]) == (202, "fire")
    [found] = (await world.clients[0].get("/api/v1/alerts", params={"label": "model=packed"})).json()["items"]
    assert found["count"] == 1


@pytest.mark.parametrize("source", ["alertmanager", "grafana", "cloudevents", "azure"])
async def test_a_webhook_whose_body_cannot_be_inflated_is_counted(world: World, source: str) -> None:
    async def counted() -> float:
        text = (await world.clients[0].get("/metrics")).text
        found = re.findall(rf'gateway_bodies_refused_total{{source="{source}",status="4[01][05]"}} (\S+)', text)
        return sum(map(float, found))

    before = await counted()
    for encoding in ("gzip", "br"):
        await send(world, "POST", f"/api/v1/webhooks/{source}", b"{}", Content_Encoding=encoding)
    assert await counted() == before + 2


# Times of a query.


@pytest.mark.parametrize(("path", "name"), TIMES)
@pytest.mark.parametrize(
    "time",
    ["2026-11-30T10:00:00+01:00", "2026-11-30T10:00:00.5+0100", "2026-11-30t10:00+14:00", "2026-11-30 10:00:00+05:30"],
)
async def test_a_plus_sign_in_a_time_is_a_plus_sign(world: World, path: str, name: str, time: str) -> None:
    client = world.clients[0]
    plain = await client.get(f"{filled(path)}?{name}={time.replace(' ', '%20')}")
    encoded = await client.get(f"{filled(path)}?{urlencode({name: time})}")
    assert (plain.status_code, plain.json()) == (encoded.status_code, encoded.json())
    assert plain.status_code in (200, 404), plain.text


async def test_a_plus_sign_does_not_move_the_time(world: World) -> None:
    """An hour east of Greenwich the clock shows an hour more."""
    await send(world, "POST", NATIVE, json.dumps(native_alert("Drift", labels={"model": "east"})).encode())
    seen: dict[str, int] = {}
    for time in ("2026-11-23T12:59:00", "2026-11-23T13:01:00"):
        assert NOON.isoformat().startswith("2026-11-23T12:00")
        asked = f"/api/v1/alerts?label=model=east&since={time}+01:00"
        seen[time] = len((await world.clients[0].get(asked)).json()["items"])
    assert seen == {"2026-11-23T12:59:00": 1, "2026-11-23T13:01:00": 0}


@pytest.mark.parametrize(("path", "name"), TIMES)
@pytest.mark.parametrize(
    "time",
    ["2026-11-30T10:00:00", "tomorrow", "2026-11-30T10:00:00 Europe/Madrid", "+01:00", "2026-13-01T00:00:00+01:00"],
)
async def test_a_time_that_is_none_is_named(world: World, path: str, name: str, time: str) -> None:
    answer = await world.clients[0].get(f"{filled(path)}?{name}={time.replace(' ', '%20')}")
    assert name in str(problem(answer, 422, "invalid")["errors"])


# Headers and queries that nobody means.

NASTY = [
    ("X-Forwarded-For", b"\xff, ::, [::1"),
    ("X-Forwarded-Proto", b"javascript"),
    ("X-Forwarded-Host", b"[::1"),
    ("X-Forwarded-Prefix", b"//evil"),
    ("Forwarded", b'for="[::1;host=]'),
    ("Content-Type", b""),
    ("Content-Type", b"\xff/\xfe; charset=\xff"),
    ("Content-Type", b"application/json; charset*=x''%ff"),
    ("Content-Type", b";;;,,,\"'"),
    ("Content-Length", b"many"),
    ("Content-Length", b"-1"),
    ("Accept", b"\xff;q=nan"),
    ("Accept-Encoding", b"\xff;q=2"),
    ("If-None-Match", b'W/"\xff'),
    ("If-Modified-Since", b"99 Foo 99999"),
    ("Range", b"bytes=5-1,,x"),
    ("If-Range", b"\xff"),
    ("Authorization", b"\xff\xfe"),
    ("Authorization", b"Bearer \xe2\x82\xac"),
    ("Authorization", b"Bearer"),
    ("Cookie", b"=\xff;;a"),
    ("Traceparent", b"00-zz-\xff-01"),
    ("Tracestate", b"\xff=,,"),
    ("Idempotency-Key", b"\xff"),
    ("Sec-Fetch-Site", b"\xff"),
    ("Origin", b"[::1"),
    ("Referer", b"http://[::1"),
    ("ce-specversion", b"\xff"),
    ("ce-time", b"%ff"),
    ("ce-id", b"%zz"),
    ("webhook-id", b"\xff"),
    ("WebHook-Request-Origin", b"\xff"),
    ("X-HTTP-Method-Override", b"DELETE"),
]  # fmt: skip
QUERIES = [
    "%",
    "%ff=%ff",
    "=&&=",
    "a=%00",
    "limit=%ff",
    "cursor=%ff",
    "since=%ff",
    "label=%ff=%00",
    "verbose=%ff",
    "key=%ff",
    "rid=%ff",
]


def every_route() -> Iterator[tuple[str, str]]:
    yield from ((method, path) for method, path in ROUTES if method != "HEAD")


def rounds() -> list[dict[str, bytes]]:
    """All of NASTY in few requests, each with one value of every name."""
    made: list[dict[str, bytes]] = []
    for name, value in NASTY:
        fits = next((headers for headers in made if name not in headers), None)
        if fits is None:
            made.append(fits := {})
        fits[name] = value
    return made


@pytest.mark.parametrize(("method", "path"), list(every_route()), ids=lambda value: value)
async def test_no_header_and_no_query_makes_a_fault_of_ours(world: World, method: str, path: str) -> None:
    client = world.clients[0]
    well = (await client.request(method, filled(path))).status_code  # A probe may answer 503.
    for headers in rounds():
        answer = await client.request(method, filled(path), headers=headers, content=b"{}")  # type: ignore[arg-type]
        assert answer.status_code < 500 or answer.status_code == well == 503, (headers, answer.text)
    for query in ("&".join(QUERIES), *QUERIES[:2]):
        url = httpx.URL(f"http://localhost{filled(path)}").copy_with(query=query.encode())
        answer = await client.request(method, url)
        assert answer.status_code < 500 or answer.status_code == well == 503, (query, answer.text)


@pytest.mark.parametrize(
    "value", ["%ff", "%00", "%ed%a0%80", "%2e%2e%2f", "%25", "%0d%0a", "a%2fb", "%e2%80%ae", "x" * 5000]
)
async def test_no_part_of_a_path_makes_a_fault_of_ours(world: World, value: str) -> None:
    for method, path in every_route():
        if "{" not in path:
            continue
        answer = await world.clients[0].request(method, re.sub(r"{\w+(:\w+)?}", value, path))
        assert answer.status_code < 500, (method, path, answer.text)


# The handshake of CloudEvents' web hooks.


@pytest.mark.parametrize("path", [CLOUDEVENTS, "/api/v1/webhooks/azure", ALERTMANAGER])
async def test_a_sender_that_asks_may_deliver(world: World, path: str) -> None:
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = await world.clients[0].options(path, headers=asked)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == "*"
    assert "POST" in answer.headers["allow"].split(", ")
    delivered = {"Content-Type": "application/cloudevents+json", "Origin": "eventgrid.azure.net"}
    if path == CLOUDEVENTS:
        taken = await world.clients[0].post(path, content=json.dumps(cloud_event()), headers=delivered)
        assert taken.status_code == 202


async def test_who_does_not_ask_gets_no_permission(world: World) -> None:
    answer = await world.clients[0].options(CLOUDEVENTS)
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (200, {"POST", "OPTIONS"})
    assert "webhook-allowed-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["", "a b", "http://a/", "\u00e9", "x" * 300])
async def test_an_origin_that_is_no_name_gets_no_permission(world: World, origin: str) -> None:
    asked = {"WebHook-Request-Origin": origin.encode("latin-1")}
    answer = await world.clients[0].options(CLOUDEVENTS, headers=asked)  # type: ignore[arg-type]
    problem(answer, 400, "bad_request")
    assert "webhook-allowed-origin" not in answer.headers


@pytest.mark.parametrize("source", ["nowhere", "native"])
async def test_no_permission_where_nothing_is_taken(world: World, source: str) -> None:
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    answer = await world.clients[0].options(f"/api/v1/webhooks/{source}", headers=asked)
    problem(answer, 404, "not_found")
    assert "webhook-allowed-origin" not in answer.headers
