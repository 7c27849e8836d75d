"""Every route that the application has, found from itself: closed without a token, with an expired one, and to wrong scopes.

Nothing here lists the routes, so a new one cannot be forgotten: what is not in OPEN must be closed.
"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from app.bootstrap.settings import read_settings
from app.web.main import create_app
from app.web.tokens import SCOPES, create_token
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.api import opened, problem, token_of
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Open to anybody: the code and the state, never the details; the login. So is OPTIONS, which only names methods.
OPEN = re.compile(r"/|/livez|/readyz|/health/\w+|/ui/(login|login/kept|style\.css|icon\.svg)")
APP: FastAPI = create_app(read_settings(), None)  # type: ignore[arg-type]  # Its lifespan is not entered.


def routes_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """(method, path) of everything that can be asked for, also what the document does not show."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner.routes)
        else:
            assert isinstance(route, Route), (
                f"{route!r} is neither a route nor a router: teach this test to look into it"
            )
            yield from ((method, route.path) for method in route.methods or ())


ROUTES = sorted(set(routes_of(APP.routes)))
CLOSED = [(method, path) for method, path in ROUTES if not OPEN.fullmatch(path) and method != "OPTIONS"]
IDS = [f"{method} {path}" for method, path in CLOSED]


def scope_of(method: str, path: str) -> str:
    """The scope that the document tells. What it does not show is for readers: the documentation and the pages, but not
    those that act."""
    if path.startswith("/ui/actions/"):
        return "trigger"
    item: dict[str, Any] = APP.openapi()["paths"].get(re.sub(r":\w+}", "}", path), {})
    operation = item.get(method.lower()) or (item.get("get") if method == "HEAD" else None)
    return str(operation["security"][0]["bearer"][0]) if operation else "read"


@dataclass(frozen=True)
class Guarded:
    """A gateway with tokens: one of each scope, and one that was for everything and is over."""

    world: World
    tokens: dict[str, dict[str, str]]
    expired: dict[str, str]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guarded(
    servers: TestServers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = {scope: token_of(folder, scope) for scope in SCOPES}
    over = create_token(folder / "tokens", ["admin"], "over", NOON - timedelta(days=2), NOON - timedelta(days=1))
    more: dict[str, Any] = {"tokens_file": folder / "tokens", "rate_limit": 0}
    async with opened(servers, servers.fresh_database(template), **more) as world:
        yield Guarded(world, tokens, {"Authorization": f"Bearer {over}"})


async def ask(guarded: Guarded, method: str, path: str, headers: dict[str, str]) -> Any:
    filled = re.sub(r"{\w+(:\w+)?}", "01a20967-2119-717a-bc81-761cac4c96d5", path)
    return await guarded.world.clients[0].request(method, filled, headers=headers)


async def test_the_application_has_the_routes_of_its_document_and_more() -> None:
    documented = {(m.upper(), path) for path, item in APP.openapi()["paths"].items() for m in item}
    plain = {(method, re.sub(r":\w+}", "}", path)) for method, path in ROUTES}
    assert documented <= plain
    assert {path for _, path in plain - documented} >= {"/docs", "/openapi.json"}


@pytest.mark.parametrize(("method", "path"), CLOSED, ids=IDS)
async def test_a_route_opens_to_a_living_token_of_its_scope_alone(guarded: Guarded, method: str, path: str) -> None:
    unknown = {"Authorization": "Bearer tg_" + "x" * 43}
    for headers in ({}, unknown, guarded.expired):
        answer = await ask(guarded, method, path, headers)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        if method != "HEAD":
            detail = problem(answer, 401, "unauthorized")["detail"]
            assert ("expired" in detail) == (headers is guarded.expired), detail
    opens = []
    for scope, token in guarded.tokens.items():
        answer = await ask(guarded, method, path, token)
        assert answer.status_code != 401, scope
        if answer.status_code != 403:
            opens.append(scope)
    assert sorted(opens) == sorted({scope_of(method, path), "admin"})


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("a byte of the body was read")
    yield b""


@pytest.mark.parametrize(("method", "path"), [each for each in CLOSED if each[0] not in ("GET", "HEAD")])
async def test_the_token_is_judged_before_a_byte_of_the_body_is_read(guarded: Guarded, method: str, path: str) -> None:
    filled = re.sub(r"{\w+(:\w+)?}", "01a20967-2119-717a-bc81-761cac4c96d5", path)
    for more in ({}, guarded.expired):
        headers = {"Content-Type": "application/json", **more}
        answer = await guarded.world.clients[0].request(method, filled, content=unread(), headers=headers)
        assert answer.status_code == 401, answer.text
