"""What Prometheus knows of the past: range queries in chunks, and instant queries as of then.

Source: Prometheus' HTTP API, `/api/v1/query_range` and `/api/v1/query`.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import yaml

from app.kit.access import Access
from app.kit.errors import GatewayError, Refused, TargetError, Unreachable, UsageError
from app.kit.http import Answer, Transport, open_http

MOST_POINTS: Final = 10_800  # of one range query; Prometheus refuses more than 11,000
FEWEST_POINTS: Final = 60  # a smaller chunk is not tried
LARGEST: Final = 16 * 1024 * 1024  # bytes of an answer
MOST_WARNINGS: Final = 3  # of an answer
LONGEST: Final = 60.0  # seconds without a byte of it

#: Prometheus has no room or no time for the query, or something before it has not: a smaller one may do.
_TOO_MUCH: Final = frozenset({422, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Window:
    """Moments from `since` to `until`, both included, each `step`."""

    since: datetime
    until: datetime
    step: timedelta

    @property
    def points(self) -> int:
        return (self.until - self.since) // self.step + 1


@dataclass(frozen=True, slots=True)
class Samples:
    """The moments at which a series of an answer has a value, in seconds since 1970."""

    labels: dict[str, str]
    times: list[float]


class PrometheusApi:
    """One Prometheus, asked from a command. Every request ends in time, and every answer has a bound."""

    def __init__(self, url: str, access: Access | None = None, transport: Transport | None = None) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self._whole = open_http(read=LONGEST, largest=LARGEST, transport=transport)
        self._http = self._whole.using(access or Access())
        self._points = MOST_POINTS
        self.warnings: dict[str, None] = {}  # in which Prometheus says that an answer is not whole

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._whole.aclose())
        self._runner.close()

    def series(
        self, query: str, window: Window, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Iterator[Samples]:
        """The series of a query, chunk by chunk: the same series comes once in each. A chunk that is too large is halved,
        and later ones are as small. Raises GatewayError, and UsageError when the address or the login is wrong."""
        done = 0
        while done < window.points:
            points = min(self._points, window.points - done)
            begin = window.since + done * window.step
            end = begin + (points - 1) * window.step
            times = {"start": begin.timestamp(), "end": end.timestamp(), "step": window.step.total_seconds()}
            try:
                found = self._ask("query_range", {"query": query, **{key: _text(at) for key, at in times.items()}})
            except _TooMuch as error:
                if points // 2 < FEWEST_POINTS:
                    raise GatewayError(f"{error}, even for {points} points: choose a longer --step") from None
                self._points = points // 2
                continue
            yield from _series(found, begin - window.step, end + window.step, self.url)
            done += points
            progress(done, window.points)

    def config(self) -> dict[str, Any] | None:
        """The configuration of Prometheus; None: it does not show it."""
        try:
            answer = self._send("status/config", {})
            found = yaml.load(answer.body["data"]["yaml"], yaml.CSafeLoader) if answer.status == 200 else None
        except (TargetError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def at(self, query: str, moment: datetime) -> Answer:
        """The answer to an instant query as of then, whatever its status is. Raises TargetError."""
        return self._send("query", {"query": query, "time": _text(moment.timestamp())})

    def _send(self, call: str, parameters: dict[str, str]) -> Answer:
        return self._runner.run(self._http.request("GET", f"{self.url}/api/v1/{call}", params=parameters))

    def _ask(self, call: str, parameters: dict[str, str]) -> Any:
        try:
            answer = self._send(call, parameters)
        except Unreachable as error:
            if error.code == "timeout":
                raise _TooMuch(f"Prometheus at {self.url} does not answer in time") from None
            raise GatewayError(
                f"Prometheus at {self.url} does not answer: {error.detail}. Start it, or correct --prometheus"
            ) from None
        except Refused as error:
            if error.code == "answer_too_large":
                raise _TooMuch(f"Prometheus at {self.url} has too much to say") from None
            raise UsageError(f"Prometheus at {self.url}: {error.detail}") from None
        except TargetError as error:
            raise UsageError(f"Prometheus at {self.url}: {error.detail}. Correct --prometheus") from None
        found = self._good(answer)
        warnings = found.get("warnings")
        for words in warnings[:MOST_WARNINGS] if isinstance(warnings, list) else []:
            self.warnings[answer.quote(str(words)[:200])] = None
        return found.get("data")

    def _good(self, answer: Answer) -> dict[str, Any]:
        body = answer.body
        words = answer.quote(str(body.get("error", ""))[:200]) if isinstance(body, dict) else ""
        why = f" ({words})" if words else ""
        if answer.status in (401, 403):
            raise UsageError(f"Prometheus at {self.url} refuses the login with {answer.status}{why}: see --login")
        if answer.status in _TOO_MUCH:
            raise _TooMuch(f"Prometheus at {self.url} cannot answer the query{why or f', {answer.status}'}")
        if isinstance(body, dict) and body.get("status") == "error":
            raise GatewayError(f"Prometheus at {self.url} refuses the query with {answer.status}{why}")
        if 300 <= answer.status < 400:
            raise UsageError(f"the server at {self.url} redirects: give --prometheus the address to which it leads")
        if answer.status != 200 or not isinstance(body, dict) or body.get("status") != "success":
            kind = answer.headers.get("content-type", "no content type").partition(";")[0][:60]
            raise UsageError(
                f"the server at {self.url} is no Prometheus: it answered {answer.status} with {kind}. Give --prometheus the "
                "address without /api"
            )
        return body


class _TooMuch(Exception):
    """A smaller query may be answered."""


def _series(data: Any, begin: datetime, end: datetime, url: str) -> list[Samples]:
    """The series of an answer. Raises GatewayError when it is none, or of another time."""
    first, last = begin.timestamp(), end.timestamp()
    try:
        if data["resultType"] != "matrix":
            raise TypeError
        found = [
            Samples({str(k): str(v) for k, v in item["metric"].items()}, sorted(float(at) for at, _ in item["values"]))
            for item in data["result"]
        ]
        if not all(first <= at <= last for samples in found for at in samples.times):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise GatewayError(f"the server at {url} answers a range query with something else than series") from None
    return found


def _text(seconds: float) -> str:
    return f"{seconds:.3f}"
