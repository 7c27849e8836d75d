"""What a network and a server can do to a request; the fakes of other people's servers share these.

A `Fault` is one way to go wrong, `Faults` the script of what goes wrong when. Nothing here takes real time: a timeout
is raised at once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import httpx

Lost = Literal["refused", "timeout", "dropped"]


@dataclass(frozen=True)
class Call:
    """One request as it came in. `op` is the name of what it asks for; `body` is parsed JSON, or text if it is none."""

    op: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer: a dict or a list goes out as JSON, a str as it is, with the content type of `headers`."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def raw(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and bytes."""
        if isinstance(self.body, str):
            return self.status, {"content-type": "text/plain", **self.headers}, self.body.encode()
        return self.status, {"content-type": "application/json", **self.headers}, json.dumps(self.body).encode()


@dataclass(frozen=True)
class Seen:
    """One request for the record. `status` is what the server answered, None when the request never reached it; what
    the sender saw may be something else (a timeout after the commit has status 200 here)."""

    call: Call
    status: int | None
    at: datetime


@dataclass(frozen=True)
class Fault:
    """One way to go wrong. `reaches`: whether the server handles the request ("late": when the test calls `land`)."""

    lost: Lost | None = None
    reply: Reply | None = None
    reaches: Literal["never", "now", "late"] = "never"
    action: Callable[[], None] | None = None


class LostError(Exception):
    """The sender gets no answer."""

    def __init__(self, how: Lost) -> None:
        super().__init__(how)
        self.how = how

    def as_httpx(self, request: httpx.Request) -> httpx.TransportError:
        """What httpx raises for it."""
        match self.how:
            case "refused":
                return httpx.ConnectError("All connection attempts failed", request=request)
            case "timeout":
                return httpx.ReadTimeout("", request=request)
        return httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)


def refuse() -> Fault:
    """Nobody listens: the connection is refused."""
    return Fault(lost="refused")


def timeout(*, after_commit: bool = False) -> Fault:
    """No answer in time; the server has, or has not, done what was asked."""
    return Fault(lost="timeout", reaches="now" if after_commit else "never")


def limbo() -> Fault:
    """No answer in time, and the server does what was asked only later, when the test calls `land()`."""
    return Fault(lost="timeout", reaches="late")


def drop(*, after_commit: bool = False) -> Fault:
    """The connection breaks before an answer; the server has, or has not, done what was asked."""
    return Fault(lost="dropped", reaches="now" if after_commit else "never")


def answer(
    status: int, body: Any = None, *, after_commit: bool = False, headers: Mapping[str, str] | None = None
) -> Fault:
    """Any other answer (500, 503, ...) instead of, or after, what was asked."""
    body = {"detail": "Internal Server Error"} if body is None else body
    return Fault(reply=Reply(status, body, headers or {}), reaches="now" if after_commit else "never")


def busy(retry_after: int | str = 7) -> Fault:
    """429 from a proxy that limits rates; `retry_after` is seconds or an HTTP date."""
    return answer(429, "Too Many Requests", headers={"retry-after": str(retry_after)})


def page(status: int = 200) -> Fault:
    """A web page: a login form of a proxy, a captive portal, a wrong address."""
    return answer(status, "<!doctype html><title>Sign in</title>", headers={"content-type": "text/html; charset=utf-8"})


def redirect(location: str, status: int = 302) -> Fault:
    """A redirect elsewhere."""
    return answer(status, "", headers={"location": location})


def meanwhile(action: Callable[[], None]) -> Fault:
    """Nothing goes wrong on the way, but `action` happens just before the request arrives (a token is revoked, ...)."""
    return Fault(reaches="now", action=action)


On = str | Callable[[Call], bool] | None


@dataclass
class _Rule:
    fault: Fault
    on: On
    left: int | None


class Faults:
    """The script: rules in the order they were added; the first that matches a request and is not used up applies."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(self, fault: Fault, on: On, times: int | None) -> None:
        """`on`: the name of an operation, a predicate, or None for every request; `times`: None for ever."""
        self._rules.append(_Rule(fault, on, times))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._rules.clear()

    @property
    def pending(self) -> int:
        """How many rules still wait for their request (those for ever count as well)."""
        return sum(1 for rule in self._rules if rule.left is None or rule.left > 0)

    def take(self, call: Call) -> Fault | None:
        """What goes wrong with this request, used up by asking."""
        for rule in self._rules:
            if rule.left == 0 or not _matches(rule.on, call):
                continue
            if rule.left is not None:
                rule.left -= 1
            return rule.fault
        return None


def _matches(on: On, call: Call) -> bool:
    if on is None:
        return True
    return call.op == on if isinstance(on, str) else on(call)
