"""Every operation of the OpenAPI document, and what it does not show, with every scope, every state of a token and every
trick with a path. Nothing here lists the operations, so a new one cannot be forgotten."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.kit.clock import SystemClock
from app.web.tokens import METADATA_BEGAN, SCOPES, create_token
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.api import opened
from tests.integration.test_closed_routes import APP, CLOSED, IDS, OPEN, scope_of
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT: dict[str, Any] = APP.openapi()
IDENT = "01a20967-2119-717a-bc81-761cac4c96d5"
every_operation = pytest.mark.parametrize(("method", "path"), CLOSED, ids=IDS)

#: What a path becomes. The decoded path may be that of the route itself, or of none.
TRICKS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "a slash at the end": lambda path: f"{path}/",
    "two slashes before it": lambda path: f"/{path}",
    "two slashes in it": lambda path: f"/{path[1:].replace('/', '//')}",
    "a way up": lambda path: f"/livez/..{path}",
    "an encoded way up": lambda path: f"/livez/%2e%2e{path}",
    "an encoded slash": lambda path: f"/{path[1:].replace('/', '%2f')}",
    "an encoded letter": lambda path: f"/%{ord(path[1]):02x}{path[2:]}",
    "encoded twice": lambda path: f"/%25{ord(path[1]):02x}{path[2:]}",
    "a dot": lambda path: f"/.{path}",
    "capitals": lambda path: path.upper(),
    "a parameter of the path": lambda path: f"{path};/livez",
    "a NUL": lambda path: f"{path}%00",
    "a blank": lambda path: f"{path}%20",
    "backslashes": lambda path: f"/{path[1:].replace('/', '%5c')}",
    "a suffix": lambda path: f"{path}.json",
}


@dataclass(frozen=True)
class Guarded:
    """A gateway with tokens, by what is to be known of them, as headers."""

    world: World
    scoped: dict[str, dict[str, str]]  # each scope alone, and `all but` it
    states: dict[str, dict[str, str]]  # none of them lets in
    old_ingest: dict[str, str]

    async def ask(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        filled = re.sub(r"{\w+(:\w+)?}", IDENT, path)
        url = httpx.URL("http://localhost").copy_with(raw_path=filled.encode())  # Not normalised.
        return await self.world.clients[0].request(method, url, headers=headers)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guarded(
    servers: TestServers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    file: Path = tmp_path_factory.mktemp("tokens") / "tokens"
    now = SystemClock().now()

    def make(name: str, *scopes: str, **more: Any) -> str:
        return create_token(file, scopes, name, **{"now": now} | more)

    scoped = {scope: bearer(make(scope, scope)) for scope in SCOPES}
    for scope in SCOPES:
        others = [each for each in SCOPES if each not in (scope, "admin")]
        scoped[f"all but {scope}"] = bearer(make(f"not-{scope}", *others))
    good, cut = make("good", "admin"), make("spoilt", "admin")
    expired = make("expired", "admin", now=NOON - timedelta(days=2), expires_at=NOON - timedelta(days=1))
    revoked = make("revoked", "admin")
    old = make("old", "ingest", now=METADATA_BEGAN - timedelta(days=1))
    lines = [line for line in file.read_text().splitlines() if '"revoked"' not in line]  # noqa: ASYNC240 (a small file)
    spoilt = [line.replace('"admin"', '"root"') if '"spoilt"' in line else line for line in lines]
    file.write_text("\n".join(spoilt) + "\n")  # noqa: ASYNC240
    states: dict[str, dict[str, str]] = {
        "none": {},
        "an empty one": bearer(""),
        "unknown": bearer("tg_" + "x" * 43),
        "expired": bearer(expired),
        "revoked": bearer(revoked),
        "of a bad line": bearer(cut),
        "one character short": bearer(good[:-1]),
        "in capitals": bearer(good.upper()),
        "its hash": bearer(re.findall(r'"sha256": "(\w+)"', "\n".join(lines))[0]),
        "two of them": {"Authorization": f"Bearer {good}, Bearer {good}"},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no scheme": {"Authorization": good},
        "in a cookie": {"Cookie": f"Authorization=Bearer {good}; token={good}"},
        "in another header": {"X-Authorization": f"Bearer {good}", "Proxy-Authorization": f"Bearer {good}"},
        "by another path": {"X-Original-URL": "/livez", "X-Rewrite-URL": "/livez", "X-Forwarded-Prefix": "/livez"},
        "by another method": {"X-HTTP-Method-Override": "OPTIONS", "X-Forwarded-For": "127.0.0.1"},
    }
    async with opened(servers, servers.fresh_database(template), tokens_file=file, rate_limit=0) as world:
        assert (await world.clients[0].get("/api/v1/alerts", headers=bearer(good))).status_code == 200
        yield Guarded(world, scoped, states, bearer(old))


async def test_every_operation_of_the_document_names_one_scope_or_is_open() -> None:
    named = {
        (method, path): operation.get("security")
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    }
    assert len(named) > 40
    for (method, path), security in named.items():
        if OPEN.fullmatch(path):
            assert security is None, (method, path)
        else:
            assert [list(each) for each in security] == [["bearer"]], (method, path)
            assert security[0]["bearer"][0] in SCOPES, (method, path)
    closed = {(method.lower(), re.sub(r":\w+}", "}", path)) for method, path in CLOSED}
    assert {key for key in named if not OPEN.fullmatch(key[1])} <= closed


@every_operation
async def test_no_state_of_a_token_but_a_good_one_lets_in(guarded: Guarded, method: str, path: str) -> None:
    for state, headers in guarded.states.items():
        answer = await guarded.ask(method, path, headers)
        assert answer.status_code == 401, (state, answer.text)
        assert answer.headers["www-authenticate"].startswith("Bearer"), state
    good = guarded.scoped["admin"]["Authorization"].removeprefix("Bearer ")
    for query in (f"?token={good}", f"?access_token={good}", "" if path.startswith("/ping") else f"?key={good}"):
        assert (await guarded.ask(method, path + query, {})).status_code == 401, query


@every_operation
async def test_every_other_scope_together_does_not_let_in(guarded: Guarded, method: str, path: str) -> None:
    scope = scope_of(method, path)
    answer = await guarded.ask(method, path, guarded.scoped[f"all but {scope}"])
    assert answer.status_code == 403
    for held in (scope, "admin"):
        assert (await guarded.ask(method, path, guarded.scoped[held])).status_code not in (401, 403), held
    lent = (await guarded.ask(method, path, guarded.old_ingest)).status_code not in (401, 403)
    assert lent == (scope in ("ingest", "metadata")), "an older token of ingest reports metadata, and does nothing else"


@every_operation
async def test_no_trick_with_the_path_lets_in(guarded: Guarded, method: str, path: str) -> None:
    """A trick leads to the route, which is closed; or to no route; or to the documentation's own 404, or to that of the
    pages."""
    wrong = guarded.scoped[f"all but {scope_of(method, path)}"]
    for name, trick in TRICKS.items():
        for headers in ({}, wrong):
            answer = await guarded.ask(method, trick(path), headers)
            assert answer.status_code in (400, 401, 403, 404, 405), (name, answer.status_code)
            # After /webhooks/ any name leads to the route of the sources, which has a scope of its own.
            if answer.status_code == 404 and method != "HEAD" and not path.startswith("/api/v1/webhooks/"):
                nothing = ("Nothing is here.", "There is no such page. The fleet shows every group.")
                assert answer.json()["detail"] in nothing[: 2 if path.startswith("/ui/") else 1], (name, answer.text)


async def test_readiness_and_a_metric_tell_of_the_bad_line(guarded: Guarded) -> None:
    ready = await guarded.ask("GET", "/readyz", guarded.scoped["read"])
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "scopes must be some of" in ready.json()["checks"]["tokens"]
    assert (await guarded.ask("GET", "/readyz", {})).json() == {"status": "degraded"}
    metrics = await guarded.ask("GET", "/metrics", guarded.scoped["read"])
    assert "gateway_tokens_file_faults 1.0" in metrics.text


async def test_nothing_was_done_by_all_of_that(guarded: Guarded) -> None:
    for path in ("/api/v1/alerts", "/api/v1/triggers", "/api/v1/metadata", "/api/v1/promotions"):
        shown = await guarded.ask("GET", path, guarded.scoped["read"])
        assert shown.json()["items"] == [], path
