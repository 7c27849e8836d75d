"""The parts of a batch: equal notifications in a row are one fold, and a whole fold gets the same answers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic_core import to_json

from app.decide.alert import Alert
from app.decide.placing import Intent, intend
from app.decide.state import Decision
from app.policy.schema import Policy


@dataclass(frozen=True)
class AlertDecision:
    """The decision on one alert, as the 202 shows it. Equal notifications of a batch share it."""

    alert: Alert
    route: str | None
    group: dict[str, str]
    decision: Decision

    @cached_property
    def json(self) -> bytes:
        """The decision as JSON, as the contract has it. Encoded once for all alerts that share it."""
        v = self.decision
        shown = {
            "alert_id": self.alert.alert_id,
            "fingerprint": self.alert.fingerprint,
            "status": "firing" if self.alert.firing else "resolved",
            "route": self.route,
            "group": self.group,
            "action": v.action,
            "reason": v.reason,
            "trigger_id": v.trigger_id,
            "until": v.until,
            "detail": v.detail,
        }
        return to_json(shown)


@dataclass(slots=True)
class Fold:
    """Equal notifications in a row: the first may change something, the others repeat it. `positions`: in the batch."""

    intent: Intent
    positions: list[int]


class Intents:
    """Route and group of each alert of a batch. They are found once, although the batch may be decided in several tries and
    parts. An intent keeps its alert, so that no two alerts have one identity."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._found: dict[int, Intent] = {}

    def __len__(self) -> int:
        return len(self._found)

    def of(self, alert: Alert, policy: Policy) -> Intent:
        """By this policy: another one may be in force at the next try."""
        if policy is not self._policy:
            self._policy, self._found = policy, {}
        intent = self._found.get(id(alert))
        if intent is None:
            intent = self._found[id(alert)] = intend(alert, policy)
        return intent


def fold(alerts: Sequence[Alert], policy: Policy, intents: Intents | None = None) -> list[Fold]:
    """The folds of a batch, in order. Equal notifications of a fingerprint are one fold when no other notification of that
    fingerprint comes between them. `intents` are those of the batch, if it is not folded once only."""
    intents = intents if intents is not None else Intents()
    if len(alerts) == 1:
        return [Fold(intents.of(alerts[0], policy), [0])]
    newest: dict[str, Fold] = {}
    folds = []
    for at, alert in enumerate(alerts):
        last = newest.get(alert.fingerprint)
        if last is not None and _equal(last.intent.alert, alert):
            last.positions.append(at)
            continue
        newest[alert.fingerprint] = Fold(intents.of(alert, policy), [at])
        folds.append(newest[alert.fingerprint])
    return folds


def _equal(first: Alert, alert: Alert) -> bool:
    return first is alert or (
        first.firing == alert.firing
        and first.starts_at == alert.starts_at
        and first.ends_at == alert.ends_at
        and first.severity == alert.severity
    )
