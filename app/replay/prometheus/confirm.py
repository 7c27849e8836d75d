"""What Prometheus would have answered to a `confirm`: the same query, as of then."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from app.decide.state import Confirmation
from app.groups.prometheus import Outcome, judge
from app.kit.errors import TargetError, Unreachable
from app.policy.confirm import Confirm
from app.policy.language.promql import render_query
from app.replay.prometheus.api import PrometheusApi

MOST: Final = 20_000  # questions of one report
FAILURES: Final = 3  # in a row: Prometheus has gone away


class Confirms:
    """Answers a question about a group. None: Prometheus has nothing of then, or gives no answer."""

    def __init__(
        self, api: PrometheusApi, covers: tuple[datetime, datetime], holes: Sequence[tuple[datetime, datetime]]
    ) -> None:
        self._api, self._covers, self._holes = api, covers, holes
        self._known: dict[tuple[str, datetime], Confirmation | None] = {}
        self._failures = 0

    def __call__(self, confirm: Confirm, group: Mapping[str, str], at: datetime) -> Confirmation | None:
        since, until = self._covers
        if not since <= at <= until or any(begin <= at < end for begin, end in self._holes):
            return None
        query, moment = render_query(confirm.query, group), at.replace(microsecond=0)
        key = query, moment
        if key not in self._known:
            self._known[key] = self._ask(query, moment)
        return self._known[key]

    def _ask(self, query: str, moment: datetime) -> Confirmation | None:
        if self._failures >= FAILURES or len(self._known) >= MOST:
            return None
        try:
            answer = self._api.at(query, moment)
        except TargetError as error:
            self._failures += isinstance(error, Unreachable)
            return None
        self._failures = 0
        outcome, detail = judge(answer.status, answer.body, query, moment, answer.quote)
        return None if outcome is Outcome.ERROR else Confirmation(outcome is Outcome.YES, detail)
