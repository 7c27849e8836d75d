"""The documentation's routes: guarded, self-contained, and right below a proxy's prefix."""

import re
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header
from prometheus_client.metrics import MetricWrapperBase

from app.bootstrap.settings import Settings, read_settings
from app.decide.state import DEAD, FAILED, GONE, LOST, SUCCESS, Action, Reason, TriggerState
from app.effects.rules import Effect, Why
from app.explain import sentences
from app.kit.errors import Problem
from app.kit.metrics import Metrics
from app.policy.sources import TAKEN
from app.web import docs, error_answers, listener, problems
from app.web.main import create_app

GUARDED = ("/docs", "/openapi.json", "/docs/assets/start.js", "/docs/assets/swagger-ui.css")


async def guard(authorization: Annotated[str | None, Header()] = None) -> None:
    if authorization != "Bearer good":
        raise Problem(401, "unauthorized", "No token.", headers={"WWW-Authenticate": "Bearer"})


def make_app(*, guarded: bool = False, title: str = "Trigger <Gateway>") -> FastAPI:
    app = FastAPI(title=title, openapi_url=None)
    error_answers.install(app)
    docs.install(app, guard if guarded else None)

    @app.get("/api/v1/alerts", dependencies=[Depends(guard)])
    async def alerts() -> str:
        return "alerts"

    return app


def client_of(app: FastAPI, root_path: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, root_path=root_path), base_url="http://localhost")


@pytest.mark.parametrize("path", GUARDED)
async def test_a_guard_keeps_all_of_it_and_a_flag_opens_all_of_it(path: str) -> None:
    async with client_of(make_app(guarded=True)) as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get(path, headers={"Authorization": "Bearer good"})).status_code == 200
    async with client_of(make_app(guarded=False)) as client:
        assert (await client.get(path)).status_code == 200


async def test_the_root_leads_to_the_documentation() -> None:
    async with client_of(make_app(guarded=True)) as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


async def test_everything_that_the_page_names_is_served_from_here() -> None:
    async with client_of(make_app()) as client:
        page = await client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(named) == 4
        for address in named:
            answer = await client.get(f"/{address}")
            assert answer.status_code == 200, address
            assert len(answer.content) > 100, address
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert "//" not in page.text
    assert "<script>" not in page.text


async def test_the_policy_of_the_page_allows_this_server_alone() -> None:
    async with client_of(make_app()) as client:
        policy = (await client.get("/docs")).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_the_title_is_escaped() -> None:
    async with client_of(make_app()) as client:
        assert "<title>Trigger &lt;Gateway&gt;</title>" in (await client.get("/docs")).text


async def test_the_document_is_the_apps_and_does_not_tell_of_itself() -> None:
    app = make_app()
    async with client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
    assert document == app.openapi()
    assert list(document["paths"]) == ["/api/v1/alerts"]


async def test_below_a_prefix_the_document_says_where_the_server_is() -> None:
    async with client_of(make_app(), root_path="/gateway") as client:
        assert (await client.get("/gateway/openapi.json")).json()["servers"] == [{"url": "/gateway"}]
        assert (await client.get("/gateway/docs")).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "redoc.standalone.js", "..%2fcore.py", "%2e%2e/__init__.py", "a/b"])
async def test_no_other_file_is_served(name: str) -> None:
    async with client_of(make_app()) as client:
        answer = await client.get(f"/docs/assets/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_app_that_serves_its_own_open_document_is_refused() -> None:
    with pytest.raises(RuntimeError, match="openapi_url=None"):
        docs.install(FastAPI(), guard)


# -- the pages under docs/ say what the code says -----------------------------------------------------------------------

PAGES = Path(__file__).parents[2] / "docs"


def rows_of(page: str) -> list[list[str]]:
    """The cells of every table row of a page whose first cell is code."""
    lines = [line for line in (PAGES / page).read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_of_settings_names_each_with_its_default_and_meaning() -> None:
    documented = {
        cells[0].strip("`| "): (cells[1].strip("`"), cells[2].rstrip(" |"))
        for cells in rows_of("reference/settings.md")
        if "GATEWAY_" in cells[0]
    }
    fields = Settings.model_fields
    assert set(documented) == {f"GATEWAY_{name.upper()}" for name in fields}
    for name, field in fields.items():
        shown = {None: "unset", True: "true", False: "false"}.get(field.default, str(field.default))
        assert documented[f"GATEWAY_{name.upper()}"] == (shown, field.description), name


def test_the_page_of_metrics_names_each_with_its_labels() -> None:
    documented = {
        cells[0].strip("`| "): set(re.findall(r"`(\w+)`", cells[1])) for cells in rows_of("reference/metrics.md")
    }
    declared = {}
    for collector in Metrics().registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase)
        suffix = "_total" if collector._type == "counter" else ""
        declared[collector._name + suffix] = set(collector._labelnames)
    assert documented == declared


def test_the_page_of_monitors_names_every_source_that_a_policy_cannot_name() -> None:
    page = (PAGES / "how-to/connect-another-monitor.md").read_text()
    sentence = re.search(r"- `name` may not be (.*?)\.", page, re.S)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == TAKEN


def test_the_page_of_problems_names_every_code_with_its_status() -> None:
    documented = {cells[0].strip("`| "): cells[1] for cells in rows_of("reference/problems.md") if cells[1].isdecimal()}
    others = (problems.UNAVAILABLE, problems.BAD_SIGNATURE, *listener.REFUSALS)
    kinds = dict(problems.KINDS) | {k.code: k for k in others}
    assert {code: str(kind.status) for code, kind in kinds.items()}.items() <= documented.items()
    app = create_app(read_settings(), None)  # type: ignore[arg-type]  # Its lifespan is not entered.
    shown = set(re.findall(r"urn:trigger-gateway:problem:(\w+)", str(app.openapi()["paths"])))
    assert shown <= set(documented)


def test_the_page_of_words_names_every_code_that_can_block_a_trigger() -> None:
    documented = " ".join(cells[0] for cells in rows_of("reference/words.md"))
    assert [code for code in sentences.UNBLOCK if f"`{code}`" not in documented] == []


def test_the_page_of_words_names_every_action_reason_state_and_outcome() -> None:
    rows = rows_of("reference/words.md")
    words = {word for cells in rows for cell in cells[:2] for word in re.findall(r"`(\w+)`", cell)}
    assert {*Action, *Reason, *TriggerState, *Effect, *Why, SUCCESS, FAILED, LOST, GONE, DEAD} - words == set()


def test_the_page_of_the_api_names_every_call_with_its_scope() -> None:
    listed = {}
    for cells in rows_of("reference/http-api.md"):
        for method, path in re.findall(r"`(GET|POST|DELETE|PUT|PATCH) (/[^`]*)`", "| " + cells[0]):
            listed[method, path] = cells[1]
    document = create_app(read_settings(), None).openapi()  # type: ignore[arg-type]  # Its lifespan is not entered.
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = [scope for need in operation.get("security", []) for scope in need["bearer"]]
            assert all(f"`{scope}`" in listed[method.upper(), path] for scope in scopes), (method, path)
