"""Pages that were made a moment ago. While alerts wait to be written, the intake comes first. Pages are then made one after
the other, and a page that the same person asks for again within a second is answered from here.

While no alert waits, every page is made anew, from what is stored at that moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Final

from starlette.responses import Response

from app.intake.batcher import Batcher
from app.kit.clock import monotonic

_LATELY: Final = 1.0  # seconds from the beginning of a page in which it is shown again
_MOST: Final = 8 * 2**20  # bytes of all pages that are kept

#: When it began, the body and the headers.
_Page = tuple[float, bytes, Mapping[str, str]]


class KeptPages:
    """The pages of one process."""

    def __init__(self, intake: Batcher) -> None:
        self._intake = intake
        self._pages: dict[Hashable, _Page] = {}
        self._turn = asyncio.Lock()

    async def answer(self, key: Hashable, make: Callable[[], Awaitable[Response]]) -> Response:
        """The page that `make` makes, or the same page from less than a second ago. `key` is everything that it depends on
        besides what is stored: who asks, in which session, for which address."""
        if not self._intake.at_work:
            return await make()
        if (found := self._found(key)) is not None:
            return found
        async with self._turn:
            if (found := self._found(key)) is not None:
                return found
            pages, began = self._pages, monotonic()
            made = await make()
            if made.status_code == 200:
                pages[key] = began, bytes(made.body), dict(made.headers)
                _bound(pages)
            return made

    def forget(self) -> None:
        """Somebody has changed something: a page that begins from now on shows it."""
        self._pages = {}  # A page under way still goes into the old ones.

    def _found(self, key: Hashable) -> Response | None:
        found = self._pages.get(key)
        if found is None or monotonic() - found[0] > _LATELY:
            return None
        return Response(found[1], headers=found[2])


def _bound(pages: dict[Hashable, _Page]) -> None:
    """Drop the pages that are too old, and the oldest until the others have room."""
    now = monotonic()
    for key in [key for key, (began, _, _) in pages.items() if now - began > _LATELY]:
        del pages[key]
    while sum(len(body) for _, body, _ in pages.values()) > _MOST:
        del pages[next(iter(pages))]
