"""Which caller may use which route, and which address may be served."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, get_args

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from app.kit.errors import UsageError
from app.web import error_answers
from app.web.security import (
    ANONYMOUS,
    SCOPES,
    Caller,
    Scope,
    Tokens,
    create_token,
    identify,
    is_loopback,
    refuse_no_tokens,
    refuse_open_bind,
    require,
)
from app.web.tokens import INGEST_ENDS, METADATA_BEGAN

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def load(path: Path) -> Tokens:
    return Tokens(path, FixedClock(), loopback=True)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("gateway.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_only_loopback_may_be_bound_without_tokens(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    refuse_open_bind(host, tokens_exist=True)
    if loopback:
        refuse_open_bind(host, tokens_exist=False)
    else:
        with pytest.raises(UsageError, match="trigger-gateway token create"):
            refuse_open_bind(host, tokens_exist=False)


def test_a_tokens_file_that_a_setting_names_holds_a_token(path: Path) -> None:
    refuse_no_tokens(None)
    for content, says in ((None, "there is no such file"), ("", "it holds no token"), ("{bad\n", "not a token")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageError, match=says) as raised:
            refuse_no_tokens(path)
        assert "trigger-gateway token create" in str(raised.value)
    create_token(path, ["read"], "a", NOW)
    refuse_no_tokens(path)


def make_app(tokens: Tokens) -> FastAPI:
    app = FastAPI()
    app.state.services = SimpleNamespace(tokens=tokens)
    error_answers.install(app)

    @app.get("/trigger")
    async def triggers(caller: Annotated[Caller, Depends(require("trigger"))]) -> str:
        return caller.name

    @app.post("/trigger")
    async def trigger(caller: Annotated[Caller, Depends(require("trigger"))]) -> str:
        return caller.name

    @app.get("/ping")
    async def ping(caller: Annotated[Caller, Depends(require("ping", key_parameter=True))]) -> str:
        return caller.name

    @app.post("/metadata")
    async def metadata(caller: Annotated[Caller, Depends(require("metadata"))]) -> str:
        return caller.name

    @app.get("/health")
    async def health(request: Request) -> str:
        caller = await identify(request)
        return caller.name if caller else "somebody"

    return app


def client_of(tokens: Tokens) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(make_app(tokens)), base_url="http://localhost")


@pytest.fixture
async def open_client(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(load(path)) as client:
        yield client


@pytest.fixture
def made(path: Path) -> dict[str, str]:
    """The header of a token of each scope, of the same name."""
    return {scope: "Bearer " + create_token(path, [scope], scope, NOW) for scope in SCOPES}


@pytest.fixture
async def client(made: dict[str, str], path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(load(path)) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "192.168.0.7:8090", "127.0.0.1.evil.example"])
async def test_without_tokens_a_name_that_was_made_to_lead_here_is_refused(
    open_client: httpx.AsyncClient, host: str
) -> None:
    for method in ("GET", "POST"):
        answer = await open_client.request(method, "/trigger", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")


@pytest.mark.parametrize("host", ["localhost:8090", "127.0.0.1", "[::1]:8090", "LOCALHOST"])
async def test_without_tokens_the_names_of_this_machine_are_open(open_client: httpx.AsyncClient, host: str) -> None:
    assert (await open_client.get("/trigger", headers={"Host": host})).status_code == 200


async def test_with_tokens_any_name_leads_here(client: httpx.AsyncClient, made: dict[str, str]) -> None:
    headers = {"Host": "gateway.example", "Authorization": made["trigger"]}
    assert (await client.get("/trigger", headers=headers)).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_opens_its_own_routes_and_admin_opens_all(
    client: httpx.AsyncClient, made: dict[str, str], scope: str
) -> None:
    answer = await client.get("/trigger", headers={"Authorization": made[scope]})
    if scope in ("trigger", "admin"):
        assert (answer.status_code, answer.json()) == (200, scope)
    else:
        assert answer.status_code == 403
        body = answer.json()
        assert (body["code"], body["scope"]) == ("forbidden", "trigger")
        assert body["detail"] == f"The token {scope} lacks the scope trigger; it has {scope}."
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="trigger"'


@pytest.mark.parametrize(
    ("header", "challenge", "says"),
    [
        pytest.param(None, "Bearer", "No token: send", id="no token"),
        pytest.param("Bearer tg_x", 'Bearer error="invalid_token"', "Unknown token: send", id="an unknown token"),
        pytest.param("Basic Zm9vOmJhcg==", 'Bearer error="invalid_token"', "Unknown token", id="another scheme"),
    ],
)
async def test_without_a_known_token_the_answer_is_401_and_says_how(
    client: httpx.AsyncClient, header: str | None, challenge: str, says: str
) -> None:
    answer = await client.get("/trigger", headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == challenge
    assert answer.json()["code"] == "unauthorized"
    assert answer.json()["detail"].startswith(says)


async def test_an_expired_token_is_told_when_it_expired(path: Path) -> None:
    made = NOW - timedelta(days=1)
    text = create_token(path, ["trigger"], "old", made, made + timedelta(seconds=1))
    async with client_of(load(path)) as client:
        answer = await client.get("/trigger", headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The token old expired at 2026-11-22T12:00:01Z."


async def test_a_key_parameter_counts_only_where_it_is_meant_to(
    client: httpx.AsyncClient, made: dict[str, str]
) -> None:
    key = made["ping"].removeprefix("Bearer ")
    assert (await client.get("/ping", params={"key": key})).json() == "ping"
    assert (await client.get("/ping", params={"key": "tg_wrong"})).status_code == 401
    assert (await client.get("/ping", params={"key": ""})).status_code == 401
    trigger_key = made["trigger"].removeprefix("Bearer ")
    assert (await client.get("/trigger", params={"key": trigger_key})).status_code == 401


async def test_open_means_everybody_is_anonymous_and_may_do_all(open_client: httpx.AsyncClient) -> None:
    assert (await open_client.get("/trigger")).json() == "anonymous"
    assert (await open_client.get("/trigger", headers={"Authorization": "Bearer tg_stale"})).json() == "anonymous"
    assert (await open_client.get("/health")).json() == "anonymous"
    assert all(ANONYMOUS.can(scope) for scope in get_args(Scope))


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        pytest.param("POST", None, 200, id="a program writes"),
        pytest.param("POST", "same-origin", 200, id="our own page writes"),
        pytest.param("POST", "none", 200, id="the person writes"),
        pytest.param("POST", "cross-site", 403, id="another site's page writes"),
        pytest.param("POST", "same-site", 403, id="a page on another port writes"),
        pytest.param("GET", "cross-site", 200, id="another site links here"),
    ],
)
async def test_an_open_gateway_is_not_written_by_pages_of_other_sites(
    open_client: httpx.AsyncClient, method: str, site: str | None, status: int
) -> None:
    answer = await open_client.request(method, "/trigger", headers={"Sec-Fetch-Site": site} if site else {})
    assert answer.status_code == status


FORWARDED = [
    ("Forwarded", "for=10.0.0.7"),
    ("X-Forwarded-For", "10.0.0.7"),
    ("x-forwarded-proto", "https"),
    ("X-Forwarded-Anything", ""),
    ("X-Real-IP", "127.0.0.1"),
    ("Via", "1.1 proxy"),
    ("CF-Connecting-IP", "10.0.0.7"),
]


@pytest.mark.parametrize(("name", "value"), FORWARDED)
async def test_an_open_gateway_takes_nothing_that_a_proxy_passes_on(
    open_client: httpx.AsyncClient, name: str, value: str
) -> None:
    for method in ("GET", "POST"):
        answer = await open_client.request(method, "/trigger", headers={name: value})
        assert (answer.status_code, answer.json()["code"]) == (403, "forwarded")
    assert (await open_client.get("/health", headers={name: value})).json() == "somebody"


async def test_with_tokens_a_proxy_may_pass_on(client: httpx.AsyncClient, made: dict[str, str]) -> None:
    headers = dict(FORWARDED) | {"Origin": "http://evil.example", "Authorization": made["trigger"]}
    assert (await client.post("/trigger", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("HTTP://LOCALHOST", 200),
        ("eventgrid.azure.net", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 403),
        ("https://localhost", 403),
        ("http://127.0.0.1", 403),
        ("http://localhost.evil.example", 403),
        ("file://", 403),
        ("http://[::1", 403),
    ],
)
async def test_an_open_gateway_answers_no_page_of_another_origin(
    open_client: httpx.AsyncClient, origin: str, status: int
) -> None:
    for method in ("GET", "POST"):
        answer = await open_client.request(method, "/trigger", headers={"Origin": origin})
        assert answer.status_code == status
        assert status == 200 or answer.json()["code"] == "cross_site"
    both = [("Origin", "http://localhost"), ("Origin", origin)]
    assert (await open_client.get("/trigger", headers=both)).status_code == status


@pytest.mark.parametrize(("now", "status"), [(NOW, 200), (INGEST_ENDS, 403)], ids=["for a while", "the while is over"])
async def test_an_older_token_of_ingest_reports_metadata(path: Path, now: datetime, status: int) -> None:
    text = create_token(path, ["ingest"], "old", METADATA_BEGAN - timedelta(days=1))
    tokens = Tokens(path, SimpleNamespace(now=lambda: now), loopback=True)
    async with client_of(tokens) as client:
        headers = {"Authorization": f"Bearer {text}"}
        assert (await client.post("/metadata", headers=headers)).status_code == status
        assert (await client.get("/trigger", headers=headers)).status_code == 403


async def test_a_picture_of_another_site_is_no_ping(open_client: httpx.AsyncClient) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("none", 200), ("same-origin", 200)):
        assert (await open_client.get("/ping", headers={"Sec-Fetch-Site": site})).status_code == status


async def test_a_route_open_to_anybody_can_tell_who_calls(client: httpx.AsyncClient, made: dict[str, str]) -> None:
    assert (await client.get("/health")).json() == "somebody"
    assert (await client.get("/health", headers={"Authorization": "Bearer tg_x"})).json() == "somebody"
    assert (await client.get("/health", headers={"Authorization": made["read"]})).json() == "read"


def test_the_document_shows_the_scheme_and_the_scope(path: Path) -> None:
    document = make_app(load(path)).openapi()
    assert document["components"]["securitySchemes"]["bearer"]["type"] == "http"
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["paths"]["/trigger"]["get"]["security"] == [{"bearer": ["trigger"]}]
    assert {"401", "403"} <= set(document["paths"]["/trigger"]["get"]["responses"])
    assert "security" not in document["paths"]["/health"]["get"]
