"""Does Prometheus confirm a fire? One instant query, and what each kind of answer means.

Source of the shapes: Prometheus' HTTP API, `GET /api/v1/query`.
"""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.decide.state import Confirmation
from app.kit.clock import Clock
from app.kit.errors import TargetError
from app.kit.http import Http
from app.policy.access import access_of
from app.policy.confirm import Confirm
from app.policy.language.promql import compares_to_bool

#: An answer whose time is further from now counts as no answer: it comes from a cache, or a clock is wrong.
STALE: Final = timedelta(minutes=5)


class Outcome(StrEnum):
    """How a question to Prometheus ended; the label of the metric."""

    YES = "confirmed"
    NO = "unconfirmed"
    ERROR = "error"


class Prometheus:
    """`ask` never raises: without an answer, `on_error` of the policy decides."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def ask(self, confirm: Confirm, query: str) -> tuple[Outcome, Confirmation]:
        """Ask one query. It takes `Http.longest` at most."""
        try:
            http = self._http.using(access_of(confirm))
            answer = await http.request("GET", f"{confirm.prometheus}/api/v1/query", params={"query": query})
            outcome, detail = judge(answer.status, answer.body, query, self._clock.now(), answer.quote)
        except TargetError as error:
            outcome, detail = Outcome.ERROR, error.detail
        if outcome is Outcome.ERROR:
            fires = confirm.on_error == "fire"
            detail = f"no answer from Prometheus ({detail}), and on_error is {confirm.on_error}"
            return outcome, Confirmation(fires, detail, answered=False)
        return outcome, Confirmation(outcome is Outcome.YES, detail)


def judge(status: int, body: Any, query: str, now: datetime, quote: Callable[[str], str] = str) -> tuple[Outcome, str]:
    """What an answer means, and in one sentence why. A vector means yes when it has a sample that is a number, as for an
    alerting rule. A scalar, and a vector of a `bool` comparison, mean yes when a value is not 0. `quote` leaves out words of
    Prometheus that repeat a secret."""
    if status != 200 or not isinstance(body, dict) or body.get("status") != "success":
        error = body.get("error") if isinstance(body, dict) else None
        hint = ": check auth and headers of confirm in the policy" if status in {401, 403} else ""
        return Outcome.ERROR, f"it answered {status}{f': {quote(str(error))[:200]}' if error else hint}"
    try:
        kind, result = body["data"]["resultType"], body["data"]["result"]
        samples = [result] if kind == "scalar" else [item["value"] for item in result] if kind == "vector" else None
        if samples is None:
            return Outcome.ERROR, f"the query has the type {str(kind)[:20]}; it must be a vector or a scalar"
        values = [(float(at), float(text)) for at, text in samples]
        late = any(not abs(at - now.timestamp()) <= STALE.total_seconds() for at, _ in values)
    except (KeyError, TypeError, ValueError):
        return Outcome.ERROR, "its answer is no vector and no scalar of numbers"
    if late:
        return Outcome.ERROR, "its answer is of another time, more than 5m from now"
    if not values:
        return Outcome.NO, "not confirmed by Prometheus: no series satisfies the query"
    numbers = [value for _, value in values if not math.isnan(value)]
    if not numbers:
        return Outcome.NO, "not confirmed by Prometheus: the value is not a number"
    zero_is_no = kind == "scalar" or compares_to_bool(query)
    yes = [value for value in numbers if value or not zero_is_no]
    if not yes:
        return Outcome.NO, "not confirmed by Prometheus: the value is 0"
    return Outcome.YES, f"confirmed by Prometheus: {yes[0]:g}"
