"""Histories in one line each, for the tests of replays."""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from app.policy.schema import Policy
from app.replay.backtest import Question, Report, backtest
from app.replay.history import History
from app.replay.lines import read_lines
from tests.unit.builders import HOUR, MINUTE, NOW

LENGTH = 40 * MINUTE


def line(after: timedelta, source: str, body: Any) -> str:
    """One line of a history, so long after its beginning."""
    return json.dumps({"at": (NOW + after).isoformat(), "source": source, "body": body})


def alert(
    model: str, began: timedelta, ended: timedelta | None = None, name: str = "ModelAccuracyLow"
) -> dict[str, Any]:
    """One alert of a body of Alertmanager."""
    return {
        "status": "firing" if ended is None else "resolved",
        "labels": {"alertname": name, "severity": "critical", "model": model},
        "annotations": {},
        "startsAt": (NOW + began).isoformat(),
        "endsAt": (NOW + ended).isoformat() if ended is not None else "0001-01-01T00:00:00Z",
        "fingerprint": f"{name}-{model}",
    }


def posted(after: timedelta, *alerts: dict[str, Any]) -> str:
    """A notification of Alertmanager."""
    return line(after, "alertmanager", {"version": "4", "alerts": list(alerts)})


def fires(model: str, began: timedelta, ended: timedelta, every: timedelta = 4 * HOUR) -> list[str]:
    """An alert from its beginning to its end, repeated as Alertmanager does."""
    at, lines = began, []
    while at < ended:
        lines.append(posted(at, alert(model, began)))
        at += every
    return [*lines, posted(ended, alert(model, began, ended))]


def read(lines: Iterable[str], *policies: Policy) -> History:
    sources = {source.name: source for known in policies for source in known.sources}
    return read_lines((text.encode() for text in lines), sources)


def answer(lines: Sequence[str], now: Policy | None, proposed: Policy, **more: Any) -> Report:
    """The report on a history; a run takes 40 minutes unless `more` says otherwise."""
    return backtest(read(lines), Question(**{"proposed": proposed, "now": now, "length": LENGTH, **more}))
