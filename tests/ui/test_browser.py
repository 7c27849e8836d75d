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

from demo import picture
from tests.acceptance.world import World
from tests.servers import TestServers
from tests.sizes import size
from tests.ui.browser import addresses, chromium, rich_world, served

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium: apt-get install chromium"),
]

_REACHED = """() => { const e = document.activeElement;
    return e === document.body ? "" : e.tagName + " " + [...document.querySelectorAll("*")].indexOf(e) }"""
_REACHABLE = """() => [...document.querySelectorAll(
        "a[href], button, input:not([type=hidden]), select, summary, [tabindex]")]
    .filter(e => e.checkVisibility()).map(e => e.tagName + " " + [...document.querySelectorAll("*")].indexOf(e))"""


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


@pytest.mark.parametrize("name", ["fleet", "group", "house", "action"])
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
