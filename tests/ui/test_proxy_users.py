"""An authenticating proxy names the person who looks and acts. Nobody else can."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.decide.state import group_key
from app.kit.clock import SystemClock
from app.web.tokens import create_token
from tests.acceptance.world import POLICY, World
from tests.servers import TestServers
from tests.ui.reading import read

PROXY = "10.0.0.7"
USER = "X-Forwarded-User"
CHURN = group_key("accuracy", "live", {"model": "churn"})


@asynccontextmanager
async def behind_proxy(servers: TestServers, database: str, folder: Path, scopes: str) -> AsyncIterator[World]:
    """A gateway with tokens, whose proxy has the address PROXY or is on fd00::/8."""
    file = folder / "tokens"
    boss = create_token(file, ["admin"], "boss", SystemClock().now())
    settings: dict[str, Any] = {
        "proxy_user_header": USER,
        "proxy_addresses": f"{PROXY}, fd00::/8",
        "proxy_scopes": scopes,
    }
    async with World(servers, database, POLICY, tokens_file=file, **settings) as world:
        world.clients[0].headers["Authorization"] = f"Bearer {boss}"
        yield world


@pytest.fixture
async def world(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with behind_proxy(servers, database, tmp_path, "read,trigger") as world:
        yield world


async def ask(
    world: World, path: str, peer: str, names: Sequence[str], form: dict[str, str] | None = None
) -> httpx.Response:
    """A request from the address `peer`, with the header of the proxy once for each name."""
    transport = httpx.ASGITransport(app=world.apps[0], client=(peer, 40_000))
    headers = [(b"Accept", b"text/html"), *((USER.encode(), name.encode()) for name in names)]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example") as client:
        return await client.request("GET" if form is None else "POST", path, headers=headers, data=form)


@pytest.mark.parametrize(
    ("peer", "names", "status"),
    [
        (PROXY, ["ana"], 200),
        ("fd00::1", ["ana"], 200),
        (f"::ffff:{PROXY}", ["ana"], 200),
        (PROXY, ["Ana Núñez"], 200),
        (PROXY, ["EXAMPLE\\ana"], 200),
        (PROXY, [], 303),
        ("10.0.0.8", ["ana"], 303),
        ("127.0.0.1", ["ana"], 303),
        ("::1", ["ana"], 303),
        (PROXY, ["ana", "boss"], 403),
        (PROXY, [""], 403),
        (PROXY, ["x" * 101], 403),
        (PROXY, ["ana\u202egnp"], 403),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_only_the_proxy_names_a_user(world: World, peer: str, names: list[str], status: int) -> None:
    answer = await ask(world, "/ui", peer, names)
    assert answer.status_code == status
    assert (status == 303) == (answer.headers.get("location", "").startswith("ui/login"))
    if status == 200:
        assert names[0] in answer.text
    assert "set-cookie" not in answer.headers


async def test_the_proxy_names_who_looks_and_who_acts(world: World) -> None:
    assert (await ask(world, "/api/v1/routes", PROXY, ["ana"])).status_code == 401, "the API takes tokens alone"
    world.airflow.add_dag("retrain_model")
    await world.push(world.alert(model="churn"))
    await world.settle()
    await world.pass_by(minutes=40)
    page = read((await ask(world, f"/ui/actions/trigger?group={CHURN}", PROXY, ["ana"])).text)
    fields = {f.attributes["name"]: f.attributes.get("value", "") for f in page.find("input", type="hidden")}
    filled = fields | {"reason": "new labels", "force": "on"}
    for name, form in (("eve", filled), ("ana", filled | {"form": "0" * 64}), ("ana", {})):
        refused = await ask(world, "/ui/actions/trigger", PROXY, [name], form)
        assert refused.status_code == 403, "a form belongs to its user"
    answer = await ask(world, "/ui/actions/trigger", PROXY, ["ana"], filled)
    assert answer.status_code == 303, answer.text
    found = await world.get(f"/api/v1/triggers/{answer.headers['location'].rpartition('/')[2]}")
    assert (found["reason"], found["requested_by"]) == ("forced", "ana")


@pytest.mark.parametrize(
    ("scopes", "looks", "acts"), [("read", 200, 403), ("ping", 403, 403), ("read,trigger", 200, 422)]
)
async def test_a_user_of_the_proxy_has_the_scopes_of_the_setting_and_no_other(
    servers: TestServers, database: str, tmp_path: Path, scopes: str, looks: int, acts: int
) -> None:
    async with behind_proxy(servers, database, tmp_path, scopes) as world:
        assert (await ask(world, "/ui", PROXY, ["ana"])).status_code == looks
        assert (await ask(world, "/ui/actions/pause", PROXY, ["ana"])).status_code == acts


async def test_without_the_setting_the_header_is_nothing(servers: TestServers, database: str, tmp_path: Path) -> None:
    create_token(tmp_path / "tokens", ["read"], "reader", SystemClock().now())
    async with World(servers, database, POLICY, tokens_file=tmp_path / "tokens") as world:
        assert (await ask(world, "/ui", "127.0.0.1", ["ana"])).status_code == 303
