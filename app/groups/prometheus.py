"""Does Prometheus confirm a fire? One instant query, and what each kind of answer means.

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

#: An answer about another time than this around now is as good as none: a cache, or a clock that is wrong.
STALE: Final = timedelta(minutes=5)


class Said(StrEnum):
    """What came of a question; the metric's label."""

    YES = "confirmed"
    NO = "unconfirmed"
    ERROR = "error"


class Prometheus:
    """`ask` never raises: no answer is an answer, by `on_error`."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def ask(self, confirm: Confirm, query: str) -> tuple[Said, Confirmation]:
        """One question; takes `Http.longest` at most."""
        try:
            answer = await self._http.request("GET", f"{confirm.prometheus}/api/v1/query", params={"query": query})
            said, detail = judge(answer.status, answer.body, query, self._clock.now())
        except TargetError as error:
            said, detail = Said.ERROR, error.detail
        if said is Said.ERROR:
            fires = confirm.on_error == "fire"
            return said, Confirmation(fires, f"no answer of Prometheus ({detail}), and on_error is {confirm.on_error}")
        return said, Confirmation(said is Said.YES, detail)


def judge(status: int, body: Any, query: str, now: datetime) -> tuple[Said, str]:
    """What an answer says, and in one sentence why. A vector says yes when it has a sample that is a number, as an alerting
    rule would fire; a scalar, and a vector of a `bool` comparison, when one is not 0."""
    if status != 200 or not isinstance(body, dict) or body.get("status") != "success":
        told = body.get("error") if isinstance(body, dict) else None
        return Said.ERROR, f"it answered {status}{f': {str(told)[:200]}' if told else ''}"
    try:
        kind, result = body["data"]["resultType"], body["data"]["result"]
        samples = [result] if kind == "scalar" else [item["value"] for item in result] if kind == "vector" else None
        if samples is None:
            return Said.ERROR, f"the query has the type {str(kind)[:20]}; it must be a vector or a scalar"
        values = [(float(at), float(text)) for at, text in samples]
        late = any(not abs(at - now.timestamp()) <= STALE.total_seconds() for at, _ in values)
    except (KeyError, TypeError, ValueError):
        return Said.ERROR, "what it answered is no vector and no scalar of numbers"
    if late:
        return Said.ERROR, "its answer is of another time, more than 5m from now"
    if not values:
        return Said.NO, "not confirmed by Prometheus: no series satisfies the query"
    numbers = [value for _, value in values if not math.isnan(value)]
    if not numbers:
        return Said.NO, "not confirmed by Prometheus: the value is not a number"
    zero_is_no = kind == "scalar" or compares_to_bool(query)
    yes = [value for value in numbers if value or not zero_is_no]
    if not yes:
        return Said.NO, "not confirmed by Prometheus: the value is 0"
    return Said.YES, f"confirmed by Prometheus: {yes[0]:g}"
