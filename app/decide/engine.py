"""A whole gateway in plain memory: what the product decides, without a database, a network or a clock. Pure.

Each method is one pass at the `now` that it is given, and runs the lines that the product runs. What differs is where
rows live: here in dicts, there in Postgres. A replay of history is built on it, and so is the state machine of the tests.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heappop, heappush, nlargest
from typing import Final
from uuid import UUID

from app.decide import facts, placing
from app.decide.alert import Alert
from app.decide.batch import AlertDecision, fold
from app.decide.books import MATES, Books
from app.decide.ledger import Ledger
from app.decide.occurrences import group_of, passed_over, request_of
from app.decide.placing import GroupName
from app.decide.repeats import known_of
from app.decide.rules import Pause
from app.decide.state import (
    DEAD,
    LOST,
    OPEN_STATES,
    SHADOW,
    SUCCESS,
    Decision,
    DecisionRow,
    Episode,
    Group,
    HeardAnswer,
    RunRequest,
    Trigger,
    TriggerChange,
    TriggerState,
    group_key,
    state_after,
)
from app.policy.schema import Policy, Route

#: Most groups that one round of wakes decides together: those that have been due longest.
ROUND: Final = 20


class PureEngine:
    """`books` are those of the newest pass. A pass works on copies and writes back what its books name, as in Postgres.
    `new_id` makes ids that sort by the order in which they were made. `now` never goes back."""

    def __init__(self, policy: Policy, now: datetime, reorder: timedelta, new_id: Callable[[], UUID]) -> None:
        self.policy = policy
        self.groups: dict[str, Group] = {}
        self.episodes: dict[UUID, Episode] = {}
        self.triggers: dict[UUID, Trigger] = {}
        self.decisions: list[DecisionRow] = []
        self.fires: list[TriggerChange] = []  # since somebody emptied it: what fired or would have, in order
        self.pauses: dict[str, Pause] = {}
        self.books = Books(policy, now, new_id)
        self._reorder = reorder
        self._new_id = new_id
        self._newest: dict[str, UUID] = {}  # episode by fingerprint
        self._mates: defaultdict[str, set[UUID]] = defaultdict(set)  # episodes that fire or may reopen, by group
        self._behind: defaultdict[UUID, set[UUID]] = defaultdict(set)  # episodes by trigger
        self._fired: defaultdict[tuple[str, str], list[Trigger]] = defaultdict(list)  # by route and mode, oldest first
        self._shapes: defaultdict[tuple[str, str], set[frozenset[str]]] = defaultdict(set)  # of groups, likewise
        self._taken: dict[str, datetime] = {}  # the newest occurrence of a schedule, or since when it counts
        self._next: dict[str, datetime] = {}  # when a schedule is due
        self._wakes: list[tuple[datetime, str]] = []  # a heap; an entry counts while the group has that wake
        self._adopt(now)

    # -- what senders and people do -----------------------------------------------------------------------------------

    def take(self, alerts: Sequence[Alert], now: datetime) -> list[AlertDecision]:
        """One batch; the decisions in its order."""
        folds, ledger = fold(alerts, self.policy), self._ledger(now)
        books, intents = ledger.books, [each.intent for each in folds]
        self._take_groups(books, placing.groups_of(intents))
        self._take_episodes(books, {i.alert.fingerprint for i in intents}, placing.deciding(books))
        while more := placing.missing(books):
            self._take_groups(books, more)
            self._take_episodes(books, (), placing.deciding(books))
        answers = ledger.take(folds)
        self._save(books)
        return [answers[place] for place in range(len(alerts))]

    def repeat(self, alerts: Sequence[Alert], now: datetime) -> list[AlertDecision] | None:
        """A batch of which every alert only repeats what is known, as the product answers it from memory: counts move, and
        nothing else. None: `take` it."""
        folds = fold(alerts, self.policy)
        ids = {each.intent.alert.fingerprint: self._newest.get(each.intent.alert.fingerprint) for each in folds}
        newest = {name: self.episodes[episode] for name, episode in ids.items() if episode is not None}
        if len(newest) < len(ids):
            return None
        known = known_of(folds, self.groups, newest, Ledger(self.policy, now, self._reorder, self._new_id))
        if len(known) < len(folds):
            return None
        answers: dict[int, AlertDecision] = {}
        for each, answer in known:
            episode, times = newest[each.intent.alert.fingerprint], len(each.positions)
            episode.count, episode.decision_count = episode.count + times, episode.decision_count + times
            episode.last_seen_at = now
            answers |= dict.fromkeys(each.positions, answer)
        return [answers[place] for place in range(len(alerts))]

    def request(self, route: Route, labels: dict[str, str], request: RunRequest, now: datetime) -> Decision:
        """Decide a request of a person, a script or a schedule for one DAG run of a group."""
        key, ledger = group_key(route.name, route.mode, labels), self._ledger(now)
        self._take_whole(ledger.books, {key: (route.name, route.mode, labels)})
        decision = ledger.request(key, request)
        self._save(ledger.books)
        return decision

    def cancel(self, trigger_id: UUID, by: str, now: datetime) -> bool:
        """Cancel a held trigger. False: it is not held."""
        trigger, ledger = self.triggers[trigger_id], self._ledger(now)
        self._take_whole(ledger.books, {trigger.key: (trigger.route, trigger.mode, trigger.group)})
        cancelled = ledger.cancel(trigger.key, trigger_id, by)
        if cancelled:
            self._save(ledger.books)
        return cancelled

    def redrive(self, trigger_id: UUID, now: datetime) -> Decision | None:
        """Fire a dead trigger again. Returns what stands in its way; None: it fires."""
        trigger, ledger = self.triggers[trigger_id], self._ledger(now)
        if trigger.state is not TriggerState.DEAD or trigger.on_failure is None:
            raise ValueError(f"only a dead trigger can be redriven; this one is {trigger.state}")
        ledger.books.take_group(replace(self.groups[trigger.key]))
        self._take_fires(ledger.books, [trigger.route])
        refused = ledger.redrive(trigger.key, trigger_id, trigger.on_failure)
        if refused is None:
            self._save(ledger.books)
            trigger.state, trigger.detail, trigger.fired_at = TriggerState.PENDING, "redriven", now
            trigger.outcome = trigger.ended_at = None
            fired = self._fired[trigger.route, trigger.mode]
            fired.remove(trigger)
            fired.append(trigger)
        return refused

    def reset(self, key: str, now: datetime) -> None:
        """Clear the cooldown and the backoff of a group."""
        facts.reset(self._next_version(key), now)
        self.wake_later(key)

    def pause(self, pause: Pause, now: datetime) -> None:
        """Mute a route, or every route."""
        self.pauses[pause.route] = pause
        self._review(now)

    def lift(self, route: str, now: datetime) -> None:
        """End the pause of exactly this route."""
        del self.pauses[route]
        self._review(now)

    def reload(self, policy: Policy, now: datetime) -> None:
        """Put another policy in force. A new or changed schedule counts from now on."""
        known = {schedule.name: schedule.definition for schedule in self.policy.schedules}
        same = {s.name for s in policy.schedules if known.get(s.name) == s.definition}
        self._taken = {name: at for name, at in self._taken.items() if name in same}
        self.policy = policy
        self._adopt(now)
        self._review(now)

    # -- what time does -----------------------------------------------------------------------------------------------

    def next_at(self) -> datetime | None:
        """When a group or a schedule is due next. None: nothing is due."""
        while self._wakes and not self._counts(self._wakes[0]):
            heappop(self._wakes)
        return min((*(at for at, _ in self._wakes[:1]), *self._next.values()), default=None)

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

    def schedule_is_due(self, now: datetime) -> bool:
        """Whether `take_schedules` has something to take."""
        return any(at <= now for at in self._next.values())

    def questions(self, now: datetime) -> list[Group]:
        """The groups of the next round that fire if Prometheus confirms them. Changes nothing."""
        routes = ((key, self.policy.route(self.groups[key].route)) for key in self.due(now))
        asking = [key for key, route in routes if route is not None and route.confirm is not None]
        return self._due_ledger(asking, now).questions(asking)

    def wake(self, now: datetime, heard: Mapping[str, HeardAnswer] | None = None) -> None:
        """Decide the groups that are due, one round. `heard` has the answers to `questions`: a group whose question has
        no answer stays due."""
        keys = self.due(now)
        ledger = self._due_ledger(keys, now)
        for key in keys:
            if heard is not None and key in heard:
                ledger.hear(key, heard[key])
        for key in keys:
            ledger.wake(key)
        self._save(ledger.books)

    def take_schedules(self, now: datetime) -> list[tuple[str, Decision]]:
        """Decide the newest occurrence of each schedule that is due; the decisions with the names of the schedules."""
        decided = []
        for schedule in self.policy.schedules:
            occurrence = schedule.times.newest(self._taken[schedule.name], now)
            route = self.policy.route(schedule.route)
            if occurrence is None or route is None:
                continue
            self._taken[schedule.name], self._next[schedule.name] = occurrence, schedule.times.after(occurrence)
            if passed_over(schedule, occurrence, now) is None:
                request = request_of(schedule, occurrence)
                decided.append((schedule.name, self.request(route, group_of(schedule, route), request, now)))
        return decided

    def _adopt(self, now: datetime) -> None:
        for schedule in self.policy.schedules:
            self._taken.setdefault(schedule.name, now)
        self._next = {s.name: s.times.after(self._taken[s.name]) for s in self.policy.schedules}

    def _review(self, now: datetime) -> None:
        """Wake every group whose decision may differ with other pauses or another policy."""
        for key, group in self.groups.items():
            waits = group.open_trigger is None and any(self.episodes[mate].firing for mate in self._mates[key])
            if waits if group.wake_at is None else group.wake_at > now:
                self.groups[key] = replace(group, wake_at=now)
                self.wake_later(key)

    # -- what Airflow does --------------------------------------------------------------------------------------------

    def accept(self, trigger_id: UUID, now: datetime) -> None:
        """Airflow has the DAG run of a pending trigger."""
        trigger = self.triggers[trigger_id]
        trigger.state, trigger.accepted_at = TriggerState.SUBMITTED, now
        facts.accept(self._next_version(trigger.key), now)

    def end(self, trigger_id: UUID, outcome: str, now: datetime) -> bool:
        """A trigger is over: its DAG run has ended or is gone, or its delivery is dead. False: it was over already."""
        trigger = self.triggers[trigger_id]
        if trigger.state not in OPEN_STATES:
            return False
        trigger.state, trigger.outcome, trigger.ended_at = state_after(outcome), outcome, now
        for episode in self._behind[trigger_id] if outcome == SUCCESS else ():
            self.episodes[episode] = replace(self.episodes[episode], spent=True)
        group, route = self._next_version(trigger.key), self.policy.route(trigger.route)
        facts.end(group, trigger_id, outcome, route, now, counted=trigger.lost_at is not None)
        self.wake_later(trigger.key)
        if outcome == DEAD and route is not None and route.limit is not None:
            self._let_in(trigger.route, now)
        return True

    def lose(self, trigger_id: UUID, now: datetime) -> bool:
        """The DAG run of a trigger is still open after its run_timeout. False: that was known, or it is over."""
        trigger = self.triggers[trigger_id]
        if trigger.state not in OPEN_STATES or trigger.lost_at is not None:
            return False
        trigger.outcome, trigger.lost_at = LOST, now
        facts.lose(self._next_version(trigger.key), trigger_id, self.policy.route(trigger.route), now)
        self.wake_later(trigger.key)
        return True

    def _let_in(self, route: str, now: datetime) -> None:
        """A dead trigger no longer counts against the limit of its route, so each group that waits is woken."""
        for key, group in self.groups.items():
            waits = group.route == route and group.open_trigger is None
            if waits and group.wake_at is not None and group.wake_at > now:
                self.groups[key] = replace(group, wake_at=now)
                self.wake_later(key)

    # -- reading, as app.groups.store does ----------------------------------------------------------------------------

    def _ledger(self, now: datetime) -> Ledger:
        ledger = Ledger(self.policy, now, self._reorder, self._new_id)
        ledger.books.pauses = self.pauses
        return ledger

    def _due_ledger(self, keys: Iterable[str], now: datetime) -> Ledger:
        """A ledger with the groups that are due, and with the groups that succeed them when a route has changed its mode."""
        ledger = self._ledger(now)
        wanted: dict[str, GroupName] = {}
        for group in (self.groups[key] for key in keys):
            wanted[group.key] = group.route, group.mode, group.labels
            if taking_over := placing.successor(*wanted[group.key], self.policy):
                wanted[taking_over[0]] = taking_over[1]
        self._take_whole(ledger.books, wanted)
        return ledger

    def _take_whole(self, books: Books, wanted: Mapping[str, GroupName]) -> None:
        """Groups with their alerts."""
        self._take_groups(books, wanted)
        self._take_episodes(books, (), wanted)

    def _take_groups(self, books: Books, wanted: Mapping[str, GroupName]) -> None:
        """Groups, new ones where there are none yet, and the fires of their routes."""
        self._take_fires(books, (route for route, _, _ in wanted.values()))
        for key, name in wanted.items():
            known = self.groups.get(key)
            group = replace(known) if known is not None else Group(key, *name)
            books.take_group(group)
            if group.last_trigger is None and self._shapes[group.route, group.mode] - {frozenset(group.labels)}:
                others = (other for other in self.groups.values() if other.labels.keys() != group.labels.keys())
                if facts.inherit(group, others):
                    books.mark(group)

    def _take_fires(self, books: Books, names: Iterable[str]) -> None:
        """The fires of routes that have a limit."""
        for name in names:
            route = self.policy.route(name)
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

    def _take_episodes(self, books: Books, fingerprints: Iterable[str], keys: Iterable[str]) -> None:
        """The newest episode of each fingerprint, and the episodes of each group that fire or may reopen."""
        ids = {self._newest[name] for name in fingerprints if name in self._newest}
        for key in keys:
            mates = (self.episodes[mate] for mate in self._mates[key])
            ids |= {episode.id for episode in nlargest(MATES, mates, key=lambda e: (e.last_seen_at, e.id))}
        for episode in sorted((self.episodes[i] for i in ids), key=lambda e: (e.fingerprint, e.id)):
            books.take_episode(replace(episode))

    # -- writing, as app.groups.store does ----------------------------------------------------------------------------

    def _save(self, books: Books) -> None:
        self.books = books
        for episode in (*books.changed.values(), *books.created.values()):
            self._save_episode(replace(episode))
        self.decisions += books.decisions
        for trigger in books.triggers.values():
            self._save_trigger(trigger, books.now)
        for key, group in books.groups.items():
            if key in books.changed_groups:
                group.version += 1
            if key in books.changed_groups or key not in self.groups:
                self.groups[key] = replace(group)
                self.wake_later(key)
                self._shapes[group.route, group.mode].add(frozenset(group.labels))

    def _save_episode(self, episode: Episode) -> None:
        before = self.episodes.get(episode.id)
        if before is None:
            self._newest[episode.fingerprint] = episode.id
        else:
            self._mates[before.group_key or ""].discard(episode.id)
            if before.trigger_id is not None:
                self._behind[before.trigger_id].discard(episode.id)
        self.episodes[episode.id] = episode
        if episode.group_key is not None and (episode.firing or episode.late_at is not None):
            self._mates[episode.group_key].add(episode.id)
        if episode.trigger_id is not None:
            self._behind[episode.trigger_id].add(episode.id)

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
            self.fires.append(made)

    def wake_later(self, key: str) -> None:
        """Keep the wake of a group among those that are due one day."""
        at = self.groups[key].wake_at
        if at is not None:
            heappush(self._wakes, (at, key))

    def _counts(self, entry: tuple[datetime, str]) -> bool:
        return self.groups[entry[1]].wake_at == entry[0]

    def _next_version(self, key: str) -> Group:
        """The row of a group with its next version, for a change in place."""
        known = self.groups[key]
        self.groups[key] = replace(known, version=known.version + 1)
        return self.groups[key]
