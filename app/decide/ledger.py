"""One batch, or one wake, in memory: what was read under lock, changed by the rules, to be written once. Pure.

The store reads rows into a Ledger, the flow lets it `observe` alerts or `wake` a group, and the store writes what the
Ledger then holds as changed. So every path to a DAG run goes through the same lines, and all of them can be tested
without a database.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from app.decide import episodes, facts, rules
from app.decide.episodes import Move
from app.decide.muting import mute_of
from app.decide.placing import Intent, Placing, no_route
from app.decide.state import SHADOW, Action, Ask, Decision, Episode, Group, NewTrigger, Reason, TriggerState, group_key
from app.policy.schema import Route


@dataclass
class Ledger(Placing):
    """The books of one pass, and the decisions that change them."""

    # -- an alert arrives ---------------------------------------------------------------------------------------------

    def observe(self, intent: Intent, times: int = 1) -> tuple[Decision, Episode]:
        """Take one notification (or `times` equal ones in a row) into the history and decide it."""
        alert = intent.alert
        last = self.latest.get(alert.fingerprint)
        route = self._route_of(last, intent)
        window = episodes.Window(self.reorder, route.stale_after if route else None)
        kind = episodes.place(last, alert, window, self.now)
        if kind is Move.BEGIN:
            route = intent.route
        episode = self._place(kind, last, alert)
        self._assign(episode, intent, route)
        previously_seen = episode.last_seen_at
        if kind is not Move.AFTER or not episode.firing:
            episode.last_seen_at = self.now  # The end of an earlier episode does not say that this one still fires.
        episode.count += times
        decision = self._decision(kind, episode, route)
        self._record(episode, decision, times, previously_seen)
        return decision, episode

    def way(self, route: Route, group: Group | None = None) -> rules.Way:
        """What stands in the way of a route in this pass, and what Prometheus said of the group."""
        if route.name not in self.mutes:
            self.mutes[route.name] = mute_of(self.policy, route, self.pauses, self.now)
        answer = self.answers.get(group.key) if group is not None else None
        return rules.Way(self.fires.get(route.name, ()), self.mutes[route.name], answer)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _decision(self, kind: Move, episode: Episode, route: Route | None) -> Decision:
        if route is None:
            return Decision(Action.IGNORE, Reason.NO_ROUTE, detail=no_route(episode.labels))
        group = self.groups[episode.group_key or ""]
        if kind is Move.LATE:
            detail = "overtaken by its resolved; decided again when the reorder window ends"
            self._wake_by(group, (episode.resolved_at or self.now) + self.reorder)
            return Decision(Action.IGNORE, Reason.RESOLVED, detail=detail)
        if not episode.firing or kind in (Move.RESOLVE, Move.AFTER):
            return self._resolved(group, episode, route)
        return self._decide(group, episode, route)

    def _resolved(self, group: Group, episode: Episode, route: Route) -> Decision:
        held = group.open_trigger if group.held else None
        was_behind = held is not None and episode.trigger_id == held and not episode.firing
        if was_behind:
            episode.trigger_id = None  # Nothing has fired for it: should it reopen, it is new.
        if was_behind and not self._firing(group, route):
            self._cancel(group, "everything behind it resolved while it was held")
            detail = "resolved before the debounce was over: nothing is started"
            return Decision(Action.CANCEL, Reason.RESOLVED_WHILE_HELD, None, held, detail)
        return Decision(Action.IGNORE, Reason.RESOLVED, detail="resolved: nothing to start")

    def _decide(self, group: Group, episode: Episode, route: Route) -> Decision:
        decision = rules.decide(group, episode, route, self.now, self.way(route, group))
        trigger = self.triggers.get(group.open_trigger) if group.open_trigger else None
        just_fired = trigger is not None and trigger.state is TriggerState.PENDING
        earlier = self.triggers.get(group.last_trigger) if group.last_trigger else None
        if earlier is not None and earlier.rehearsed:
            return self._beside_rehearsed(episode, earlier, decision)
        if just_fired and decision.reason is Reason.IN_FLIGHT:
            # The trigger fired a moment ago in this very batch: the alert stands behind it like the first.
            decision = Decision(
                Action.FIRE, Reason.NEW_ALERT, None, group.open_trigger, "fires together with its group"
            )
        match decision.action:
            case Action.FIRE:
                return self._fire(group, episode, route, decision)
            case Action.HOLD:
                return self._hold(group, episode, route, decision)
        if decision.until is not None:
            self._wake_by(group, decision.until)
        return decision

    def _beside_rehearsed(self, episode: Episode, trigger: NewTrigger, decision: Decision) -> Decision:
        """The group would have fired a moment ago in this very pass: what else of it fires stands behind that trigger."""
        if decision.action is Action.CANCEL or episode.spent:
            return decision
        if episode.trigger_id == trigger.id:
            return Decision(
                Action.SUPPRESS, Reason.DUPLICATE, decision.until, trigger.id, "its trigger would have fired"
            )
        self._put_behind(episode, trigger)
        return rules.shadowed(Decision(Action.FIRE, Reason.NEW_ALERT, detail="together with its group"), trigger.id)

    def _fire(self, group: Group, episode: Episode, route: Route, decision: Decision) -> Decision:
        if decision.trigger_id is not None and decision.trigger_id == group.last_trigger:
            self._put_behind(episode, self.triggers[decision.trigger_id])
            return decision
        trigger = self._start(group, route, decision, None, episode)
        if trigger.rehearsed:
            return rules.shadowed(decision, trigger.id)
        return Decision(Action.FIRE, decision.reason, None, trigger.id, decision.detail)

    def _start(
        self, group: Group, route: Route, decision: Decision, ask: Ask | None, first: Episode | None = None
    ) -> NewTrigger:
        """Fire: a new trigger, or the held one under its id. Whatever of the group fires stands behind it; `first` is
        decided by the caller."""
        trigger_id = group.open_trigger or self.new_id()
        earlier = self.triggers.get(trigger_id)
        is_new = earlier.is_new if earlier is not None else group.open_trigger is None
        trigger = NewTrigger(trigger_id, group, TriggerState.PENDING, decision.reason, is_new, [], decision.detail, ask)
        self.triggers[trigger_id] = trigger
        mates = (mate for mate in self._firing(group, route) if first is None or mate.id != first.id)
        others = [(mate, rules.calm(group, mate).reason) for mate in mates]
        if group.mode == SHADOW:
            trigger.state = TriggerState.CANCELLED
            trigger.detail = f"shadow mode: live it would have started the DAG {route.dag.id}; nothing was started"
            facts.rehearse(group, trigger_id, route, self.now)
        else:
            facts.fire(group, trigger_id, route.on_failure, self.now)
        if route.name in self.fires:
            self.fires[route.name].insert(0, self.now)
        self._mark(group)
        if first is not None:
            self._put_behind(first, trigger)
        for mate, reason in others:
            self._join_fire(mate, reason, trigger)
        return trigger

    def _join_fire(self, mate: Episode, reason: Reason, trigger: NewTrigger) -> None:
        """A group fires as a whole: what else of it fires stands behind the same trigger."""
        self._put_behind(mate, trigger)
        decision = Decision(Action.FIRE, reason, None, trigger.id, "fires together with its group")
        if trigger.rehearsed:
            decision = rules.shadowed(replace(decision, detail="together with its group"), trigger.id)
        self._record(mate, decision, 1, mate.last_seen_at)

    def _hold(self, group: Group, episode: Episode, route: Route, decision: Decision) -> Decision:
        if group.open_trigger is None:
            # The debounce counts from the group's first alert, whichever of its alerts is decided first.
            since = min([episode.firing_since, *(m.firing_since for m in self._firing(group, route))])
            due = since + route.debounce
            asked = route.confirm is None or group.key in self.answers
            if due <= self.now and asked:
                # That alert's calm is over: what this pass does to it later does not undo it.
                return self._fire(group, episode, route, rules.calm(group, episode))
            decision = rules.debouncing(due) if due > self.now else decision
            trigger_id = self.new_id()
            trigger = NewTrigger(trigger_id, group, TriggerState.HELD, Reason.NEW_ALERT, True, [], decision.detail)
            self.triggers[trigger_id] = trigger
            group.open_trigger, group.held_since = trigger_id, since
            group.wake_at = min(due, group.wake_at or due)
            self._mark(group)
        episode.trigger_id = group.open_trigger
        self._touch(episode)
        return Decision(decision.action, decision.reason, decision.until, group.open_trigger, decision.detail)

    def _cancel(self, group: Group, detail: str) -> None:
        trigger_id = group.open_trigger
        if trigger_id is None:
            return
        known = self.triggers.get(trigger_id)
        is_new = known.is_new if known else False
        self.triggers[trigger_id] = NewTrigger(
            trigger_id, group, TriggerState.CANCELLED, Reason.NEW_ALERT, is_new, [], detail
        )
        group.open_trigger = group.held_since = group.wake_at = None
        late = [m for m in self.mates.get(group.key, {}).values() if m.late_at is not None and not m.firing]
        if late:  # They may still reopen.
            group.wake_at = min((m.resolved_at or self.now) + self.reorder for m in late)
        self._mark(group)

    def _put_behind(self, episode: Episode, trigger: NewTrigger) -> None:
        episode.trigger_id = trigger.id
        episode.spent = episode.spent or trigger.rehearsed
        trigger.alerts.append(episode)
        self._touch(episode)

    # -- a person or a script asks ------------------------------------------------------------------------------------

    def request(self, key: str, ask: Ask) -> Decision:
        """Decide a request for one DAG run of a group; refused or not, it is a decision."""
        group = self.groups[key]
        route = self.policy.route(group.route)
        if route is None:
            raise ValueError(f"a request for a route that is not in the policy: {group.route}")
        decision = rules.decide_request(group, route, ask, self.now, self.way(route))
        if decision.action is Action.FIRE:
            trigger = self._start(group, route, decision, ask)
            rehearsed = trigger.rehearsed
            decision = rules.shadowed(decision, trigger.id) if rehearsed else replace(decision, trigger_id=trigger.id)
        elif decision.until is not None:
            self._wake_by(group, decision.until)
        self._write(None, group.route, group.key, decision)
        return decision

    # -- a group is looked at without a notification ------------------------------------------------------------------

    def wake(self, key: str) -> None:
        """Decide a group again from its alerts that still fire. Held becomes pending, or is cancelled with a reason for
        each alert behind it. Sets the next wake."""
        group = self.groups[key]
        group.wake_at = None
        self._mark(group)
        route = self.policy.route(group.route)
        self._reopen_late(group)
        if route is None:
            self.release_held(group, Decision(Action.IGNORE, Reason.NO_ROUTE, detail="its route left the policy"))
            return
        if group.mode != route.mode:
            self._leave_mode(group, route)
            return
        due = facts.held_until(group, route) if group.held else None
        if (answer := self.answers.get(key)) is not None:
            group.unconfirmed_at = None if answer.confirmed else self.now
        blocked: dict[UUID, Decision] = {}
        asking = False
        for episode in self._firing(group, route):
            decision = self._decide_again(group, episode, route)
            if decision is None:
                continue
            asking = asking or (group.held and decision.trigger_id == group.open_trigger)
            if decision.action is Action.SUPPRESS and decision.reason is not Reason.DUPLICATE:
                blocked[episode.id] = decision
        if group.held and asking and facts.held_until(group, route) <= self.now:
            group.wake_at = self.now
            return
        if due is not None and due <= self.now and group.held:
            detail = "nothing of it fires any more at the end of the debounce: nothing is started"
            detail = next((v.detail for v in blocked.values()), detail)
            cancelled = Decision(Action.CANCEL, Reason.RESOLVED_WHILE_HELD, None, group.open_trigger, detail)
            self.release_held(group, cancelled, blocked)
        for decision in blocked.values():
            self._wake_by(group, decision.until)
        self._wake_by(group, facts.wake_at(group, route))

    def _leave_mode(self, group: Group, route: Route) -> None:
        """Its route has changed its mode: what fires goes to the group of the other one, and is decided there."""
        detail = f"its route is in {route.mode} mode now: what was held is let go, and decided anew"
        self.release_held(group, Decision(Action.CANCEL, Reason.BY_REQUEST, None, group.open_trigger, detail))
        key = group_key(route.name, route.mode, group.labels)
        mates = list(self.mates.get(group.key, {}).values())
        for episode in mates:
            self._start_clean(episode, key)
        if mates:
            self.wake(key)

    def _decide_again(self, group: Group, episode: Episode, route: Route) -> Decision | None:
        """The decision on an alert that was not decided a moment ago; written when it changed."""
        if episode.trigger_id in self.triggers and self.triggers[episode.trigger_id].fired:
            return None  # It fired together with its group.
        decision = self._decide(group, episode, route)
        if decision.reason is Reason.DUPLICATE:
            return decision  # Without a notification there is nothing to be a duplicate: it is not written.
        if (decision.action, decision.reason, decision.trigger_id) != (
            episode.action,
            episode.reason,
            episode.decided_trigger,
        ):
            self._record(episode, decision, 1, episode.last_seen_at)
        return decision

    def release_held(self, group: Group, decision: Decision, told: Collection[UUID] = ()) -> None:
        """Cancel the held trigger; each alert behind it is told why, but those `told` already."""
        held = group.open_trigger if group.held else None
        if held is None:
            return
        for episode in self.mates.get(group.key, {}).values():
            if episode.trigger_id == held:
                episode.trigger_id = None
                episode.dismissed = decision.reason is Reason.BY_REQUEST
                self._touch(episode)
                if episode.id not in told:
                    self._record(episode, decision, 1, episode.last_seen_at)
        self._cancel(group, decision.detail)

    def _reopen_late(self, group: Group) -> None:
        for episode in list(self.mates.get(group.key, {}).values()):
            if episode.firing or episode.late_at is None:
                continue
            due = (episode.resolved_at or episode.late_at) + self.reorder
            if self.now < due:
                self._wake_by(group, due)
            elif self.latest.get(episode.fingerprint, episode).id == episode.id:
                self._touch(episode)
                episodes.reopen(episode, episode.late_at)

    def _firing(self, group: Group, route: Route) -> list[Episode]:
        """What of the group may start a DAG run, the first alert first."""
        mates = self.mates.get(group.key, {}).values()
        able = (m for m in mates if facts.may_fire(m, route, self.now))
        return sorted(able, key=lambda m: (m.firing_since, m.id))
