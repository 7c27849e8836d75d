"""Every error answer is a problem in the form of RFC 9457."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.kit.errors import NotDurable, Problem
from app.web import error_answers
from app.web.problems import Kind, responses

LIMIT = 1000


class Alert(BaseModel):
    alert_id: str
    labels: dict[str, str] = {}
    count: int = Field(1, ge=1)


RAISED: dict[str, Exception] = {
    "conflict": Problem(
        409,
        "cooldown",
        "The group cools down.",
        headers={"X-Route": "accuracy"},
        until=datetime(2026, 11, 23, 12, tzinfo=UTC),
        scopes=frozenset({"b", "a"}),
        status_of="x",
        code_="y",
    ),
    "shadowing": Problem(409, "cooldown", "d", title="mine", instance="elsewhere"),
    "surrogate": Problem(422, "invalid", "The label \ud800 has no UTF-8 form."),
    "durable": NotDurable("Postgres did not take the alerts within 8 seconds. Send them again."),
    "silent": NotDurable(),
    "teapot": HTTPException(418, "I am a teapot", headers={"X-Pot": "tea"}),
    "unavailable": HTTPException(503),
    "structured": HTTPException(400, {"secret": "x"}),  # type: ignore[arg-type]
    "unchanged": HTTPException(304),
    "gone": ClientDisconnect(),
    "bug": RuntimeError("password=hunter2 at line 7"),
}


def make_app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    error_answers.install(app, max_body=LIMIT)

    @app.post("/alerts", responses=responses("not_durable"))
    async def alerts(alert: Alert, limit: int = 1) -> Alert:
        return alert

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.get("/raise/{what}", responses=responses(Kind("cooldown", 409, "Cooling.", {"until": "2026-11-23T12:00:00Z"})))
    async def fail(what: str) -> None:
        raise RAISED[what]

    @app.get("/fine")
    async def fine() -> str:
        return "fine"

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:trigger-gateway:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


async def test_a_problem_carries_its_members_and_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/raise/conflict")
    assert_problem(answer, 409, "cooldown")
    assert answer.headers["x-route"] == "accuracy"
    assert answer.json() == {
        "type": "urn:trigger-gateway:problem:cooldown",
        "title": "Cooldown",
        "status": 409,
        "detail": "The group cools down.",
        "instance": "/raise/conflict",
        "code": "cooldown",
        "until": "2026-11-23T12:00:00Z",
        "scopes": ["a", "b"],
        "status_of": "x",
        "code_": "y",
    }


async def test_a_member_never_replaces_what_the_rfc_fixes(client: httpx.AsyncClient) -> None:
    body = assert_problem(await client.get("/raise/shadowing"), 409, "cooldown")
    assert (body["title"], body["instance"]) == ("Cooldown", "/raise/shadowing")


async def test_a_detail_without_a_utf8_form_is_still_told(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/raise/surrogate"), 422, "invalid")


@pytest.mark.parametrize("what", ["durable", "silent"])
async def test_not_durable_asks_the_sender_to_come_again(client: httpx.AsyncClient, what: str) -> None:
    answer = await client.get(f"/raise/{what}")
    body = assert_problem(answer, 503, "not_durable")
    assert "Send them again" in body["detail"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "detail"),
    [
        pytest.param("GET", "/nowhere", 404, "not_found", "Nothing is here.", id="an unknown path"),
        pytest.param("PUT", "/fine", 405, "method_not_allowed", "This path does not take this method.", id="a method"),
        pytest.param("GET", "/raise/teapot", 418, "http_418", "I am a teapot", id="any other status"),
        pytest.param("GET", "/raise/unavailable", 503, "unavailable", "Service Unavailable", id="503 without a word"),
        pytest.param("GET", "/raise/structured", 400, "bad_request", "Bad Request", id="a detail that is no text"),
        pytest.param("GET", "/raise/gone", 400, "bad_request", "The sender closed", id="a sender that went away"),
    ],
)
async def test_what_the_framework_raises_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str, detail: str
) -> None:
    body = assert_problem(await client.request(method, path), status, code)
    assert body["detail"].startswith(detail)
    assert body["instance"] == path


async def test_headers_of_the_frameworks_errors_stay(client: httpx.AsyncClient) -> None:
    assert (await client.put("/fine")).headers["allow"] == "GET, HEAD, OPTIONS"
    assert (await client.get("/raise/teapot")).headers["x-pot"] == "tea"


async def test_a_304_has_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.get("/raise/unchanged")
    assert (answer.status_code, answer.content) == (304, b"")


async def test_a_strange_path_is_escaped_in_the_instance(client: httpx.AsyncClient) -> None:
    body = assert_problem(await client.get("/a%20b%0a%ff<x>"), 404, "not_found")
    assert body["instance"] == "/a%20b%0A%EF%BF%BD%3Cx%3E"


async def test_a_fault_of_ours_tells_nothing_and_is_logged_under_its_id(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/raise/bug")
    body = assert_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["error_id"] == body["error_id"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


@pytest.mark.parametrize(
    ("content", "status", "code", "errors"),
    [
        pytest.param(b"{}", 422, "invalid", [("body", "#/alert_id", "Field required")], id="a missing field"),
        pytest.param(b"", 422, "invalid", [("body", "#", "Field required")], id="no body"),
        pytest.param(
            b'{"alert_id": 7, "count": 0}',
            422,
            "invalid",
            [
                ("body", "#/alert_id", "Input should be a valid string"),
                ("body", "#/count", "Input should be greater than or equal to 1"),
            ],
            id="two errors",
        ),
        pytest.param(
            b'{"alert_id": "a", "labels": {"a/b~c": 1}}',
            422,
            "invalid",
            [("body", "#/labels/a~1b~0c", "Input should be a valid string")],
            id="a label that needs escapes",
        ),
        pytest.param(
            b'{"alert_id": "a", "labels": {"\\ud800": 1}}',
            422,
            "invalid",
            [("body", "#/labels/\ufffd\ufffd\ufffd", "Input should be a valid string")],
            id="a lone surrogate",
        ),
        pytest.param(b"{nope", 400, "bad_request", None, id="not JSON"),
        pytest.param(b'{"alert_id": "\xff"}', 400, "bad_request", None, id="not UTF-8"),
        pytest.param(b"[" * (LIMIT - 1), 400, "bad_request", None, id="nested and cut off"),
    ],
)
async def test_a_bad_body_is_told_where_it_is_bad(
    client: httpx.AsyncClient, content: bytes, status: int, code: str, errors: list[tuple[str, str, str]] | None
) -> None:
    answer = await client.post("/alerts", content=content, headers={"Content-Type": "application/json"})
    body = assert_problem(answer, status, code)
    shown = [(error["in"], error["pointer"], error["message"]) for error in body.get("errors", [])]
    assert shown == (errors or [])


async def test_a_bad_parameter_is_told_as_such(client: httpx.AsyncClient) -> None:
    answer = await client.post("/alerts?limit=many", json={"alert_id": "a"})
    body = assert_problem(answer, 422, "invalid")
    assert body["detail"] == "The request has 1 error."
    assert body["errors"][0]["in"] == "query"
    assert body["errors"][0]["pointer"] == "#/limit"


async def test_what_was_sent_is_not_echoed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/alerts", json={"alert_id": {"password": "hunter2"}})
    assert_problem(answer, 422, "invalid")
    assert "hunter2" not in answer.text


async def test_ten_thousand_errors_are_told_by_their_first() -> None:
    app = make_app()
    app.user_middleware.clear()  # This body is over the limit.
    labels = {"x" * 5000 if n == 0 else str(n): n for n in range(10_000)}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.post("/alerts", json={"alert_id": "a", "labels": labels})
    body = assert_problem(answer, 422, "invalid")
    assert len(body["errors"]) == 100
    assert body["detail"] == "The request has 10000 errors."
    assert len(body["errors"][0]["pointer"]) == 500


# ---- the limit of a body


async def chunks(total: int, size: int = 300) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


@pytest.mark.parametrize("path", ["/alerts", "/raw", "/nowhere"])
async def test_a_declared_body_over_the_limit_is_refused_unread(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b"x" * (LIMIT + 1), headers={"Content-Type": "application/json"})
    body = assert_problem(answer, 413, "too_large")
    assert body["limit"] == LIMIT
    assert body["detail"] == f"The body is over {LIMIT} bytes, the limit of GATEWAY_MAX_BODY."


@pytest.mark.parametrize("path", ["/alerts", "/raw"])
async def test_a_chunked_body_over_the_limit_is_refused_when_it_passes_it(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=chunks(LIMIT + 1), headers={"Content-Type": "application/json"})
    assert assert_problem(answer, 413, "too_large")["limit"] == LIMIT


async def test_an_endless_body_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 100 * LIMIT:
            read += LIMIT
            yield b"x" * LIMIT

    assert_problem(await client.post("/raw", content=endless()), 413, "too_large")
    assert read <= 2 * LIMIT


@pytest.mark.parametrize("content", [b"x" * LIMIT, chunks(LIMIT)], ids=["declared", "chunked"])
async def test_a_body_of_just_the_limit_is_read(client: httpx.AsyncClient, content: Any) -> None:
    answer = await client.post("/raw", content=content)
    assert (answer.status_code, answer.json()) == (200, LIMIT)


@pytest.mark.parametrize("declared", ["9" * 5000, "99999999999999999999999"], ids=["absurd", "large"])
async def test_a_declared_length_beyond_any_number_is_refused(client: httpx.AsyncClient, declared: str) -> None:
    answer = await client.post("/raw", content=b"x", headers={"Content-Length": declared})
    assert_problem(answer, 413, "too_large")
