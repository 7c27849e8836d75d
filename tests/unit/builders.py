"""Groups, episodes, routes and alerts in one line each, for the tests of what is pure."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from app.decide.alert import Alert
from app.decide.books import Books
from app.decide.ledger import Ledger
from app.decide.placing import GroupName, intend
from app.decide.state import Action, Confirmation, Decision, Episode, Group, Reason, group_key
from app.policy.file.load import parse_policy
from app.policy.schema import Policy, Route

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
REORDER = 2 * MINUTE


#: The time interval `night` of every policy here.
NIGHT = [{"start_time": "22:00", "end_time": "24:00"}, {"start_time": "00:00", "end_time": "06:00"}]


def uid(number: int) -> UUID:
    """An id that reads as its number."""
    return UUID(int=number)


def ids(first: int = 1000) -> Callable[[], UUID]:
    """A maker of ids that sort by their making."""
    numbers = count(first)
    return lambda: uid(next(numbers))


def route(**options: Any) -> Route:
    """A route `accuracy` that takes everything, grouped by model, with these options instead of the defaults."""
    return policy(**options).routes[0]


def policy(*routes: dict[str, Any], **options: Any) -> Policy:
    """A policy of one route with these options, or of the routes given."""
    chosen = routes or ({"name": "accuracy", "match": [], "group_by": ["model"], **options},)
    entries = [{"dag": {"id": "retrain"}, **entry} for entry in chosen]
    document = {
        "version": 1,
        "airflow": [{"name": "default", "url": "http://airflow.test"}],
        "routes": entries,
        "time_intervals": [{"name": "night", "time_intervals": [{"times": NIGHT}]}],
    }
    return parse_policy(_yaml(document), "policy.yaml", {})


def _yaml(value: Any) -> str:
    """Flow style of YAML: JSON but for the durations, which are written as their seconds."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(v) for v in value) + "]"
    if isinstance(value, timedelta):
        return f"{int(value.total_seconds())}s"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def group(mode: str = "live", **facts: Any) -> Group:
    """A group about which nothing is known but these facts."""
    labels = {"model": "churn"}
    return Group(group_key("accuracy", mode, labels), "accuracy", mode, labels, **facts)


def episode(**fields: Any) -> Episode:
    """An open episode that began now, with these fields instead."""
    start = fields.get("starts_at", NOW)
    known: dict[str, Any] = {
        "id": uid(1),
        "alert_id": "ModelAccuracyLow",
        "fingerprint": "a",
        "source": "alertmanager",
        "status": "firing",
        "severity": "critical",
        "starts_at": start,
        "labels": {"model": "churn"},
        "annotations": {},
        "first_seen_at": NOW,
        "last_seen_at": NOW,
        "firing_since": NOW,
    }
    return Episode(**{**known, **fields})


def firing(fingerprint: str = "a", at: datetime = NOW, *, native: bool = False, **labels: str) -> Alert:
    """A firing notification; `at` is the sender's time."""
    return _alert(fingerprint, at, None, native, labels)


def resolved(
    fingerprint: str = "a",
    at: datetime = NOW,
    began: datetime | None = None,
    *,
    native: bool = False,
    **labels: str,
) -> Alert:
    """A resolved notification: it ended `at`, by the sender's clock."""
    return _alert(fingerprint, began or at - HOUR, at, native, labels)


def _alert(fingerprint: str, start: datetime, end: datetime | None, native: bool, labels: dict[str, str]) -> Alert:
    named = {"alertname": "ModelAccuracyLow", "severity": "critical", "model": "churn", **labels}
    source = "native" if native else "alertmanager"
    return Alert(
        alert_id=named["alertname"],
        fingerprint=fingerprint,
        firing=end is None,
        severity=named["severity"],
        starts_at=start,
        ends_at=end,
        labels=named,
        annotations={},
        source=source,
        timestamped=native,
    )


class Kept:
    """What the database would hold, for tests that take a ledger through several batches: each batch is a new Ledger
    over the same groups and episodes."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = NOW
        self.new_id = ids()
        self.groups: dict[str, Group] = {}
        self.episodes: list[Episode] = []
        self.ledger = self._open([])

    def _open(self, wanted: Iterable[tuple[str, GroupName]]) -> Ledger:
        ledger = Ledger(self.policy, self.now, REORDER, self.new_id)
        for key, name in wanted:
            self.groups.setdefault(key, Group(key, *name))
        for known in self.groups.values():
            ledger.books.take_group(known)
        for kept in self.episodes:
            ledger.books.take_episode(kept)
        return ledger

    def send(self, *alerts: Alert, times: int = 1) -> list[Decision]:
        """One batch now; the decisions in its order."""
        intents = [intend(alert, self.policy) for alert in alerts]
        self.ledger = self._open(
            (i.key, (i.route.name, i.route.mode, i.labels))
            for i in intents
            if i.key is not None and i.route is not None
        )
        decisions = [self.ledger.observe(intent, times)[0] for intent in intents]
        self.episodes += self.ledger.books.created.values()
        return decisions

    def wake(self, *, confirmed: bool | None = None) -> Ledger:
        """Every group that is due is looked at, once, with this word of Prometheus; None: it was not asked."""
        self.ledger = self._open([])
        if confirmed is not None:
            self.ledger.books.confirmations = dict.fromkeys(
                self.groups, Confirmation(confirmed, f"Prometheus said {confirmed}")
            )
        for key, known in self.groups.items():
            if known.wake_at is not None and known.wake_at <= self.now:
                self.ledger.wake(key)
        return self.ledger

    @property
    def books(self) -> Books:
        """Of the newest pass."""
        return self.ledger.books

    def pass_by(self, time: timedelta) -> None:
        self.now += time

    @property
    def group(self) -> Group:
        """The only group."""
        (only,) = self.groups.values()
        return only

    def of(self, fingerprint: str) -> Episode:
        """The newest episode of a fingerprint."""
        return [e for e in self.episodes if e.fingerprint == fingerprint][-1]


def decided(decisions: Iterable[Decision]) -> list[tuple[Action, Reason]]:
    """(action, reason) of each."""
    return [(v.action, v.reason) for v in decisions]
