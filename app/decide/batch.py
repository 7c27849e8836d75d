"""What a batch is made of: equal notifications in a row are one fold, and all of a fold get one answer. Pure."""

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
    """The decision on one alert, as the 202 tells it. Equal notifications of a batch share one."""

    alert: Alert
    route: str | None
    group: dict[str, str]
    decision: Decision

    @cached_property
    def json(self) -> bytes:
        """As a decision of the contract; encoded once for all that share it."""
        v = self.decision
        told = {
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
        return to_json(told)


@dataclass(slots=True)
class Fold:
    """Equal notifications in a row: the first may change something, the others repeat it. `places` in the batch."""

    intent: Intent
    places: list[int]


def fold(alerts: Sequence[Alert], policy: Policy) -> list[Fold]:
    """Alerts in order; equal notifications of one fingerprint with nothing of it in between become one fold."""
    newest: dict[str, Fold] = {}
    folds = []
    for at, alert in enumerate(alerts):
        last = newest.get(alert.fingerprint)
        if last is not None and _equal(last.intent.alert, alert):
            last.places.append(at)
            continue
        newest[alert.fingerprint] = Fold(intend(alert, policy), [at])
        folds.append(newest[alert.fingerprint])
    return folds


def _equal(first: Alert, alert: Alert) -> bool:
    return first is alert or (
        first.firing == alert.firing
        and first.starts_at == alert.starts_at
        and first.ends_at == alert.ends_at
        and first.severity == alert.severity
    )
