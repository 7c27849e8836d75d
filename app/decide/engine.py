"""A whole gateway in plain memory: what the product decides, without a database, a network or a clock. Pure.

Each method is one pass at the `now` that it is given, and runs the lines that the product runs. What differs is where
rows live: here in dicts, there in Postgres. A replay of history is built on it, and so is the state machine of the tests.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from app.decide import facts, placing
from app.decide.alert import Alert
from app.decide.batch import AlertDecision, Fold, Intents, fold
from app.decide.books import Books
from app.decide.ledger import Ledger
from app.decide.occurrences import group_of, passed_over, request_of
from app.decide.placing import GroupName
from app.decide.rows import REMEMBERED, Repeats, Rows
from app.decide.rules import Pause
from app.decide.state import (
    DEAD,
    LOST,
    OPEN_STATES,
    SUCCESS,
    Decision,
    Group,
    HeardAnswer,
    RunRequest,
    TriggerChange,
    TriggerState,
    copied,
    group_key,
    state_after,
)
from app.policy.schema import Policy, Route


class PureEngine:
    """`books` are those of the newest pass. A pass works on copies of `rows` and writes back what its books name, as in
    Postgres. `new_id` makes ids that sort by the order in which they were made. `now` never goes back."""

    def __init__(self, policy: Policy, now: datetime, reorder: timedelta, new_id: Callable[[], UUID]) -> None:
        self.policy = policy
        self.rows = rows = Rows()
        self.groups, self.episodes, self.triggers, self.decisions = (
            rows.groups,
            rows.episodes,
            rows.triggers,
            rows.decisions,
        )
        self.fires: list[TriggerChange] = []  # since somebody emptied it: what fired or would have, in order
        self.pauses: dict[str, Pause] = {}
        self.books = Books(policy, now, new_id)
        self._reorder = reorder
        self._new_id = new_id
        self._taken: dict[str, datetime] = {}  # the newest occurrence of a schedule, or since when it counts
        self._next: dict[str, datetime] = {}  # when a schedule is due
        self._intents = Intents()
        self._repeats = Repeats()
        self._adopt(now)

    # -- what senders and people do -----------------------------------------------------------------------------------

    def take(self, alerts: Sequence[Alert], now: datetime) -> list[AlertDecision]:
        """One batch; the decisions in its order."""
        folds, ledger = self._folds(alerts), self._ledger(now)
        books, intents = ledger.books, [each.intent for each in folds]
        self.rows.take_groups(books, placing.groups_of(intents))
        self.rows.take_episodes(books, {i.alert.fingerprint for i in intents}, placing.deciding(books))
        while more := placing.missing(books):
            self.rows.take_groups(books, more)
            self.rows.take_episodes(books, (), placing.deciding(books))
        answers = ledger.take(folds)
        self._save(books)
        if not books.triggers:
            for each in folds:
                self._repeats.remember(each.intent, answers[each.positions[-1]], self.rows, now)
        return [answers[place] for place in range(len(alerts))]

    def repeat(self, alerts: Sequence[Alert], now: datetime) -> list[AlertDecision] | None:
        """A batch of which every alert, the same object as before, only repeats what is known: counts move, and nothing
        else. None: `take` it."""
        return self._repeats.answers(alerts, self.rows, now)

    def _folds(self, alerts: Sequence[Alert]) -> list[Fold]:
        if len(self._intents) >= REMEMBERED:
            self._intents = Intents()
        return fold(alerts, self.policy, self._intents)

    def request(self, route: Route, labels: dict[str, str], request: RunRequest, now: datetime) -> Decision:
        """Decide a request of a person, a script or a schedule for one DAG run of a group."""
        key, ledger = group_key(route.name, route.mode, labels), self._ledger(now)
        self.rows.take_whole(ledger.books, {key: (route.name, route.mode, labels)})
        decision = ledger.request(key, request)
        self._save(ledger.books)
        return decision

    def cancel(self, trigger_id: UUID, by: str, now: datetime) -> bool:
        """Cancel a held trigger. False: it is not held."""
        trigger, ledger = self.triggers[trigger_id], self._ledger(now)
        self.rows.take_whole(ledger.books, {trigger.key: (trigger.route, trigger.mode, trigger.group)})
        cancelled = ledger.cancel(trigger.key, trigger_id, by)
        if cancelled:
            self._save(ledger.books)
        return cancelled

    def redrive(self, trigger_id: UUID, now: datetime) -> Decision | None:
        """Fire a dead trigger again. Returns what stands in its way; None: it fires."""
        trigger, ledger = self.triggers[trigger_id], self._ledger(now)
        if trigger.state is not TriggerState.DEAD or trigger.on_failure is None:
            raise ValueError(f"only a dead trigger can be redriven; this one is {trigger.state}")
        ledger.books.take_group(copied(self.groups[trigger.key]))
        self.rows.take_fires(ledger.books, [trigger.route])
        refused = ledger.redrive(trigger.key, trigger_id, trigger.on_failure)
        if refused is None:
            self._save(ledger.books)
            trigger.state, trigger.detail, trigger.fired_at = TriggerState.PENDING, "redriven", now
            trigger.outcome = trigger.ended_at = None
            self.rows.fired_again(trigger)
        return refused

    def reset(self, key: str, now: datetime) -> None:
        """Clear the cooldown and the backoff of a group."""
        facts.reset(self.rows.next_version(key), now)
        self.rows.wake_later(key)

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
        if policy.hash == self.policy.hash:
            return
        self._repeats.clear()
        known = {schedule.name: schedule.definition for schedule in self.policy.schedules}
        same = {s.name for s in policy.schedules if known.get(s.name) == s.definition}
        self._taken = {name: at for name, at in self._taken.items() if name in same}
        self.policy = policy
        self._adopt(now)
        self._review(now)

    # -- what time does -----------------------------------------------------------------------------------------------

    def next_at(self) -> datetime | None:
        """When a group or a schedule is due next. None: nothing is due."""
        due = self.rows.next_wake()
        for at in self._next.values():
            if due is None or at < due:
                due = at
        return due

    def schedule_is_due(self, now: datetime) -> bool:
        """Whether `take_schedules` has something to take."""
        return any(at <= now for at in self._next.values())

    def questions(self, now: datetime) -> list[Group]:
        """The groups of the next round that fire if Prometheus confirms them. Changes nothing."""
        routes = ((key, self.policy.route(self.groups[key].route)) for key in self.rows.due(now))
        asking = [key for key, route in routes if route is not None and route.confirm is not None]
        return self._due_ledger(asking, now).questions(asking)

    def wake(self, now: datetime, heard: Mapping[str, HeardAnswer] | None = None) -> None:
        """Decide the groups that are due, one round. `heard` has the answers to `questions`: a group whose question has
        no answer stays due."""
        keys = self.rows.due(now)
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
            waits = group.open_trigger is None and self.rows.fires(key)
            if waits if group.wake_at is None else group.wake_at > now:
                self.rows.wake_at(key, now)

    # -- what Airflow does --------------------------------------------------------------------------------------------

    def accept(self, trigger_id: UUID, now: datetime) -> None:
        """Airflow has the DAG run of a pending trigger."""
        trigger = self.triggers[trigger_id]
        trigger.state, trigger.accepted_at = TriggerState.SUBMITTED, now
        facts.accept(self.rows.next_version(trigger.key), now)

    def end(self, trigger_id: UUID, outcome: str, now: datetime) -> bool:
        """A trigger is over: its DAG run has ended or is gone, or its delivery is dead. False: it was over already."""
        trigger = self.triggers[trigger_id]
        if trigger.state not in OPEN_STATES:
            return False
        trigger.state, trigger.outcome, trigger.ended_at = state_after(outcome), outcome, now
        for ident in list(self.rows.behind[trigger_id]) if outcome == SUCCESS else ():
            episode = copied(self.episodes[ident])
            episode.spent = True
            self.rows.save_episode(episode)
        group, route = self.rows.next_version(trigger.key), self.policy.route(trigger.route)
        facts.end(group, trigger_id, outcome, route, now, counted=trigger.lost_at is not None)
        self.rows.wake_later(trigger.key)
        if outcome == DEAD and route is not None and route.limit is not None:
            self._let_in(trigger.route, now)
        return True

    def lose(self, trigger_id: UUID, now: datetime) -> bool:
        """The DAG run of a trigger is still open after its run_timeout. False: that was known, or it is over."""
        trigger = self.triggers[trigger_id]
        if trigger.state not in OPEN_STATES or trigger.lost_at is not None:
            return False
        trigger.outcome, trigger.lost_at = LOST, now
        facts.lose(self.rows.next_version(trigger.key), trigger_id, self.policy.route(trigger.route), now)
        self.rows.wake_later(trigger.key)
        return True

    def _let_in(self, route: str, now: datetime) -> None:
        """A dead trigger no longer counts against the limit of its route, so each group that waits is woken."""
        for key, group in self.groups.items():
            waits = group.route == route and group.open_trigger is None
            if waits and group.wake_at is not None and group.wake_at > now:
                self.rows.wake_at(key, now)

    # -- one pass -----------------------------------------------------------------------------------------------------

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
        self.rows.take_whole(ledger.books, wanted)
        return ledger

    def _save(self, books: Books) -> None:
        self.books = books
        self.rows.save(books)
        self.fires += [trigger for trigger in books.triggers.values() if trigger.fired]
