"""The addresses of the gateway's pages: in notices, in problems, on the pages and in what commands print. Pure."""

from typing import Any
from urllib.parse import quote, urlencode


def page(*path: str, **query: Any) -> str:
    """The path of a page from the gateway's root on, such as `/ui/triggers/<id>`; without `path` the fleet's. Values of the
    query that are None or empty are left out."""
    kept = {name: value for name, value in query.items() if value not in (None, "")}
    below = "/".join(("/ui", *(quote(part, safe="") for part in path)))
    return f"{below}?{urlencode(kept, doseq=True)}" if kept else below


def whole(base: str | None, link: str | None) -> str | None:
    """The full address of a path below `base`. None without a base: a bare path leads nowhere. A full address stays."""
    if link is None or not link.startswith("/"):
        return link
    return f"{base.rstrip('/')}{link}" if base else None
