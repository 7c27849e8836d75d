"""From a template to an answer, and the errors of pages as pages. Templates escape everything that they are given.

The addresses on a page are relative, so that the pages also work below a path prefix of a proxy.
"""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import __version__
from app.explain.sentences import missing
from app.kit.links import page
from app.kit.loop import in_turns
from app.kit.times import iso
from app.kit.visible import unturned
from app.ui import lane
from app.ui.access import Visitor, known_visitor, sent_by
from app.ui.service import services_of
from app.web.problems import sentence

_HERE: Final = Path(__file__).parent
STYLE: Final = (_HERE / "static" / "style.css").read_text(encoding="utf-8")
ICON: Final = (_HERE / "static" / "icon.svg").read_text(encoding="utf-8")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?Z?")
_PIECES: Final = 64  # of a page, which are made before others may get their turns
_STYLE_HASH: Final = hashlib.sha256(STYLE.encode()).hexdigest()[:12]

#: For every page. A page shows only what comes from here, runs no script, and is shown in no frame.
SAFE: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer` a browser hides also the origin of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_ENDED: Final = "Your session has ended, so nothing was done. What you wrote is kept: log in, and look at it once more."
#: The statuses that pass by themselves.
_PASSING: Final = (429, 500, 503)
#: What a person does about a problem, by its code. Some say it in their own sentence.
_ADVICE: Final = {
    "forbidden": "Ask whoever runs the gateway for a token that may do this, and log in with it.",
    "not_found": "An old link may lead to what has been deleted since. Look for the group on the fleet.",
    "too_large": "Go back, and send less.",
    "invalid": "Correct the address, or go back and correct what you sent.",
    "rate_limited": "Wait for so long, then try again.",
    "internal": "Try again. If it fails again, report it with its error id.",
    "unavailable": "Try again in a few seconds. If it goes on, look at the database and into the log of the gateway.",
}


class PageRoute(APIRoute):
    """A route of a page. A browser gets an error as a page, and is led to the login when it has no session."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                answer = await handle(request)
            except Exception as error:
                answer = await _answer_of(request, error)
            if (cookie := getattr(request.state, "cookie", None)) is not None:
                answer.headers.append("Set-Cookie", cookie)
            return answer

        return handled


async def _answer_of(request: Request, error: Exception) -> Response:
    """What the application answers to this error; as a page for a browser."""
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    try:
        answer: Response = await handler(request, error)
    except Exception as bug:  # Not what the handler is for: our own statement cannot be right.
        answer = await handlers[Exception](request, bug)
    if not wants_page(request) or answer.status_code < 400:
        return answer
    if answer.status_code == 401:
        return await _to_login(request)
    problem = json.loads(bytes(answer.body))
    values = {
        "problem": problem,
        "where": inside(request, getattr(error, "page", None)),
        "advice": _ADVICE.get(problem["code"]),
        "passes": answer.status_code in _PASSING,
        "again": request.url.query if request.method == "GET" else None,
        "sent": await sent_by(request),
    }
    shown = await render(request, known_visitor(request), "problem.html", answer.status_code, **values)
    for name in ("Retry-After", "Allow"):
        if (value := answer.headers.get(name)) is not None:
            shown.headers[name] = value
    return shown


async def _to_login(request: Request) -> Response:
    if request.method == "GET" and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        # After a link from elsewhere a browser keeps the session's cookie back. It sends the cookie when our own page asks.
        return await render(request, None, "moment.html", 200, again=request.url.query)
    if request.method == "GET":
        return see(request, "login", next=_own_address(request))
    if not (sent := await sent_by(request)):
        return see(request, "login")
    return await login_page(request, _own_address(request), _ENDED, 403, sent)


async def login_page(
    request: Request, wanted: str, fault: str | None = None, status: int = 200, sent: Mapping[str, str] | None = None
) -> Response:
    """The form of the login, which leads to the page `wanted`; empty: to the fleet. `sent` is what a person had filled into
    another form. It goes on to that page, in no address."""
    form = await services_of(request).sessions.open_form()
    values: dict[str, Any] = {"fault": fault, "wanted": wanted, "form": form, "sent": sent or {}}
    return await render(request, None, "login.html", status, **values)


def wants_page(request: Request) -> bool:
    """Whether a browser asks."""
    return "text/html" in request.headers.get("accept", "")


def see(request: Request, *path: str, **query: Any) -> RedirectResponse:
    """Lead a browser to a page, with GET."""
    return RedirectResponse(address(request, *path, **query), 303, headers={"Cache-Control": "no-store"})


def see_inside(request: Request, wanted: str, *, status: int = 303) -> RedirectResponse:
    """Lead a browser to the page that it has named: `/ui` and what follows. With 307 it sends its form there, too."""
    return RedirectResponse(f"{_up(request)}{wanted.lstrip('/')}", status, headers={"Cache-Control": "no-store"})


def address(request: Request, *path: str, **query: Any) -> str:
    """The relative address of a page; without `path` of the fleet. Values that are None are left out."""
    return f"{_up(request)}{page(*path, **query)[1:]}"


def _up(request: Request) -> str:
    """The way from the page that is asked for to the root: `../` for each folder in between."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.partition(b"?")[0].removeprefix(request.scope.get("root_path", "").encode())
    return "../" * (path.count(b"/") - 1)


def _own_address(request: Request) -> str:
    """Path and query of the page that is asked for, from `/ui` on."""
    query = request.scope["query_string"].decode("latin-1")
    return quote(request.scope["path"], safe="/:@") + (f"?{query}" if query else "")


async def render(
    request: Request, visitor: Visitor | None, template: str, status: int = 200, /, **values: Any
) -> HTMLResponse:
    """A page. Without a visitor it shows no navigation. While it is made, other requests get their turns."""
    services = services_of(request)
    now, up = services.core.clock.now(), _up(request)
    shared: dict[str, Any] = {
        "visitor": visitor,
        "now": now,
        "gateway": services.name,
        "version": __version__,
        "style": f"{up}ui/style.css?{urlencode({'v': _STYLE_HASH})}",
        "icon": f"{up}ui/icon.svg",
        "docs": f"{up}docs",
        "inside": lambda link: inside(request, link),
        "to": lambda *path, **query: f"{up}{page(*path, **query)[1:]}",
    }
    pieces = _environment().get_template(template).generate(shared | values)
    some = iter(lambda: list(islice(pieces, _PIECES)), [])
    return HTMLResponse("".join(["".join(each) async for each in in_turns(some)]), status, headers=SAFE)


def inside(request: Request, link: str | None) -> str:
    """The relative address of the page that an incident or a problem names; empty: none. Older incidents name a call of the
    API."""
    for api, shown in (("/api/v1/explain/", "/ui/triggers/"), ("/api/v1/deadman/", "/ui/switches/")):
        link = shown + link.removeprefix(api) if link and link.startswith(api) else link
    return _up(request) + link.removeprefix("/") if link and link.startswith("/ui/") else ""


@lru_cache(1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"utc": utc, "iso": iso, "away": away, "short": short, "words": words, "named": named}
    made.filters |= {"lasting": lasting, "code": code, "pretty": pretty, "plain": plain, "missing": missing}
    made.filters |= {"times": times, "sentence": sentence}
    made.globals |= {"lane": lane.drawn, "spoken": lane.spoken}
    return made


# Filters of the templates.


def utc(time: datetime) -> Markup:
    """A time for people, to the minute, on one line."""
    return Markup(f'<span class="at">{time:%Y-%m-%d %H:%M} UTC</span>')


def away(time: datetime, now: datetime) -> str:
    """How far away a time is, in its two largest units: `in 3h 20m`, `2d 4h ago`."""
    apart = abs(time - now)
    parts = _parts(apart)
    if not parts:
        return "now"
    return f"in {parts}" if time > now else f"{parts} ago"


def lasting(time: timedelta) -> str:
    """How long something took, in its two largest units."""
    return _parts(time) or "less than a minute"


def _parts(apart: timedelta) -> str:
    minutes = round(apart.total_seconds() / 60)
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    shown = [f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (rest, "m")) if number]
    return " ".join(shown[:2]) if days < 10 else f"{days}d"


def short(text: str, most: int = 80) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plain(text: str, most: int = 80) -> str:
    """The beginning of a sentence that has words from outside in it."""
    return short(unturned(text), most)


def times(text: str) -> Markup:
    """Escaped, and each time in it on one line: a browser would break it at its hyphens."""
    return Markup(_TIME.sub(r'<span class="at">\g<0></span>', str(escape(text))))


def code(text: str) -> Markup:
    """Like `times`, and what stands in backticks as code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # A backtick of somebody else: nothing is code.
        return times(text)
    shown = [Markup("<code>{}</code>").format(part) if n % 2 else times(part) for n, part in enumerate(parts)]
    return Markup("").join(shown)


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def words(text: str) -> str:
    """A name of the API as words."""
    return text.replace("_", " ")


def named(labels: Mapping[str, str]) -> str:
    """A group in one line."""
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "the whole route"
