"""Who may call what: every route with every scope, the settings that open some, and the limit on write requests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app.bootstrap.settings import Settings
from app.web.tokens import SCOPES
from tests.acceptance.world import World
from tests.integration.api import (
    ALERTMANAGER,
    CLOUDEVENTS,
    GRAFANA,
    NATIVE,
    cloud_event,
    native_alert,
    notification,
    opened,
    problem,
    token_of,
    webhook_alert,
)
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = uuid4()
#: Method, path, the scope that it needs, and what somebody with that scope is answered. That no route at all is forgotten:
#: test_closed_routes.py.
ROUTES = [
    ("POST", ALERTMANAGER, "ingest", 202),
    ("POST", GRAFANA, "ingest", 202),
    ("POST", CLOUDEVENTS, "ingest", 202),
    ("POST", NATIVE, "ingest", 202),
    ("GET", "/api/v1/alerts", "read", 200),
    ("GET", f"/api/v1/alerts/{NOBODY}", "read", 404),
    ("GET", "/api/v1/triggers", "read", 200),
    ("GET", f"/api/v1/triggers/{NOBODY}", "read", 404),
    ("GET", "/api/v1/routes", "read", 200),
    ("GET", "/api/v1/routes/accuracy/explain", "read", 200),
    ("GET", "/api/v1/schedules", "read", 200),
    ("GET", "/api/v1/effects", "read", 200),
    ("GET", "/api/v1/episodes", "read", 200),
    ("GET", "/api/v1/quarantine", "read", 200),
    ("GET", f"/api/v1/explain/{NOBODY}", "read", 404),
    ("POST", "/api/v1/triggers", "trigger", 422),
    ("POST", f"/api/v1/triggers/{NOBODY}/redrive", "trigger", 404),
    ("POST", f"/api/v1/triggers/{NOBODY}/cancel", "trigger", 404),
    ("POST", "/api/v1/routes/accuracy/reset", "trigger", 404),
    ("GET", "/api/v1/deadman", "read", 200),
    ("GET", "/api/v1/deadman/nobody", "read", 404),
    ("POST", "/api/v1/deadman/nobody/pause", "trigger", 404),
    ("POST", "/api/v1/deadman/nobody/resume", "trigger", 404),
    ("POST", "/api/v1/deadman/nobody/forget", "trigger", 404),
    ("GET", "/ping/nobody", "ping", 404),
    ("POST", "/ping/nobody/fail", "ping", 404),
    ("POST", "/api/v1/routes/nobody/pause", "trigger", 404),
    ("DELETE", "/api/v1/routes/nobody/pause", "trigger", 404),
    ("POST", "/-/reload", "trigger", 200),
    ("GET", "/metrics", "read", 200),
    ("GET", "/docs", "read", 200),
    ("GET", "/docs/assets/start.js", "read", 200),
    ("GET", "/openapi.json", "read", 200),
]
OPEN = ["/livez", "/readyz", "/health/deadman", "/health/metadata", "/"]
IDS = [f"{method} {path.replace(str(NOBODY), 'ID')}" for method, path, _, _ in ROUTES]


@dataclass(frozen=True)
class Guarded:
    """A gateway with tokens: one of each scope, by its name."""

    world: World
    tokens: dict[str, dict[str, str]]

    async def ask(self, method: str, path: str, headers: dict[str, str] | None) -> httpx.Response:
        body: dict[str, Any] | None = None
        if path in (ALERTMANAGER, GRAFANA):
            body = notification(webhook_alert("Nobody"))
        elif path == CLOUDEVENTS:
            body = cloud_event()
        elif path == NATIVE:
            body = native_alert("nobody")
        elif path.endswith("/pause"):
            body = {"reason": "a test"}
        elif path.endswith("/reset"):
            body = {"group": {"model": "nobody"}}
        return await self.world.clients[0].request(method, path, json=body, headers=headers)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guarded(
    servers: TestServers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = {scope: token_of(folder, scope) for scope in SCOPES}
    async with opened(servers, servers.fresh_database(template), tokens_file=folder / "tokens") as world:
        yield Guarded(world, tokens)


@pytest.mark.parametrize(("method", "path", "scope", "status"), ROUTES, ids=IDS)
async def test_a_route_is_closed_without_a_token(
    guarded: Guarded, method: str, path: str, scope: str, status: int
) -> None:
    for headers in (None, {"Authorization": "Bearer tg_" + "x" * 43}, {"Authorization": "Basic Z2F0ZXdheTo="}):
        answer = await guarded.ask(method, path, headers)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize(("method", "path", "scope", "status"), ROUTES, ids=IDS)
async def test_a_route_opens_to_its_scope_and_to_admin_alone(
    guarded: Guarded, method: str, path: str, scope: str, status: int, held: str
) -> None:
    answer = await guarded.ask(method, path, guarded.tokens[held])
    if held in (scope, "admin"):
        assert answer.status_code == status, answer.text
    else:
        assert problem(answer, 403, "forbidden")["scope"] == scope


@pytest.mark.parametrize("path", OPEN)
async def test_probes_are_open_to_anybody(guarded: Guarded, path: str) -> None:
    assert (await guarded.ask("GET", path, None)).status_code in (200, 307)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_the_details_of_a_probe_are_for_readers(guarded: Guarded, path: str) -> None:
    assert (await guarded.ask("GET", path, None)).json() == {"status": "ok"}
    assert (await guarded.ask("GET", path, guarded.tokens["ingest"])).json() == {"status": "ok"}
    for scope in ("read", "admin"):
        shown = (await guarded.ask("GET", path, guarded.tokens[scope])).json()
        assert shown["status"] == "ok"
        assert "checks" in shown
    if path == "/readyz":
        assert set(shown["checks"]) == {"postgres", "redis", "policy"}


@pytest.mark.parametrize(
    ("setting", "opens"),
    [
        ({}, []),
        ({"open_metrics": True}, ["/metrics"]),
        ({"open_docs": True}, ["/docs", "/openapi.json", "/docs/assets/start.js"]),
    ],
    ids=["neither", "open_metrics", "open_docs"],
)
async def test_a_setting_opens_what_it_names_and_nothing_else(
    servers: TestServers, database: str, tmp_path: Path, setting: dict[str, bool], opens: list[str]
) -> None:
    token_of(tmp_path, "ingest")
    async with opened(servers, database, tokens_file=tmp_path / "tokens", **setting) as world:
        for path in ("/metrics", "/docs", "/openapi.json", "/docs/assets/start.js", "/api/v1/alerts"):
            expected = 200 if path in opens else 401
            assert (await world.clients[0].get(path)).status_code == expected, path


async def test_without_any_token_on_loopback_everything_is_open(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        unguarded = Guarded(world, {})
        for method, path, _, status in ROUTES:
            assert (await unguarded.ask(method, path, None)).status_code == status, path
        assert "checks" in (await unguarded.ask("GET", "/readyz", None)).json()


LIMITED = [
    ("POST", NATIVE),
    ("POST", f"/api/v1/triggers/{NOBODY}/redrive"),
    ("POST", f"/api/v1/triggers/{NOBODY}/cancel"),
    ("POST", "/api/v1/routes/accuracy/reset"),
    ("DELETE", "/api/v1/routes/accuracy/pause"),
    ("POST", "/-/reload"),
]


@pytest.mark.parametrize(("method", "path"), LIMITED, ids=["alerts", "redrive", "cancel", "reset", "lift", "reload"])
async def test_too_many_write_requests_of_one_token_are_told_when_to_come_again(
    servers: TestServers, database: str, tmp_path: Path, method: str, path: str
) -> None:
    tokens = {name: token_of(tmp_path, "admin") for name in ("wild", "calm")}
    async with opened(servers, database, tokens_file=tmp_path / "tokens", rate_limit=3, redis_timeout=5.0) as world:
        guarded = Guarded(world, tokens)
        answers = [await guarded.ask(method, path, tokens["wild"]) for _ in range(5)]
        assert [a.status_code for a in answers][3:] == [429, 429]
        refused = problem(answers[-1], 429, "rate_limited")
        assert answers[-1].headers["retry-after"] == "20"
        assert "20 seconds" in refused["detail"]
        assert (await guarded.ask(method, path, tokens["calm"])).status_code != 429
        assert (await guarded.ask("GET", "/api/v1/alerts", tokens["wild"])).status_code == 200
        for webhook in (ALERTMANAGER, GRAFANA, CLOUDEVENTS) * 2:  # Their senders would drop the notification.
            assert (await guarded.ask("POST", webhook, tokens["wild"])).status_code == 202
        counted = (await guarded.ask("GET", "/metrics", tokens["wild"])).text
        assert "gateway_rate_limited_total 2.0" in counted


async def test_the_settings_that_open_are_closed_by_default() -> None:
    fields = Settings.model_fields
    assert (fields["open_docs"].default, fields["open_metrics"].default) == (False, False)
