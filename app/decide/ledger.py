"""One pass: a batch, a wake or a request, decided from rows that were read before. Pure.

The caller reads rows into the ledger's books, lets the ledger `take` alerts, `wake` a group or decide a `request`, and
writes the rows that the books hold as changed. So every DAG run comes from the same code, and this code also runs without
a database: in tests, and in `app.decide.engine`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from app.decide import episodes, facts, placing, rules
from app.decide.batch import AlertDecision, Fold
from app.decide.books import Books
from app.decide.episodes import Move
from app.decide.placing import Intent, no_route
from app.decide.rules import Mute, mute_of
from app.decide.state import (
    SHADOW,
    Action,
    Confirmation,
    Decision,
    Episode,
    Group,
    HeardAnswer,
    Reason,
    RunRequest,
    TriggerChange,
    TriggerState,
    group_key,
)
from app.policy.schema import Policy, Route


class Ledger:
    """Decides one pass over its `books`. `reorder` is GATEWAY_REORDER_WINDOW."""

    def __init__(self, policy: Policy, now: datetime, reorder: timedelta, new_id: Callable[[], UUID]) -> None:
        self.policy = policy
        self.now = now
        self.reorder = reorder
        self.books = Books(policy, now, new_id)
        self._mutes: dict[str, Mute | None] = {}  # by route, as they were asked for

    # -- alerts arrive ------------------------------------------------------------------------------------------------

    def take(self, folds: Sequence[Fold]) -> dict[int, AlertDecision]:
        """Decide a batch: the first alert of each fold, then all its repeats together, because they may now be duplicates of
        it. Returns the answers by their position in the batch."""
        answers: dict[int, AlertDecision] = {}
        for fold in folds:
            for positions in (fold.positions[:1], fold.positions[1:]):
                if positions:
                    decision, episode = self.observe(fold.intent, len(positions))
                    answer = AlertDecision(fold.intent.alert, episode.route, episode.group_labels, decision)
                    answers |= dict.fromkeys(positions, answer)
        return answers

    def observe(self, intent: Intent, times: int = 1) -> tuple[Decision, Episode]:
        """Take one notification (or `times` equal ones in a row) into the history and decide it."""
        last = self.books.latest.get(intent.alert.fingerprint)
        resolved = last.resolved_at if last is not None else None
        kind, episode, route = placing.place(self.books, intent, self.reorder)
        previously_seen = episode.last_seen_at
        if kind is not Move.AFTER or not episode.firing:
            episode.last_seen_at = self.now  # The end of an earlier episode does not say that this one still fires.
        if episode is last:
            self.books.forget(episode, previously_seen, resolved, moved=kind is not Move.REPEAT)
        episode.count += times
        decision = self._decision(kind, episode, route)
        self.books.record(episode, decision, times, previously_seen)
        return decision, episode

    def obstacles(self, route: Route, group: Group | None = None) -> rules.Obstacles:
        """What stands in the way of a route in this pass, and what Prometheus answered about the group."""
        if route.name not in self._mutes:
            self._mutes[route.name] = mute_of(self.policy, route, self.books.pauses, self.now)
        answer = self.books.confirmations.get(group.key) if group is not None else None
        return rules.Obstacles(self.books.fires.get(route.name, ()), self._mutes[route.name], answer)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _decision(self, kind: Move, episode: Episode, route: Route | None) -> Decision:
        if route is None:
            return Decision(Action.IGNORE, Reason.NO_ROUTE, detail=no_route(episode.labels))
        group = self.books.groups[episode.group_key or ""]
        if kind is Move.LATE:
            detail = "overtaken by its resolved; decided again when the reorder window ends"
            self.books.wake_by(group, (episode.resolved_at or self.now) + self.reorder)
            return Decision(Action.IGNORE, Reason.RESOLVED, detail=detail)
        if not episode.firing or kind in (Move.RESOLVE, Move.AFTER):
            return self._resolved(group, episode, route)
        return self._decide(group, episode, route)

    def _resolved(self, group: Group, episode: Episode, route: Route) -> Decision:
        held = group.open_trigger if group.held else None
        was_behind = held is not None and episode.trigger_id == held and not episode.firing
        if was_behind:
            episode.trigger_id = None  # Nothing has fired for it: if it reopens, it is new.
        if was_behind and not _firing(self.books, group, route):
            self._cancel(group, "everything behind it resolved while it was held")
            detail = "resolved before the debounce was over: nothing is started"
            return Decision(Action.CANCEL, Reason.RESOLVED_WHILE_HELD, None, held, detail)
        return Decision(Action.IGNORE, Reason.RESOLVED, detail="resolved: nothing to start")

    def _decide(self, group: Group, episode: Episode, route: Route) -> Decision:
        triggers = self.books.triggers
        decision = rules.decide(group, episode, route, self.now, self.obstacles(route, group))
        trigger = triggers.get(group.open_trigger) if group.open_trigger else None
        just_fired = trigger is not None and trigger.state is TriggerState.PENDING
        earlier = triggers.get(group.last_trigger) if group.last_trigger else None
        if earlier is not None and earlier.rehearsed:
            return self._beside_rehearsed(episode, earlier, decision)
        if just_fired and decision.reason is Reason.IN_FLIGHT:
            # The trigger fired a moment ago in this batch: the alert stands behind it like the first one.
            decision = Decision(
                Action.FIRE, Reason.NEW_ALERT, None, group.open_trigger, "fires together with its group"
            )
        match decision.action:
            case Action.FIRE:
                return self._fire(group, episode, route, decision)
            case Action.HOLD:
                return self._hold(group, episode, route, decision)
        if decision.until is not None:
            self.books.wake_by(group, decision.until)
        return decision

    def _beside_rehearsed(self, episode: Episode, trigger: TriggerChange, decision: Decision) -> Decision:
        """The group would have fired a moment ago in this pass: its other alerts that fire stand behind that trigger."""
        if decision.action is Action.CANCEL or episode.spent:
            return decision
        if episode.trigger_id == trigger.id:
            return Decision(
                Action.SUPPRESS, Reason.DUPLICATE, decision.until, trigger.id, "its trigger would have fired"
            )
        _put_behind(self.books, episode, trigger)
        return rules.shadowed(Decision(Action.FIRE, Reason.NEW_ALERT, detail="together with its group"), trigger.id)

    def _fire(self, group: Group, episode: Episode, route: Route, decision: Decision) -> Decision:
        if decision.trigger_id is not None and decision.trigger_id == group.last_trigger:
            # `_decide` has found that the group fired a moment ago in this pass: the alert joins that trigger.
            _put_behind(self.books, episode, self.books.triggers[decision.trigger_id])
            return decision
        trigger = _start(self.books, group, route, decision, None, episode)
        self._wake_for_late(group)
        if trigger.rehearsed:
            return rules.shadowed(decision, trigger.id)
        return Decision(Action.FIRE, decision.reason, None, trigger.id, decision.detail)

    def _hold(self, group: Group, episode: Episode, route: Route, decision: Decision) -> Decision:
        if group.open_trigger is None:
            # The debounce counts from the group's first alert, whichever of its alerts is decided first.
            since = min([episode.firing_since, *(m.firing_since for m in _firing(self.books, group, route))])
            due = since + route.debounce
            answered = route.confirm is None or group.key in self.books.confirmations
            if due <= self.now and answered:
                # The debounce of that alert is over, and a later change of the alert in this pass does not undo that.
                return self._fire(group, episode, route, rules.fire_for(group, episode))
            decision = rules.debouncing(due) if due > self.now else decision
            trigger_id = self.books.new_id()
            trigger = TriggerChange(trigger_id, group, TriggerState.HELD, Reason.NEW_ALERT, True, [], decision.detail)
            self.books.triggers[trigger_id] = trigger
            group.open_trigger, group.held_since = trigger_id, since
            group.wake_at = min(due, group.wake_at or due)
            self.books.mark(group)
        episode.trigger_id = group.open_trigger
        self.books.touch(episode)
        return Decision(decision.action, decision.reason, decision.until, group.open_trigger, decision.detail)

    def _cancel(self, group: Group, detail: str) -> None:
        trigger_id = group.open_trigger
        if trigger_id is None:
            return
        known = self.books.triggers.get(trigger_id)
        is_new = known.is_new if known else False
        self.books.triggers[trigger_id] = TriggerChange(
            trigger_id, group, TriggerState.CANCELLED, Reason.NEW_ALERT, is_new, [], detail
        )
        group.open_trigger = group.held_since = group.wake_at = None
        self._wake_for_late(group)
        self.books.mark(group)

    def _wake_for_late(self, group: Group) -> None:
        """Alerts that their resolved overtook may reopen when the reorder window ends, whatever became of the group."""
        late = [m for m in self.books.mates_of(group.key) if m.late_at is not None and not m.firing]
        if late:
            due = min((m.resolved_at or self.now) + self.reorder for m in late)
            group.wake_at = min(due, group.wake_at or due)

    # -- a person or a script asks ------------------------------------------------------------------------------------

    def request(self, key: str, request: RunRequest) -> Decision:
        """Decide a request for one DAG run of a group. It is a decision, refused or not."""
        books = self.books
        group = books.groups[key]
        route = self.policy.route(group.route)
        if route is None:
            raise ValueError(f"a request for a route that is not in the policy: {group.route}")
        decision = rules.decide_request(group, route, request, self.now, self.obstacles(route))
        if decision.action is Action.FIRE:
            trigger = _start(self.books, group, route, decision, request)
            self._wake_for_late(group)
            rehearsed = trigger.rehearsed
            decision = rules.shadowed(decision, trigger.id) if rehearsed else replace(decision, trigger_id=trigger.id)
        elif decision.until is not None:
            books.wake_by(group, decision.until)
        books.write(None, group.route, group.key, decision)
        return decision

    def cancel(self, key: str, trigger_id: UUID, by: str) -> bool:
        """Cancel a held trigger; each alert behind it gets that decision. False: the group does not hold this trigger."""
        group = self.books.groups[key]
        if not group.held or group.open_trigger != trigger_id:
            return False
        self.cancel_held(group, Decision(Action.CANCEL, Reason.BY_REQUEST, None, trigger_id, f"cancelled by {by}"))
        return True

    def redrive(self, key: str, trigger_id: UUID, on_failure: str) -> Decision | None:
        """Fire a dead trigger again, `on_failure` as it was frozen. Returns what stands in its way; None: it fires."""
        group = self.books.groups[key]
        route = self.policy.route(group.route)
        fires = self.books.fires.get(group.route, ())
        refused = rules.refuse_redrive(group, trigger_id, route, fires, self.now)
        if refused is None:
            facts.fire(group, trigger_id, on_failure, self.now)
            self.books.mark(group)
        return refused

    # -- a group is looked at without a notification ------------------------------------------------------------------

    def questions(self, keys: Collection[str]) -> list[Group]:
        """The groups that fire if Prometheus confirms them. The books then hold what would happen: do not write them."""
        self.books.confirmations = dict.fromkeys(keys, Confirmation(True, "if Prometheus says yes"))
        for key in keys:
            self.wake(key)
        return [t.group for t in self.books.triggers.values() if t.fired and t.group.key in keys]

    def hear(self, key: str, heard: HeardAnswer) -> None:
        """Take an answer of Prometheus in. An answer about older facts of the group does not count."""
        if heard.version == self.books.groups[key].facts_version:
            self.books.confirmations[key] = heard.answer

    def wake(self, key: str) -> None:
        """Decide a group again from its alerts that still fire. Held becomes pending, or is cancelled with a reason for
        each alert behind it. Sets the next wake."""
        books = self.books
        group = books.groups[key]
        group.wake_at = None
        books.mark(group)
        route = self.policy.route(group.route)
        self._reopen_late(group)
        if route is None:
            self.cancel_held(group, Decision(Action.IGNORE, Reason.NO_ROUTE, detail="its route left the policy"))
            return
        if group.mode != route.mode:
            self._leave_mode(group, route)
            return
        due = (
            facts.held_until(group, route) if group.held else None
        )  # when the debounce ends, as it was before this pass
        if (answer := books.confirmations.get(key)) is not None:
            group.unconfirmed_at = None if answer.confirmed else self.now
        blocked: dict[UUID, Decision] = {}  # what keeps alerts from firing now: cooldown, limit, mute and so on
        asking = False  # whether an alert behind the held trigger lacks only the answer of Prometheus
        for episode in _firing(self.books, group, route):
            decision = self._decide_again(group, episode, route)
            if decision is None:
                continue
            asking = asking or (group.held and decision.trigger_id == group.open_trigger)
            if decision.action is Action.SUPPRESS and decision.reason is not Reason.DUPLICATE:
                blocked[episode.id] = decision
        if group.held and asking and facts.held_until(group, route) <= self.now:
            group.wake_at = self.now  # It stays due until a wake brings the answer.
            return
        if due is not None and due <= self.now and group.held:
            detail = "none of its alerts fires at the end of the debounce: nothing is started"
            detail = next((v.detail for v in blocked.values()), detail)
            cancelled = Decision(Action.CANCEL, Reason.RESOLVED_WHILE_HELD, None, group.open_trigger, detail)
            self.cancel_held(group, cancelled, blocked)
        for decision in blocked.values():
            books.wake_by(group, decision.until)
        books.wake_by(group, facts.wake_at(group, route))

    def _leave_mode(self, group: Group, route: Route) -> None:
        """Its route has changed its mode: its alerts go to the group of the other mode, and are decided there."""
        detail = (
            f"its route is in {route.mode} mode now: the held trigger is cancelled, and its alerts are decided anew"
        )
        # BY_REQUEST: a person has changed the mode in the policy. There is no alert to blame, and no reason of its own.
        self.cancel_held(group, Decision(Action.CANCEL, Reason.BY_REQUEST, None, group.open_trigger, detail))
        key = group_key(route.name, route.mode, group.labels)
        mates = self.books.mates_of(group.key)
        for episode in mates:
            placing.start_clean(self.books, episode, key)
        if mates:
            self.wake(key)

    def _decide_again(self, group: Group, episode: Episode, route: Route) -> Decision | None:
        """The decision on an alert that this pass has not decided yet; written when it changed."""
        trigger = self.books.triggers.get(episode.trigger_id) if episode.trigger_id else None
        if trigger is not None and trigger.fired:
            return None  # It fired together with its group.
        decision = self._decide(group, episode, route)
        if decision.reason is Reason.DUPLICATE:
            return decision  # Without a notification there is no duplicate to write.
        if (decision.action, decision.reason, decision.trigger_id) != (
            episode.action,
            episode.reason,
            episode.decided_trigger,
        ):
            self.books.record(episode, decision, 1, episode.last_seen_at)
        return decision

    def cancel_held(self, group: Group, decision: Decision, decided: Collection[UUID] = ()) -> None:
        """Cancel the held trigger. Each alert behind it gets this decision, except those that are `decided` already."""
        held = group.open_trigger if group.held else None
        if held is None:
            return
        for episode in self.books.mates_of(group.key):
            if episode.trigger_id == held:
                episode.trigger_id = None
                episode.dismissed = decision.reason is Reason.BY_REQUEST
                self.books.touch(episode)
                if episode.id not in decided:
                    self.books.record(episode, decision, 1, episode.last_seen_at)
        self._cancel(group, decision.detail)

    def _reopen_late(self, group: Group) -> None:
        books = self.books
        for episode in books.mates_of(group.key):
            if episode.firing or episode.late_at is None:
                continue
            due = (episode.resolved_at or episode.late_at) + self.reorder
            if self.now < due:
                books.wake_by(group, due)
            elif books.latest.get(episode.fingerprint, episode).id == episode.id:
                books.touch(episode)
                books.forget_end(episode)
                episodes.reopen(episode, episode.late_at)


# -- a group fires as a whole: each alert of it that fires stands behind one trigger -----------------------------------


def _firing(books: Books, group: Group, route: Route) -> list[Episode]:
    """The alerts of the group that may start a DAG run, the first alert first."""
    able = (m for m in books.mates_of(group.key) if facts.may_fire(m, route, books.now))
    return sorted(able, key=lambda m: (m.firing_since, m.id))


def _start(
    books: Books,
    group: Group,
    route: Route,
    decision: Decision,
    request: RunRequest | None,
    first: Episode | None = None,
) -> TriggerChange:
    """Fire: a new trigger, or the held one under its id. The caller decides the alert `first`; the others are decided
    here."""
    trigger_id = group.open_trigger or books.new_id()
    earlier = books.triggers.get(trigger_id)
    is_new = earlier.is_new if earlier is not None else group.open_trigger is None
    trigger = TriggerChange(
        trigger_id, group, TriggerState.PENDING, decision.reason, is_new, [], decision.detail, request
    )
    books.triggers[trigger_id] = trigger
    mates = (mate for mate in _firing(books, group, route) if first is None or mate.id != first.id)
    others = [(mate, rules.fire_for(group, mate).reason) for mate in mates]
    if group.mode == SHADOW:
        trigger.state = TriggerState.CANCELLED
        trigger.detail = f"shadow mode: live it would have started the DAG {route.dag.id}; nothing was started"
        facts.rehearse(group, trigger_id, route, books.now)
    else:
        facts.fire(group, trigger_id, route.on_failure, books.now)
    if route.name in books.fires:
        books.fires[route.name].insert(0, books.now)
    books.mark(group)
    if first is not None:
        _put_behind(books, first, trigger)
    for mate, reason in others:
        _join(books, mate, reason, trigger)
    return trigger


def _put_behind(books: Books, episode: Episode, trigger: TriggerChange) -> None:
    """The alert stands behind a trigger that fires in this pass."""
    episode.trigger_id = trigger.id
    episode.spent = episode.spent or trigger.rehearsed
    trigger.alerts.append(episode)
    books.touch(episode)


def _join(books: Books, mate: Episode, reason: Reason, trigger: TriggerChange) -> None:
    _put_behind(books, mate, trigger)
    decision = Decision(Action.FIRE, reason, None, trigger.id, "fires together with its group")
    if trigger.rehearsed:
        decision = rules.shadowed(replace(decision, detail="together with its group"), trigger.id)
    books.record(mate, decision, 1, mate.last_seen_at)
