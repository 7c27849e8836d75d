"""`make pictures`: a screenshot of every page, wide and narrow, light and dark, of a rich history."""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, ViewportSize

from app.kit.embedded.processes import end_in_order
from app.tables import migrate
from tests.servers import start_test_servers
from tests.ui.browser import addresses, chromium, rich_world, served

WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


#: The pictures of README.md and docs: what they show, how high.
DOCS = {"fleet": 760, "group": 800}


@asynccontextmanager
async def stage(models: int, *, nasty: bool) -> AsyncIterator[tuple[Browser, str, dict[str, str]]]:
    """A browser, the address of a gateway with a rich history, and its pages."""
    with tempfile.TemporaryDirectory() as base, start_test_servers(Path(base)) as servers:
        database = servers.fresh_database()
        await migrate.upgrade(database)
        async with (
            rich_world(servers, database, models=models, nasty=nasty) as world,
            served(world) as url,
            chromium() as browser,
        ):
            yield browser, url, await addresses(world)


async def draw(folder: Path) -> list[Path]:
    """Write every page into the folder, with hostile labels too."""
    drawn = []
    async with stage(40, nasty=True) as (browser, url, pages):
        for scheme in SCHEMES:
            for width in WIDTHS:
                size: ViewportSize = {"width": width, "height": 900}
                context = await browser.new_context(viewport=size, color_scheme=scheme)
                page = await context.new_page()
                for name, path in pages.items():
                    await page.goto(url + path)
                    drawn.append(folder / f"{name}-{width}-{scheme}.png")
                    await page.screenshot(path=drawn[-1], full_page=True)
                await context.close()
    return drawn


async def draw_docs(folder: Path) -> list[Path]:
    """Write the upper parts of the pages in DOCS into the folder."""
    drawn = []
    async with stage(14, nasty=False) as (browser, url, pages):
        page = await browser.new_page()
        for name, height in DOCS.items():
            await page.set_viewport_size({"width": 1200, "height": height})
            await page.goto(url + pages[name])
            drawn.append(folder / f"{name}.png")
            await page.screenshot(path=drawn[-1])
    return drawn


def main() -> None:
    """See the module's docstring."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="make pictures", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("dist/pictures"), help="the folder (default: dist/pictures)")
    parser.add_argument("--docs", action="store_true", help="draw the pictures of README.md into docs/pictures instead")
    chosen = parser.parse_args()
    folder: Path = Path("docs/pictures") if chosen.docs else chosen.to
    folder.mkdir(parents=True, exist_ok=True)
    drawn = asyncio.run(draw_docs(folder) if chosen.docs else draw(folder))
    print(f"{len(drawn)} pictures in {folder}")


if __name__ == "__main__":
    main()
