"""The values that decisions are made from and lead to. Plain data: no I/O, no clock."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar
from uuid import UUID

Row = TypeVar("Row", "Group", "Episode")


class Action(StrEnum):
    FIRE = "fire"
    HOLD = "hold"
    SUPPRESS = "suppress"
    CANCEL = "cancel"
    IGNORE = "ignore"


class Reason(StrEnum):
    """Why an action was chosen. The answer, the column and the metric's label use this one enum."""

    NEW_ALERT = "new_alert"  # fire: the alert has fired nothing yet
    STILL_FIRING = "still_firing"  # fire: the same alert, after its cooldown
    MANUAL = "manual"  # fire: a person or a script asked
    SCHEDULED = "scheduled"  # fire: a schedule was due
    FORCED = "forced"  # fire: a request overrode cooldown and limit
    DEBOUNCING = "debouncing"  # hold: the first alert of a group waits for calm
    JOINED = "joined"  # hold: another alert of a group that is held
    DUPLICATE = "duplicate"  # suppress: it stands behind the trigger that is in the way
    COOLDOWN = "cooldown"  # suppress: the group fired, or failed, a short time ago
    INEFFECTIVE = "ineffective"  # suppress: the newest retrains of the group did not help
    LIMIT = "limit"  # suppress: the route has fired too often
    MUTED = "muted"  # suppress: a time interval or a person mutes the route
    UNCONFIRMED = "unconfirmed"  # suppress: Prometheus did not confirm it
    SHADOW = "shadow"  # suppress: it would have fired
    IN_FLIGHT = "in_flight"  # suppress: another trigger of the group is under way
    RESOLVED_WHILE_HELD = "resolved_while_held"  # cancel: it ended before it fired
    BY_REQUEST = "by_request"  # cancel: a person asked, or the mode of the route changed
    NO_ROUTE = "no_route"  # ignore
    RESOLVED = "resolved"  # ignore: an end starts nothing
    INVALID = "invalid"  # ignore: it could not be stored or decided


class TriggerState(StrEnum):
    HELD = "held"
    PENDING = "pending"
    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


OPEN_STATES = (TriggerState.HELD, TriggerState.PENDING, TriggerState.SUBMITTED, TriggerState.RUNNING)

#: Modes of a route, and of the groups and triggers that it has in each.
LIVE, SHADOW = "live", "shadow"

#: How a trigger ended: the state of its DAG run, or what happened instead.
SUCCESS, FAILED, LOST, GONE, DEAD = "success", "failed", "lost", "gone", "dead"


def state_after(outcome: str) -> TriggerState:
    """The state of a trigger that ended with this outcome."""
    return {SUCCESS: TriggerState.SUCCEEDED, DEAD: TriggerState.DEAD}.get(outcome, TriggerState.FAILED)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules decide about one alert at one moment."""

    action: Action
    reason: Reason
    until: datetime | None = None
    trigger_id: UUID | None = None
    detail: str = ""


@dataclass(slots=True)
class Group:
    """The facts of one (route, mode, group), as its row holds them."""

    key: str
    route: str
    mode: str
    labels: dict[str, str]
    fired_at: datetime | None = None
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    failures: int = 0
    reset_at: datetime | None = None
    unconfirmed_at: datetime | None = None
    open_trigger: UUID | None = None
    held_since: datetime | None = None
    last_trigger: UUID | None = None
    on_failure: str | None = None
    wake_at: datetime | None = None
    ineffective: int = 0
    ineffective_since: datetime | None = None
    ineffective_under: str | None = None
    released_at: datetime | None = None
    version: int = 0
    nonce: str = ""

    @property
    def held(self) -> bool:
        return self.open_trigger is not None and self.held_since is not None

    @property
    def facts_version(self) -> tuple[int, str]:
        """Changes with every written change of the facts, except of `wake_at`. The random part tells a new row from an older
        one with the same counter."""
        return self.version, self.nonce


@dataclass(slots=True)
class Episode:
    """One alert's row: a fingerprint from its first firing until it is resolved, goes stale or begins anew."""

    id: UUID
    alert_id: str
    fingerprint: str
    source: str
    status: str
    severity: str
    starts_at: datetime
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    first_seen_at: datetime
    last_seen_at: datetime
    firing_since: datetime
    route: str | None = None
    group_key: str | None = None
    group_labels: dict[str, str] = field(default_factory=dict)
    ends_at: datetime | None = None
    count: int = 0
    closed_at: datetime | None = None
    resolved_at: datetime | None = None
    late_at: datetime | None = None
    trigger_id: UUID | None = None
    spent: bool = False
    dismissed: bool = False
    decision_id: UUID | None = None
    decision_count: int = 0
    # The newest decision, read beside the row: an unchanged decision is counted and not written again.
    action: str | None = None
    reason: str | None = None
    decided_trigger: UUID | None = None

    @property
    def firing(self) -> bool:
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer of Prometheus to the question before a fire, with one sentence for people. Not `answered`: it gave none,
    and `on_error` of the route counts."""

    confirmed: bool
    detail: str
    answered: bool = True


@dataclass(frozen=True, slots=True)
class HeardAnswer:
    """What Prometheus has answered about a group, and the `facts_version` that the group had when it was asked."""

    version: tuple[int, str]
    answer: Confirmation


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for one DAG run of a group now. `conf` is laid over the route's."""

    reason: Reason
    by: str
    why: str
    conf: dict[str, Any]
    force: bool = False


@dataclass(slots=True)
class TriggerChange:
    """What a pass does to a trigger: makes, holds, fires or cancels it. `is_new`: the trigger has no row yet."""

    id: UUID
    group: Group
    state: TriggerState
    reason: Reason
    is_new: bool
    alerts: list[Episode] = field(default_factory=list)
    detail: str = ""
    request: RunRequest | None = None

    @property
    def fired(self) -> bool:
        """It fires in this pass."""
        return self.state is TriggerState.PENDING or self.rehearsed

    @property
    def rehearsed(self) -> bool:
        """It would fire in this pass if its route were live."""
        return self.group.mode == SHADOW and self.group.last_trigger == self.id


@dataclass(slots=True)
class Trigger:
    """A trigger, as the pure engine keeps it."""

    id: UUID
    key: str  # of its group
    route: str
    mode: str
    group: dict[str, str]
    reason: str
    state: TriggerState
    detail: str
    created_at: datetime
    on_failure: str | None = None  # frozen when it fires
    outcome: str | None = None
    fired_at: datetime | None = None
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    lost_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A new decision on an episode, or the answer to a request."""

    id: UUID
    alert: UUID | None
    trigger_id: UUID | None
    route: str | None
    group_key: str | None
    action: str
    reason: str
    until: datetime | None
    detail: str
    at: datetime


def group_key(route: str, mode: str, labels: Mapping[str, str]) -> str:
    """The key of a group. It is a hash, because labels may be too long for an index."""
    is_short = sum(map(len, labels.values())) <= _LONGEST_REMEMBERED
    return (_remembered if is_short else _key_of)(route, mode, tuple(sorted(labels.items())))


def _key_of(route: str, mode: str, labels: tuple[tuple[str, str], ...]) -> str:
    text = json.dumps([route, mode, labels], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


#: Every notification asks for the key of its group.
_remembered = lru_cache(4096)(_key_of)
_LONGEST_REMEMBERED = 256  # characters of the values: the memory must stay small


def copied(row: Row) -> Row:
    """A copy of a row with slots. `replace` takes many times as long, and a replay makes millions of copies."""
    kind: type[Row] = type(row)
    return kind(*_values_of[kind](row))


_values_of: Final[Mapping[type, Callable[[Any], tuple[Any, ...]]]] = {
    kind: attrgetter(*(each.name for each in fields(kind))) for kind in (Group, Episode)
}
