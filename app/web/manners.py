"""What HTTP asks of every path, whichever route it has: a Host that can be read, HEAD, and OPTIONS (RFC 9110).

A new route gets all of it without a line of its own.
"""

import ipaddress
import re
from functools import lru_cache

from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import Problem
from app.web.problems import problem_answer

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_LONGEST_HOST = 300  # characters, with a port; a longer name would also be a large key of the cache
# RFC 3986, 3.2.2: an IP literal in brackets, or a registered name; then perhaps a port.
_HOST = re.compile(
    r"(?:\[(?P<literal>[^\]\s]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::(?P<port>[0-9]{0,5}))?"
)


class Manners:
    """ASGI middleware. A bad Host is answered 400. HEAD is answered as GET without its body, and OPTIONS with `Allow`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if fault := _host_fault(scope):
            bad = problem_answer(Problem(400, "bad_request", fault), scope["path"])
            return await bad(scope, receive, send)
        if scope["method"] == "HEAD":
            # The server below keeps the scope that it made, and so knows that this answer has no body.
            return await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        if scope["method"] == "OPTIONS" and (methods := allow(scope)) and not _takes(scope, "OPTIONS"):
            return await Response(headers={"Allow": methods})(scope, receive, send)
        return await self._app(scope, receive, send)


def allow(scope: Scope) -> str:
    """The value of an `Allow` header: every method of this path. Empty when no route has the path."""
    taken = [method for method in _METHODS if _takes(scope, method)]
    return ", ".join((*taken, *(["HEAD"] if "GET" in taken else []), "OPTIONS")) if taken else ""


def _takes(scope: Scope, method: str) -> bool:
    """Whether a route takes `method` on the path of this request."""
    # A scope of its own: the one of the request may hold what an earlier match left in it.
    asked = {"type": "http", "method": method, "path": scope["path"], "root_path": scope.get("root_path", "")}
    return any(route.matches({**asked, "headers": []})[0] is Match.FULL for route in scope["app"].router.routes)


def _without_body(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent


def _host_fault(scope: Scope) -> str:
    """What is wrong with the Host of a request, as a sentence; empty when nothing is (RFC 9112, 3.2)."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) == 1:
        return (
            "" if is_host(hosts[0].decode("latin-1")) else "The Host header is not a host name or address with a port."
        )
    if not hosts and scope.get("http_version", "1.1") == "1.0":
        return ""
    return f"A request has one Host header; this one has {len(hosts)}."


def is_host(value: str) -> bool:
    """Whether this is a host and perhaps a port, as in a URL. A name of DNS has 253 characters at most."""
    return len(value) <= _LONGEST_HOST and _is_host(value)


@lru_cache(256)  # Senders use the same few names all day.
def _is_host(value: str) -> bool:
    found = _HOST.fullmatch(value)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    try:
        ipaddress.IPv6Address(found["literal"] or "::")
    except ValueError:
        return False
    return True
