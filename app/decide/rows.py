"""The rows of a gateway in plain memory: read into the books of a pass, and written from them. Pure.

It does what `app.groups.store` does in Postgres. A pass works on copies, and only what its books name is written back. The
row of a group or an episode that changes becomes another object, except when repeats are counted.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush, nlargest
from typing import Final
from uuid import UUID

from app.decide import facts
from app.decide.alert import Alert
from app.decide.batch import AlertDecision
from app.decide.books import MATES, Books
from app.decide.placing import GroupName, Intent
from app.decide.state import (
    SHADOW,
    DecisionRow,
    Episode,
    Group,
    Reason,
    Trigger,
    TriggerChange,
    TriggerState,
    copied,
)
from app.policy.schema import Route

#: Most groups that one round of wakes decides together: those that have been due longest.
ROUND: Final = 20

#: Alerts of which an engine remembers the group, and that they only repeat what is known.
REMEMBERED: Final = 50_000


class Rows:
    """Groups by key, episodes and triggers by id, and what finds them."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.episodes: dict[UUID, Episode] = {}
        self.triggers: dict[UUID, Trigger] = {}
        self.decisions: list[DecisionRow] = []
        self.newest: dict[str, Episode] = {}  # by fingerprint
        self.behind: defaultdict[UUID, set[UUID]] = defaultdict(set)  # episodes by trigger
        self._mates: defaultdict[str, set[UUID]] = defaultdict(set)  # episodes that fire or may reopen, by group
        self._fired: defaultdict[tuple[str, str], list[Trigger]] = defaultdict(list)  # by route and mode, oldest first
        self._shapes: defaultdict[tuple[str, str], set[frozenset[str]]] = defaultdict(set)  # of groups, likewise
        self._wakes: list[tuple[datetime, str]] = []  # a heap; an entry counts while the group has that wake

    # -- the wakes of groups ------------------------------------------------------------------------------------------

    def wake_at(self, key: str, at: datetime) -> None:
        """Make a group due at a moment."""
        group = self.groups[key] = copied(self.groups[key])
        group.wake_at = at
        self.wake_later(key)

    def wake_later(self, key: str) -> None:
        """Keep the wake of a group among those that are due one day."""
        at = self.groups[key].wake_at
        if at is not None:
            heappush(self._wakes, (at, key))

    def next_wake(self) -> datetime | None:
        """When a group is due next. None: no group waits."""
        while self._wakes and not self._counts(self._wakes[0]):
            heappop(self._wakes)
        return self._wakes[0][0] if self._wakes else None

    def due(self, now: datetime) -> list[str]:
        """The groups of the next round of wakes."""
        found: dict[str, datetime] = {}
        while self._wakes and self._wakes[0][0] <= now and len(found) < ROUND:
            entry = heappop(self._wakes)
            if self._counts(entry):
                found[entry[1]] = entry[0]
        for key, at in found.items():
            heappush(self._wakes, (at, key))
        return sorted(found)

    def _counts(self, entry: tuple[datetime, str]) -> bool:
        return self.groups[entry[1]].wake_at == entry[0]

    # -- reading ------------------------------------------------------------------------------------------------------

    def fires(self, key: str) -> bool:
        """Whether an alert of the group fires."""
        return any(self.episodes[mate].firing for mate in self._mates[key])

    def next_version(self, key: str) -> Group:
        """The row of a group with its next version, for a change in place."""
        group = self.groups[key] = copied(self.groups[key])
        group.version += 1
        return group

    def take_whole(self, books: Books, wanted: Mapping[str, GroupName]) -> None:
        """Groups with their alerts."""
        self.take_groups(books, wanted)
        self.take_episodes(books, (), wanted)

    def take_groups(self, books: Books, wanted: Mapping[str, GroupName]) -> None:
        """Groups, new ones where there are none yet, and the fires of their routes."""
        self.take_fires(books, (route for route, _, _ in wanted.values()))
        for key, name in wanted.items():
            known = self.groups.get(key)
            group = copied(known) if known is not None else Group(key, *name)
            books.take_group(group)
            if group.last_trigger is None and self._shapes[group.route, group.mode] - {frozenset(group.labels)}:
                others = (other for other in self.groups.values() if other.labels.keys() != group.labels.keys())
                if facts.inherit(group, others):
                    books.mark(group)

    def take_fires(self, books: Books, names: Iterable[str]) -> None:
        """The fires of routes that have a limit."""
        for name in names:
            route = books.policy.route(name)
            if route is not None and route.limit is not None and name not in books.fires:
                books.fires[name] = self._fires(route, route.limit.triggers, books.now - route.limit.per)

    def _fires(self, route: Route, most: int, since: datetime) -> list[datetime]:
        """The newest fires of a route that count against its limit: dead and cancelled ones do not, rehearsed ones do."""
        fires: list[datetime] = []
        for trigger in reversed(self._fired[route.name, route.mode]):
            if len(fires) == most or trigger.fired_at is None or trigger.fired_at <= since:
                break
            if route.mode == SHADOW or trigger.state not in (TriggerState.DEAD, TriggerState.CANCELLED):
                fires.append(trigger.fired_at)
        return fires

    def take_episodes(self, books: Books, fingerprints: Iterable[str], keys: Iterable[str]) -> None:
        """The newest episode of each fingerprint, and the episodes of each group that fire or may reopen."""
        found = {episode.id: episode for name in fingerprints if (episode := self.newest.get(name)) is not None}
        for key in keys:
            mates = [self.episodes[mate] for mate in self._mates[key]]
            if len(mates) > MATES:
                mates = nlargest(MATES, mates, key=lambda e: (e.last_seen_at, e.id))
            found |= {mate.id: mate for mate in mates}
        for episode in (
            sorted(found.values(), key=lambda e: (e.fingerprint, e.id)) if len(found) > 1 else found.values()
        ):
            books.take_episode(copied(episode))

    # -- writing ------------------------------------------------------------------------------------------------------

    def save(self, books: Books) -> None:
        """Write what a pass changed: its objects become rows. Closed episodes go first, so that a new one is the newest of
        its fingerprint."""
        for episode in (*books.changed.values(), *books.created.values()):
            self.save_episode(episode)
        self.decisions += books.decisions
        for trigger in books.triggers.values():
            self._save_trigger(trigger, books.now)
        for key, group in books.groups.items():
            if key in books.changed_groups:
                group.version += 1
            if key in books.changed_groups or key not in self.groups:
                self.groups[key] = group
                self.wake_later(key)
                self._shapes[group.route, group.mode].add(frozenset(group.labels))

    def save_episode(self, episode: Episode) -> None:
        """Put a row in the place of the one with its id."""
        before = self.episodes.get(episode.id)
        if before is None or before is self.newest.get(episode.fingerprint):
            self.newest[episode.fingerprint] = episode
        if before is not None:
            self._mates[before.group_key or ""].discard(episode.id)
            if before.trigger_id is not None:
                self.behind[before.trigger_id].discard(episode.id)
        self.episodes[episode.id] = episode
        if episode.group_key is not None and (episode.firing or episode.late_at is not None):
            self._mates[episode.group_key].add(episode.id)
        if episode.trigger_id is not None:
            self.behind[episode.trigger_id].add(episode.id)

    def _save_trigger(self, made: TriggerChange, now: datetime) -> None:
        group = made.group
        if made.is_new:
            if made.id in self.triggers:
                raise ValueError(f"there is a trigger {made.id} already")
            name = group.route, group.mode, group.labels
            self.triggers[made.id] = Trigger(made.id, group.key, *name, made.reason, made.state, made.detail, now)
        elif self.triggers[made.id].state is not TriggerState.HELD:
            raise ValueError(f"a pass may change only a held trigger; this one is {self.triggers[made.id].state}")
        trigger = self.triggers[made.id]
        trigger.state, trigger.detail = made.state, made.detail
        trigger.ended_at = now if made.state is TriggerState.CANCELLED else None
        if made.fired:
            trigger.reason, trigger.fired_at, trigger.on_failure = made.reason, now, group.on_failure
            self._fired[group.route, group.mode].append(trigger)

    def fired_again(self, trigger: Trigger) -> None:
        """A trigger that was redriven is the newest that fired."""
        fired = self._fired[trigger.route, trigger.mode]
        fired.remove(trigger)
        fired.append(trigger)


@dataclass(slots=True)
class _Repeat:
    """An alert, its rows and its answer. `until`: when its decision may be another one."""

    intent: Intent
    episode: Episode
    group: Group | None
    answer: AlertDecision
    until: datetime | None
    stale_after: timedelta | None  # of a timestamped alert: after a longer silence it begins anew


#: Nothing but a change of the rows, or the end of their time, makes a decision for one of these reasons another one. What a
#: limit, a mute or Prometheus decides hangs on more.
_LASTING: Final = frozenset(
    {
        Reason.DUPLICATE,
        Reason.IN_FLIGHT,
        Reason.COOLDOWN,
        Reason.INEFFECTIVE,
        Reason.BY_REQUEST,
        Reason.NO_ROUTE,
    }
)


class Repeats:
    """Alerts under one policy, by their identity: a history has the same object for each repeat. While the rows of an alert
    are the very objects that they were, the alert only repeats what is known, as the product answers it from memory."""

    def __init__(self) -> None:
        self._known: dict[int, _Repeat] = {}

    def answers(self, alerts: Sequence[Alert], rows: Rows, now: datetime) -> list[AlertDecision] | None:
        """The answers to a batch that only repeats what is remembered; its repeats are counted. None: it may do more."""
        found = []
        for alert in alerts:
            known = self._known.get(id(alert))
            if known is None or rows.newest[alert.fingerprint] is not known.episode:
                return None
            if rows.groups.get(known.intent.key or "") is not known.group:
                return None
            if known.until is not None and now >= known.until:
                return None
            if known.stale_after is not None and now - known.episode.last_seen_at > known.stale_after:
                return None
            found.append(known)
        for known in found:
            known.episode.count += 1
            known.episode.decision_count += 1
            known.episode.last_seen_at = now
        return [known.answer for known in found]

    def remember(self, intent: Intent, answer: AlertDecision, rows: Rows, now: datetime) -> None:
        """Remember an alert of a batch that fired, held and cancelled nothing."""
        decision, episode = answer.decision, rows.newest[intent.alert.fingerprint]
        if decision.reason not in _LASTING or not intent.alert.firing or not episode.firing:
            return
        if episode.group_key != intent.key or (decision.until is not None and decision.until <= now):
            return
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        stale_after = intent.route.stale_after if intent.alert.timestamped and intent.route is not None else None
        group = rows.groups.get(intent.key or "")
        self._known[id(intent.alert)] = _Repeat(intent, episode, group, answer, decision.until, stale_after)

    def clear(self) -> None:
        """Another policy is in force."""
        self._known.clear()
