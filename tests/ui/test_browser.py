"""The pages in a real Chromium: nothing from elsewhere, no script, no scrolling sideways, no barrier for people."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page

from app.kit.clock import SystemClock
from app.ui.sessions import IDLE
from app.web.tokens import create_token
from demo import picture
from tests.acceptance.world import World
from tests.servers import TestServers
from tests.sizes import size
from tests.ui.browser import addresses, chromium, rich_world, served
from tests.ui.history import POLICY

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium: apt-get install chromium"),
]

_REACHED = """() => { const e = document.activeElement;
    return e === document.body ? "" : e.tagName + " " + [...document.querySelectorAll("*")].indexOf(e) }"""
_REACHABLE = """() => [...document.querySelectorAll(
        "a[href], button, input:not([type=hidden]), select, summary, [tabindex]")]
    .filter(e => e.checkVisibility()).map(e => e.tagName + " " + [...document.querySelectorAll("*")].indexOf(e))"""

# The texts of a page in which a browser has broken a time.
_BROKEN = r"""() => {
    const found = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode;
        if (!node.parentElement.checkVisibility() || node.parentElement.closest("pre, code, textarea")) continue;
        for (const each of node.data.matchAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d/g)) {
            const range = document.createRange();
            range.setStart(node, each.index);
            range.setEnd(node, each.index + each[0].length);
            const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
            if (lines.size > 1) found.push(node.data.slice(0, 200));
        }
    }
    return found }"""


@dataclass
class Stage:
    world: World
    browser: Browser
    url: str
    pages: dict[str, str]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(servers: TestServers, template: str) -> AsyncIterator[Stage]:
    database = servers.fresh_database(template)
    async with (
        rich_world(servers, database, models=size(24, 60)) as world,
        served(world) as url,
        chromium() as browser,
    ):
        yield Stage(world, browser, url, await addresses(world))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
async def test_every_page_is_whole_quiet_and_open_to_everybody(
    stage: Stage, scheme: Literal["light", "dark"], width: int
) -> None:
    await _look_at_all(stage, scheme, width)


async def test_every_page_is_so_too_before_anything_has_happened(
    stage: Stage, servers: TestServers, template: str
) -> None:
    empty = {
        "fleet": "/ui", "promotions": "/ui/promotions", "house": "/ui/house", "policy": "/ui/policy",
        "box": "/ui/policy/backtests", "switch": "/ui/switches/nightly", "missing": f"/ui/groups/{'0' * 32}",
    }  # fmt: skip
    async with World(servers, servers.fresh_database(template), POLICY) as world, served(world) as url:
        await world.services[0].loop("watch").step()
        await _look_at_all(Stage(world, stage.browser, url, empty), "dark", 360)


async def _look_at_all(stage: Stage, scheme: Literal["light", "dark"], width: int) -> None:
    context = await stage.browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = await context.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("dialog", lambda dialog: noise.append(f"dialog: {dialog.message}"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    faults: list[tuple[str, str, list[str]]] = []
    for name, path in stage.pages.items():
        answer = await page.goto(stage.url + path)
        assert answer is not None
        assert answer.status == (404 if name == "missing" else 200), name
        if name == "missing":  # Chromium notes the status of a page that is not there.
            noise = [line for line in noise if "404" not in line]
        wide = await page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels too wide at {width}"
        found: Any = (await Axe().run(page)).response["violations"]
        faults += [(name, v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found]
    assert faults == []
    assert noise == []
    assert [url for url in asked if not url.startswith(f"{stage.url}/ui")] == []
    await context.close()


async def test_no_text_is_cut_and_no_two_words_of_a_state_overlap(stage: Stage) -> None:
    """Chips are the words of states: none may lie over another one, or reach out of its row."""
    context = await stage.browser.new_context(viewport={"width": 360, "height": 800})
    page = await context.new_page()
    for path in stage.pages.values():
        await page.goto(stage.url + path)
        boxes = await page.eval_on_selector_all(
            ".chip",
            """all => all.filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect())
                .map(r => [r.left, r.top, r.right, r.bottom])""",
        )
        for n, (left, top, right, bottom) in enumerate(boxes):
            assert 0 <= left < right <= 360, path
            over = [b for b in boxes[n + 1 :] if left < b[2] and b[0] < right and top < b[3] and b[1] < bottom]
            assert over == [], path
    await context.close()


_BY_KEYBOARD: tuple[str, ...] = ("fleet", "group", "house", "action")
_MORE = ("promotions", "policy", "box", "backtest", "alert", "trigger", "switch", "missing")


@pytest.mark.parametrize("name", size(_BY_KEYBOARD, (*_BY_KEYBOARD, *_MORE)))
async def test_the_keyboard_reaches_everything(stage: Stage, name: str) -> None:
    context = await stage.browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.goto(stage.url + stage.pages[name])
    wanted = set(await page.evaluate(_REACHABLE))
    reached = set()
    for _ in range(len(wanted) * 2 + 20):  # A date takes several steps.
        await page.keyboard.press("Tab")
        reached.add(await page.evaluate(_REACHED))
        if wanted <= reached:
            break
    assert wanted - reached == set()
    await context.close()


async def test_the_demo_draws_its_fleet(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "fleet.png"
    assert await asyncio.to_thread(picture.draw, f"{stage.url}/ui", file)
    assert file.read_bytes().startswith(b"\x89PNG")


async def test_a_small_screen_shows_the_filters_when_a_person_opens_them_or_has_set_one(stage: Stage) -> None:
    for width, seen in ((360, False), (1280, True)):
        context = await stage.browser.new_context(java_script_enabled=False, viewport={"width": width, "height": 800})
        page = await context.new_page()
        for path, label in (("/ui", "input[name=label]"), ("/ui/promotions", "input[name=model]")):
            await page.goto(stage.url + path)
            assert await page.locator(label).is_visible() == seen
            if not seen:
                await page.locator(".filter > summary").press("Enter")
            await page.fill(label, "model=m01-fraud" if path == "/ui" else "churn")
            await _go(page, "form.filters button")
            assert await page.locator(label).is_visible(), "a filter that is set is shown"
        await context.close()


async def test_a_time_in_a_sentence_stays_on_one_line(stage: Stage) -> None:
    context = await stage.browser.new_context(viewport={"width": 360, "height": 800})
    page = await context.new_page()
    times = 0
    for path in stage.pages.values():
        await page.goto(stage.url + path)
        lines = await page.eval_on_selector_all(
            ".at", "all => all.filter(e => e.checkVisibility()).map(e => e.getClientRects().length)"
        )
        assert set(lines) <= {1}, path
        times += len(lines)
        broken = await page.evaluate(_BROKEN)
        assert broken == [], path
    assert times > 100
    await context.close()


async def test_after_the_session_has_ended_a_person_finds_again_what_was_written(
    stage: Stage, servers: TestServers, template: str, tmp_path: Path
) -> None:
    token = create_token(tmp_path / "tokens", ["read", "trigger"], "ana", SystemClock().now())
    database = servers.fresh_database(template)
    async with World(servers, database, POLICY, tokens_file=tmp_path / "tokens") as world, served(world) as url:
        context = await stage.browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{url}/ui/actions/pause?route=accuracy")
        await page.fill("input[name=token]", token)
        await _go(page, ".login button")
        await page.fill("input[name=reason]", "the labels are wrong")
        world.clock.pass_by(IDLE)
        await _go(page, ".confirm button")
        assert "What you wrote is kept" in await page.locator("main").inner_text()
        await page.fill("input[name=token]", token)
        await _go(page, ".login button")
        assert page.url == f"{url}/ui/actions/pause"
        assert "Nothing was done" in await page.locator(".fault").inner_text()
        assert await page.input_value("input[name=reason]") == "the labels are wrong"
        await _go(page, ".confirm button")
        assert page.url.endswith("/ui?route=accuracy")
        assert [each for each in asked if "labels" in each or token in each] == []
        await context.close()


async def _go(page: Page, link: str) -> None:
    async with page.expect_navigation():
        await page.locator(link).first.click()


async def test_without_scripts_a_person_filters_looks_and_acts(stage: Stage) -> None:
    context = await stage.browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(stage.url)
    assert page.url == f"{stage.url}/ui", "the root leads a browser here"
    await page.fill("input[name=label]", "model=m01-fraud")
    await page.select_option("select[name=route]", "accuracy")
    await _go(page, "form.filters button")
    assert await page.locator("[data-group]").count() == 1
    await _go(page, ".name a")
    await _go(page, "[data-trigger] a")
    assert "/ui/triggers/" in page.url
    await page.goto(stage.url + stage.pages["action"])
    await page.fill("input[name=reason]", "a page without scripts")
    await _go(page, "form button")
    assert page.url.endswith("/ui?route=accuracy")
    routes = (await stage.world.get("/api/v1/routes"))["items"]
    assert next(r["pause"]["reason"] for r in routes if r["name"] == "accuracy") == "a page without scripts"
    await context.close()


async def test_without_scripts_a_person_tries_a_policy(stage: Stage) -> None:
    context = await stage.browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800})
    page = await context.new_page()
    await page.goto(stage.url + stage.pages["policy"])
    await page.locator(".try > summary").click()
    box, in_force = page.locator("textarea"), stage.world.services[0].core.policy.text
    assert await box.input_value() == in_force
    wrong = in_force.replace("cooldown: 24h", "cooldown: soon")
    await box.fill(wrong)
    await _go(page, ".candidate button")
    assert "routes.0.cooldown" in await page.locator(".fault").inner_text()
    assert await page.locator(".fault code").inner_text() == "cooldown: soon"
    assert await box.input_value() == wrong, "what was filled in is still there"
    await box.fill(in_force.replace("cooldown: 24h", "cooldown: 12h"))
    await _go(page, ".candidate button")
    assert "It waits for a worker" in await page.locator("main").inner_text()
    await context.close()
