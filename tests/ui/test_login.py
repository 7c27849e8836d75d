"""Who may see a page: login, session, its two ends, its token, forms of other sites."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.kit.clock import SystemClock
from app.ui.sessions import IDLE, LONGEST
from app.web.tokens import create_token
from tests.acceptance.world import POLICY, World
from tests.integration.api import problem
from tests.servers import TestServers
from tests.ui.reading import read

HTML = {"Accept": "text/html"}
NEEDS_TOKEN = "Paste a token"


@dataclass
class Browser:
    """A browser that asks one replica of a gateway with tokens. `tokens` are their texts by name."""

    world: World
    client: httpx.AsyncClient
    file: Path
    tokens: dict[str, str]

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=HTML | {k.replace("_", "-"): v for k, v in headers.items()})

    async def login(self, name: str = "reader", *, wanted: str = "", **headers: str) -> httpx.Response:
        form = next(read((await self.get("/ui/login")).text).find("input", name="form")).attributes["value"]
        fields = {"form": form, "token": self.tokens[name], "next": wanted}
        sent = HTML | {"Sec-Fetch-Site": "same-origin"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.client.post("/ui/login", data=fields, headers=sent)

    async def is_in(self) -> bool:
        answer = await self.get("/ui")
        assert (answer.status_code == 303) == ("location" in answer.headers)
        return answer.status_code == 200

    def revoke(self, name: str) -> None:
        lines = self.file.read_text().splitlines()
        self.file.write_text("".join(f"{line}\n" for line in lines if f'"name": "{name}"' not in line))
        self.world.services[0].tokens.__init__(self.file, self.world.clock, loopback=True)  # type: ignore[misc]


@pytest.fixture
async def browser(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[Browser]:
    file, now = tmp_path / "tokens", SystemClock().now()
    scopes = {"reader": ["read"], "operator": ["read", "trigger"], "sender": ["ingest"]}
    tokens = {name: create_token(file, mine, name, now) for name, mine in scopes.items()}
    async with World(servers, database, POLICY, tokens_file=file) as world:
        yield Browser(world, world.clients[0], file, tokens)


async def test_a_browser_without_a_session_is_led_to_the_login_and_back(browser: Browser) -> None:
    refused = await browser.get("/ui?state=held&days=7")
    assert refused.status_code == 303
    login = httpx.URL("http://localhost/ui").join(refused.headers["location"])
    assert login.path == "/ui/login"
    page = read((await browser.get(str(login))).text)
    assert NEEDS_TOKEN in page.text
    wanted = next(page.find("input", name="next")).attributes["value"]
    assert wanted == "/ui?state=held&days=7"
    answer = await browser.login(wanted=wanted)
    kept = httpx.URL("http://localhost/ui/login").join(answer.headers["location"])
    assert (answer.status_code, kept.path) == (303, "/ui/login/kept")
    arrived = await browser.get(str(kept))
    assert str(kept.join(arrived.headers["location"])) == "http://localhost/ui?state=held&days=7"
    assert await browser.is_in()


async def test_a_program_gets_a_problem_and_may_send_its_token(browser: Browser) -> None:
    problem(await browser.client.get("/ui"), 401, "unauthorized")
    answer = await browser.client.get("/ui", headers={"Authorization": f"Bearer {browser.tokens['reader']}"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    ("host", "more", "cookie"),
    [
        ("localhost", {}, "gateway"),
        ("127.0.0.1:8090", {}, "gateway"),
        ("gateway.example", {}, "__Host-gateway"),
        ("localhost:8090", {"X_Forwarded_Proto": "https"}, "__Host-gateway"),
    ],
)
async def test_the_cookie_is_for_this_host_and_for_no_script(
    browser: Browser, host: str, more: dict[str, str], cookie: str
) -> None:
    set_cookie = (await browser.login(Host=host, **more)).headers["set-cookie"]
    name, *attributes = set_cookie.split("; ")
    assert name.partition("=")[0] == cookie
    expected = {"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"}
    assert set(attributes) == expected | ({"Secure"} if cookie.startswith("__Host-") else set())
    assert browser.tokens["reader"] not in set_cookie


async def test_a_cookie_that_was_made_for_localhost_opens_no_other_name(browser: Browser) -> None:
    await browser.login()
    cookie = f"gateway={browser.client.cookies['gateway']}"
    assert (await browser.get("/ui", Cookie=cookie, Host="localhost")).status_code == 200
    assert (await browser.get("/ui", Cookie=cookie, Host="gateway.example")).status_code == 303


@pytest.mark.parametrize(
    ("token", "says"),
    [("tg_wrong", "does not know this token"), ("sender", "lacks the scope read"), ("", "does not know")],
)
async def test_a_token_that_may_not_read_begins_no_session(browser: Browser, token: str, says: str) -> None:
    browser.tokens.setdefault(token, token)
    answer = await browser.login(token)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert says in answer.text
    assert not await browser.is_in()


async def test_a_session_ends_after_an_idle_hour_and_after_twelve_hours_in_any_case(browser: Browser) -> None:
    clock = browser.world.clock
    await browser.login()
    clock.pass_by(IDLE - timedelta(seconds=1))
    assert await browser.is_in()
    clock.pass_by(IDLE)
    assert not await browser.is_in()
    await browser.login()
    for _ in range(int(LONGEST / timedelta(minutes=30)) - 1):
        clock.pass_by(timedelta(minutes=30))
        assert await browser.is_in(), "a page within the hour keeps it"
    clock.pass_by(timedelta(minutes=30))
    assert not await browser.is_in()


async def test_a_page_that_asks_by_itself_does_not_keep_a_session(browser: Browser) -> None:
    clock = browser.world.clock
    await browser.login()
    for _ in range(2):
        clock.pass_by(timedelta(minutes=25))
        assert (await browser.get("/ui?refresh=60")).status_code == 200
    clock.pass_by(timedelta(minutes=25))
    assert (await browser.get("/ui?refresh=60")).status_code == 303


async def test_a_session_ends_with_its_token(browser: Browser) -> None:
    await browser.login()
    assert await browser.is_in()
    browser.revoke("reader")
    assert not await browser.is_in()
    create_token(browser.file, ["read"], "reader", SystemClock().now())
    browser.revoke("nobody")
    assert not await browser.is_in(), "another token of this name is another token"


async def test_every_replica_knows_the_session(browser: Browser) -> None:
    await browser.login()
    await browser.world.start()
    cookie = f"gateway={browser.client.cookies['gateway']}"
    answer = await browser.world.clients[1].get("/ui", headers=HTML | {"Cookie": cookie})
    assert answer.status_code == 200


async def test_a_changed_cookie_is_none(browser: Browser) -> None:
    await browser.login()
    name, began, seen, word, signature = browser.client.cookies["gateway"].split(":")
    browser.client.cookies.clear()
    forged = [
        ":".join(("operator", began, seen, word, signature)),
        ":".join((name, began, str(int(seen) + 1), word, signature)),
        ":".join((name, str(int(began) + 1), seen, word, signature)),
        ":".join((name, began, seen, "0" * 32, signature)),
        ":".join((name, began, seen, word, "0" * 64)),
        ":".join((name, began, seen, word)),
        ":".join((name, "9" * 12, "9" * 12, word, signature)),
        "",
        "x" * 8000,
        "reader::::",
        "\u0661:1:1:1:1",
    ]
    for cookie in forged:
        headers: Any = HTML | {"Cookie": f"gateway={cookie}".encode()}
        assert (await browser.client.get("/ui", headers=headers)).status_code == 303, cookie


async def test_logging_out_takes_a_form_of_our_own_page(browser: Browser) -> None:
    await browser.login()
    page = read((await browser.get("/ui")).text)
    form = next(page.find("input", name="form")).attributes["value"]
    for fields, headers in (
        ({}, {}),
        ({"form": "0" * 64}, {}),
        ({"form": form}, {"Sec-Fetch-Site": "cross-site"}),
        ({"form": form}, {"Sec-Fetch-Site": "same-site"}),
        ({"form": form}, {"Origin": "http://evil.example"}),
        ({"form": form}, {"Origin": "null"}),
    ):
        answer = await browser.client.post("/ui/logout", data=fields, headers=HTML | headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), (fields, headers)
        assert "did not come from a page of your session" in answer.text
    assert await browser.is_in()
    answer = await browser.client.post("/ui/logout", data={"form": form}, headers=HTML | {"Origin": "http://localhost"})
    assert (answer.status_code, answer.headers["location"]) == (303, "../ui/login")
    assert not await browser.is_in()


async def test_the_form_of_another_session_does_not_count(browser: Browser) -> None:
    await browser.login("operator")
    other = next(read((await browser.get("/ui")).text).find("input", name="form")).attributes["value"]
    browser.client.cookies.clear()
    await browser.login("reader")
    answer = await browser.client.post("/ui/logout", data={"form": other}, headers=HTML)
    assert answer.status_code == 403


async def test_no_other_site_can_log_a_browser_in(browser: Browser) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        answer = await browser.login(**headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    fields = {"token": browser.tokens["reader"]}
    answer = await browser.client.post("/ui/login", data=fields, headers=HTML)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/ui//evil.example", "/ui/../docs", "javascript:1",
     "/docs", "/ui/\r\nSet-Cookie: a=b", "/uix", "/ui/\u00e9"],
)  # fmt: skip
async def test_a_login_leads_nowhere_else(browser: Browser, wanted: str) -> None:
    answer = await browser.login(wanted=wanted)
    kept = httpx.URL("http://localhost/ui/login").join(answer.headers["location"])
    arrived = await browser.get(str(kept.copy_with(params={"next": wanted})))
    assert str(kept.join(arrived.headers["location"])) == "http://localhost/ui"


async def test_after_a_link_from_elsewhere_the_browser_asks_again_with_its_cookie(browser: Browser) -> None:
    """A cookie with SameSite=Strict does not come with the first request after a link in a notice."""
    answer = await browser.get("/ui?days=7", Sec_Fetch_Site="cross-site")
    assert answer.status_code == 200
    assert re.search(r'<meta http-equiv="refresh" content="0">', answer.text)
    assert NEEDS_TOKEN not in answer.text
    await browser.login()
    again = await browser.get("/ui?days=7", Sec_Fetch_Site="same-origin")
    assert "Lanes of" in again.text


async def test_a_browser_that_keeps_no_cookie_is_told_why(browser: Browser) -> None:
    await browser.login(Host="gateway.example")
    browser.client.cookies.clear()
    answer = await browser.get("/ui/login/kept", Host="gateway.example")
    assert answer.status_code == 403
    assert "did not keep the session" in answer.text


async def test_on_loopback_without_tokens_nobody_logs_in(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY) as world:
        client = world.clients[0]
        for path in ("/ui/login",):
            answer = await client.get(path, headers=HTML)
            assert (answer.status_code, answer.headers["location"]) == (303, "../ui")
        page = await client.get("/ui", headers=HTML)
        assert (page.status_code, "no login on this machine" in page.text) == (200, True)
        rebound = await client.get("/ui", headers=HTML | {"Host": "evil.example"})
        assert rebound.status_code == 403, "a name of somebody else leads here"


async def test_a_large_form_is_refused(browser: Browser) -> None:
    for body, status in (("a=" + "x" * 300_000, 413), ("a=%ff", 422), ("&".join(f"a{n}=" for n in range(99)), 422)):
        headers = HTML | {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await browser.client.post("/ui/login", content=body, headers=headers)
        assert answer.status_code == status, body[:20]


# What a person has written is not lost.

HOSTILE = '"><script>alert(1)</script>\u202e é 🦉'
WRITTEN = {
    "/ui/actions/pause": {"route": "accuracy", "until": "2030-01-01T10:00", "reason": HOSTILE},
    "/ui/policy/backtests": {
        "policy": f"version: 1\n# {HOSTILE}\n" + "# long\n" * 9000,
        "since": "7d",
        "compare": "live",
    },
}


def fields_of(page: str, action: str) -> dict[str, str]:
    """What a browser would send from the form that leads to `action`."""
    [form] = [each for each in read(page).find("form") if each.attributes.get("action", "").endswith(action)]
    found = {each.attributes["name"]: each.attributes.get("value", "") for each in form.find("input")}
    found |= {each.attributes["name"]: each.text.removeprefix("\n") for each in form.find("textarea")}
    for select in form.find("select"):
        options = list(select.find("option"))
        chosen = next((option for option in options if "selected" in option.attributes), options[0])
        found[select.attributes["name"]] = chosen.attributes.get("value", chosen.text)
    return found


@pytest.mark.parametrize("path", WRITTEN)
async def test_a_form_that_is_sent_after_the_session_has_ended_comes_again_after_the_login(
    browser: Browser, path: str
) -> None:
    ours, written = HTML | {"Sec-Fetch-Site": "same-origin"}, WRITTEN[path]
    await browser.login("operator")
    page = (await browser.get(f"{path}?route=accuracy")).text
    old = fields_of(page, path)["form"]
    browser.world.clock.pass_by(IDLE)
    refused = await browser.client.post(path, data=written | {"form": old}, headers=ours)
    assert (refused.status_code, "location" in refused.headers) == (403, False)
    assert "What you wrote is kept" in refused.text
    assert not list(read(refused.text).find("script"))
    login = fields_of(refused.text, "/ui/login")
    assert login == written | {"form": login["form"], "next": path, "token": ""}
    wrong = await browser.client.post("/ui/login", data=login | {"token": "tg_wrong"}, headers=ours)
    assert fields_of(wrong.text, "/ui/login") == login, "a mistyped token loses nothing"
    sent = login | {"token": browser.tokens["operator"]}
    answer = await browser.client.post("/ui/login", data=sent, headers=ours)
    assert (answer.status_code, answer.headers["location"]) == (307, f"..{path}")
    # A browser sends the same form to that address.
    again = await browser.client.post(path, data=sent, headers=ours)
    assert (again.status_code, "Nothing was done" in again.text) == (403, True)
    assert browser.tokens["operator"] not in again.text
    filled = fields_of(again.text, path)
    assert written.items() <= filled.items()
    assert filled["form"] not in (old, login["form"])
    async with browser.world.services[0].core.engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM audit"))).scalar_one() == 0
    if path == "/ui/actions/pause":
        done = await browser.client.post(path, data=filled, headers=ours)
        assert done.status_code == 303, done.text
        asked = {"Authorization": f"Bearer {browser.tokens['operator']}"}
        routes = await browser.client.get("/api/v1/routes", headers=asked)
        assert routes.json()["items"][0]["pause"]["reason"] == HOSTILE


@pytest.mark.parametrize("site", ["cross-site", "same-site", None])
async def test_a_form_of_another_site_is_not_kept(browser: Browser, site: str | None) -> None:
    """Without a session, and with one."""
    sent = HTML | ({"Sec-Fetch-Site": site} if site else {})
    for path, written in WRITTEN.items():
        answer = await browser.client.post(path, data=written, headers=sent)
        assert (answer.status_code, answer.headers["location"]) == (303, "../../ui/login")
    await browser.login("operator")
    for path, written in WRITTEN.items():
        answer = await browser.client.post(path, data=written | {"form": "0" * 64}, headers=sent)
        assert (answer.status_code, "alert(1)" in answer.text) == (403, False)
