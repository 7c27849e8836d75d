"""Drift episodes: alerts of one group that overlap, or follow each other within `watch`. Pure.

The effect of a retrain, GET /api/v1/episodes, the page of a group and the backtest count by these functions. (In
`state.py` an episode is one alert.)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert of the group, by our clock. `end`: when its end was heard; None: it fires, or its end was never heard.
    `closed`: it no longer fires, whether or not its end was heard. `heard`: its newest notification. `replaced`: the same
    alert began anew later."""

    alert_id: str
    begin: datetime
    end: datetime | None
    heard: datetime
    closed: datetime | None = None
    id: str = ""
    severity: str = ""
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Drift:
    """One episode. `end` None: it goes on."""

    begin: datetime
    end: datetime | None
    firings: tuple[Firing, ...]

    @property
    def severity(self) -> str:
        """The worst of its alerts."""
        return min((firing.severity for firing in self.firings), key=_rank)

    def holds(self, moment: datetime) -> bool:
        """Whether a moment is in it."""
        return self.begin <= moment and (self.end is None or moment <= self.end)


#: Severities that people use, the worst first. Any other text comes after them.
WORST_FIRST: Final = ("critical", "page", "error", "high", "warning", "warn", "medium", "low", "info")


def _rank(severity: str) -> int:
    known = severity.lower()
    return WORST_FIRST.index(known) if known in WORST_FIRST else len(WORST_FIRST)


def follows(end: datetime, begin: datetime, watch: timedelta) -> bool:
    """Whether what begins then still belongs to what ended before."""
    return begin <= end + watch


def was_open(firing: Firing, moment: datetime) -> bool:
    """Whether an alert had not ended at a moment after its beginning."""
    return firing.closed is None or firing.closed > moment


def quiet_since(firing: Firing, stale_after: timedelta, now: datetime) -> datetime | None:
    """Since when an alert does not fire: from its end, or from when it went stale. None: it fires."""
    if firing.end is not None:
        return firing.end
    stale = firing.heard + stale_after
    if firing.closed is not None:
        return min(firing.closed, stale)
    return stale if now > stale else None


def drifts(firings: Iterable[Firing], watch: timedelta, stale_after: timedelta, now: datetime) -> list[Drift]:
    """The episodes of one group, the oldest first. Each alert is in exactly one."""
    found: list[Drift] = []
    mine: list[Firing] = []  # of the newest episode, which ends `over`
    over: datetime | None = None
    for firing in sorted(firings, key=lambda each: (each.begin, each.id)):
        end = quiet_since(firing, stale_after, now)
        if mine and over is not None and not follows(over, firing.begin, watch):
            found.append(Drift(mine[0].begin, over, tuple(mine)))
            mine = []
        later = max(over, end) if over is not None and end is not None else None
        over = later if mine else end
        mine.append(firing)
    return [*found, Drift(mine[0].begin, over, tuple(mine))] if mine else found
