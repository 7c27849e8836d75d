"""`make pictures`: a screenshot of every page, wide and narrow, light and dark, of a rich history."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from app.tables import migrate
from tests.servers import start_test_servers
from tests.ui.browser import addresses, chromium, rich_world, served

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


async def draw(folder: Path) -> list[Path]:
    """Write the pictures into the folder."""
    drawn = []
    with tempfile.TemporaryDirectory() as base, start_test_servers(Path(base)) as servers:
        database = servers.fresh_database()
        await migrate.upgrade(database)
        async with rich_world(servers, database, models=40) as world, served(world) as url, chromium() as browser:
            pages = await addresses(world)
            for scheme in SCHEMES:
                for width in WIDTHS:
                    size = {"width": width, "height": 900}
                    context = await browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
                    page = await context.new_page()
                    for name, path in pages.items():
                        await page.goto(url + path)
                        drawn.append(folder / f"{name}-{width}-{scheme}.png")
                        await page.screenshot(path=drawn[-1], full_page=True)
                    await context.close()
    return drawn


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="make pictures", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("dist/pictures"), help="the folder (default: dist/pictures)")
    folder: Path = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    drawn = asyncio.run(draw(folder))
    print(f"{len(drawn)} pictures in {folder}")


if __name__ == "__main__":
    main()
