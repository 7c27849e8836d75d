"""Does Prometheus confirm a fire? One instant query, and the meaning of each kind of answer. Its words decide nothing.

Source of the shapes: Prometheus' HTTP API, `GET /api/v1/query`.
"""

import math
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.decide.state import Confirmation
from app.kit.clock import Clock
from app.kit.errors import TargetError
from app.kit.http import Http
from app.policy.confirm import Confirm
from app.policy.language.promql import compares_to_bool

#: An answer for a time further than this from now does not count: it is from a cache, or a clock is wrong.
STALE: Final = timedelta(minutes=5)


class Result(StrEnum):
    """The result of a question, which is a label of the metric too."""

    YES = "confirmed"
    NO = "unconfirmed"
    ERROR = "error"


class Prometheus:
    """`ask` never raises: without an answer `on_error` decides."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def ask(self, confirm: Confirm, query: str) -> tuple[Result, Confirmation]:
        """One question; takes `Http.longest` at most."""
        try:
            answer = await self._http.request("GET", f"{confirm.prometheus}/api/v1/query", params={"query": query})
            result, detail = judge(answer.status, answer.body, query, self._clock.now())
        except TargetError as error:
            result, detail = Result.ERROR, error.detail
        if result is Result.ERROR:
            fires = confirm.on_error == "fire"
            return result, Confirmation(
                fires, f"no answer of Prometheus ({detail}), and on_error is {confirm.on_error}"
            )
        return result, Confirmation(result is Result.YES, detail)


def judge(status: int, body: Any, query: str, now: datetime) -> tuple[Result, str]:
    """The result of an answer, and one sentence that says why. A vector says yes when it has a sample that is a number, as
    an alerting rule would fire. A scalar, and a vector of a `bool` comparison, say yes when a value is not 0."""
    if status != 200 or not isinstance(body, dict) or body.get("status") != "success":
        words = body.get("error") if isinstance(body, dict) else None
        return Result.ERROR, f"it answered {status}{f': {str(words)[:200]}' if words else ''}"
    try:
        kind, result = body["data"]["resultType"], body["data"]["result"]
        samples = [result] if kind == "scalar" else [item["value"] for item in result] if kind == "vector" else None
        if samples is None:
            return Result.ERROR, f"the query has the type {str(kind)[:20]}; it must be a vector or a scalar"
        values = [(float(at), float(text)) for at, text in samples]
        late = any(not abs(at - now.timestamp()) <= STALE.total_seconds() for at, _ in values)
    except (KeyError, TypeError, ValueError):
        return Result.ERROR, "what it answered is no vector and no scalar of numbers"
    if late:
        return Result.ERROR, "its answer is of another time, more than 5m from now"
    if not values:
        return Result.NO, "not confirmed by Prometheus: no series satisfies the query"
    numbers = [value for _, value in values if not math.isnan(value)]
    if not numbers:
        return Result.NO, "not confirmed by Prometheus: the value is not a number"
    zero_is_no = kind == "scalar" or compares_to_bool(query)
    yes = [value for value in numbers if value or not zero_is_no]
    if not yes:
        return Result.NO, "not confirmed by Prometheus: the value is 0"
    return Result.YES, f"confirmed by Prometheus: {yes[0]:g}"
