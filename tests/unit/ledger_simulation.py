"""A gateway without a database: the ledger over plain dicts, decided as intake, wakes, endings and requests decide.

Every method is one transaction. What replicas add to that, since the rows are locked, is memory that is behind: a batch
may be handed copies of groups and episodes of any age, which it may use as intake does.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from app.decide import batch, facts
from app.decide.alert import Alert
from app.decide.batch import Fold, fold
from app.decide.ledger import Ledger
from app.decide.muting import Pause
from app.decide.placing import Intent
from app.decide.state import (
    DEAD,
    LOST,
    OPEN_STATES,
    SUCCESS,
    Action,
    Confirmation,
    Decision,
    DecisionRow,
    Episode,
    Group,
    Reason,
    TriggerState,
    group_key,
)
from app.groups.store import _may_act
from app.intake.fast_path import known_of
from app.intake.intake import observe
from app.policy.schema import Policy
from tests.unit.builders import NOW, REORDER, ids

#: A question to Prometheus that is on its way for longer has no answer.
LONGEST_QUESTION = timedelta(seconds=30)


@dataclass
class SimTrigger:
    """A row of `triggers`, and what was true of it when it fired."""

    id: UUID
    key: str
    state: TriggerState
    accepted: bool = False
    lost: bool = False
    held_since: datetime | None = None
    behind: list[Episode] = field(default_factory=list)


@dataclass(frozen=True)
class Fired:
    """One fire or redrive, as it is reported to `Simulation.fires`."""

    trigger: SimTrigger
    at: datetime
    redriven: bool


@dataclass
class Rows:
    """What the database holds."""

    groups: dict[str, Group] = field(default_factory=dict)
    episodes: dict[UUID, Episode] = field(default_factory=dict)
    triggers: dict[UUID, SimTrigger] = field(default_factory=dict)
    decisions: list[DecisionRow] = field(default_factory=list)


def _was_spent(episode: Episode, before: Mapping[UUID, Episode]) -> bool:
    """Before this pass, in the group that it has now: a change of mode starts clean."""
    known = before.get(episode.id)
    return known is not None and known.spent and known.group_key == episode.group_key


class Simulation:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = NOW
        self.rows = Rows()
        self.fires: list[Fired] = []
        self.from_memory = 0
        self.pauses: dict[str, Pause] = {}
        self._asked: dict[str, tuple[int, Confirmation]] = {}  # with the version of the group that was asked about
        self._new_id = ids()
        self._remembered: deque[tuple[dict[str, Group], dict[str, Episode]]] = deque(maxlen=8)

    # -- reading and writing, as store.load and store.save do ----------------------------------------------------------

    def newest(self, fingerprint: str) -> Episode | None:
        known = [e for e in self.rows.episodes.values() if e.fingerprint == fingerprint]
        still_open = [e for e in known if e.firing]
        return max(still_open or known, key=lambda e: e.id, default=None)

    def _ledger(self) -> Ledger:
        ledger = Ledger(self.policy, self.now, REORDER, self._new_id)
        ledger.take_pauses(self.pauses)
        return ledger

    def _load(self, intents: Sequence[Intent]) -> Ledger:
        ledger = self._ledger()
        latest = [e for f in {i.alert.fingerprint for i in intents} if (e := self.newest(f)) is not None]
        known = ((i.key, i.route, i.labels) for i in intents)
        wanted = {key: (r.name, str(r.mode), labels) for key, r, labels in known if key is not None and r is not None}
        wanted |= {key: name for e in latest for key, name in ledger.homes(e)}
        for key, name in wanted.items():
            ledger.take_group(replace(self.rows.groups.get(key) or Group(key, *name)))
        whole = {g.key for g in ledger.groups.values() if _may_act(g, ledger)}
        self._take_episodes(ledger, {e.id for e in latest}, whole)
        return ledger

    def _load_groups(self, keys: Sequence[str]) -> Ledger:
        ledger = self._ledger()
        for key in keys:
            group = self.rows.groups[key]
            ledger.take_group(replace(group))
            route = self.policy.route(group.route)
            if route is not None and route.mode != group.mode:
                name = (group.route, route.mode, group.labels)
                home = group_key(*name)
                ledger.take_group(replace(self.rows.groups.get(home) or Group(home, *name)))
        self._take_episodes(ledger, set(), set(ledger.groups))
        return ledger

    def _take_episodes(self, ledger: Ledger, wanted: set[UUID], whole: set[str]) -> None:
        rows = sorted(self.rows.episodes.values(), key=lambda e: (e.fingerprint, e.id))
        for row in rows:
            if row.id in wanted or (row.group_key in whole and (row.firing or row.late_at is not None)):
                ledger.take_episode(replace(row))

    def _save(self, ledger: Ledger) -> None:
        episodes = dict(self.rows.episodes)
        for episode in (*ledger.changed.values(), *ledger.created.values()):
            self.rows.episodes[episode.id] = replace(episode)
        self.rows.decisions += ledger.decisions
        for trigger in sorted(ledger.triggers.values(), key=lambda t: t.is_new):
            assert trigger.is_new != (trigger.id in self.rows.triggers)
            row = self.rows.triggers.setdefault(trigger.id, SimTrigger(trigger.id, trigger.group.key, trigger.state))
            assert row.state in (TriggerState.HELD, trigger.state), "only a held trigger may be changed by a ledger"
            before = self.rows.episodes if not trigger.rehearsed else episodes  # A rehearsal spends them at once.
            row.state, row.behind = trigger.state, [replace(e, spent=_was_spent(e, before)) for e in trigger.alerts]
            if trigger.state is TriggerState.HELD:
                row.held_since = trigger.group.held_since
            if trigger.fired:
                self.fires.append(Fired(row, self.now, redriven=False))
        for key in ledger.groups.keys() - self.rows.groups.keys() - ledger.changed_groups:
            self.rows.groups[key] = replace(ledger.groups[key])
        self._save_groups([ledger.groups[key] for key in ledger.changed_groups])

    def _save_groups(self, changed: Sequence[Group]) -> None:
        for group in changed:
            group.version += 1
            self.rows.groups[group.key] = replace(group)
        self._remember()

    def _remember(self) -> None:
        open_episodes = {
            e.fingerprint: replace(e, labels={}, annotations={}) for e in self.rows.episodes.values() if e.firing
        }
        self._remembered.append(({k: replace(g) for k, g in self.rows.groups.items()}, open_episodes))

    # -- alerts, as Intake._once ---------------------------------------------------------------------------------------

    def notify(self, alerts: Sequence[Alert], ages: tuple[int, int] | None) -> list[Decision]:
        """One batch. `ages`: how many commits ago the copies of groups and of episodes in memory were made."""
        answers = self._from_memory(fold(alerts, self.policy), ages) if ages is not None and self._remembered else {}
        left = [at for at in range(len(alerts)) if at not in answers]
        folds = fold([alerts[at] for at in left], self.policy)
        ledger = self._load([f.intent for f in folds])
        for each in folds:
            answers |= {left[at]: answer for at, answer in observe(ledger, each).items()}
        self._save(ledger)
        self._remember()
        return [answers[at].decision for at in range(len(alerts))]

    def _from_memory(self, folds: list[Fold], ages: tuple[int, int]) -> dict[int, batch.AlertDecision]:
        groups = self._remembered[-1 - min(ages[0], len(self._remembered) - 1)][0]
        episodes = self._remembered[-1 - min(ages[1], len(self._remembered) - 1)][1]
        ledger = Ledger(self.policy, self.now, REORDER, self._new_id)  # Memory knows of no pause.
        known = known_of(folds, groups, episodes, ledger)
        counted = []
        for each, _ in known:
            key, remembered = each.intent.key, episodes[each.intent.alert.fingerprint]
            row = self.rows.episodes.get(remembered.id)
            if row is None or not row.firing or row.decision_id != remembered.decision_id:
                return {}
            if key is not None and self.rows.groups[key].version != groups[key].version:
                return {}
            counted.append((row, len(each.places)))
        for row, times in counted:
            row.count, row.decision_count, row.last_seen_at = row.count + times, row.decision_count + times, self.now
        self.from_memory += len(counted)
        return {at: answer for each, answer in known for at in each.places}

    # -- everything else that changes a group --------------------------------------------------------------------------

    def due(self) -> list[str]:
        return sorted(k for k, g in self.rows.groups.items() if g.wake_at is not None and g.wake_at <= self.now)

    def ask(self, confirmed: Collection[str]) -> dict[str, bool]:
        """Waker._ask: what Prometheus says of the groups that would fire if it said yes, which it does of these models.
        It counts in the next wake."""
        keys = self.due()
        ledger = self._load_groups(keys)
        ledger.answers = dict.fromkeys(keys, Confirmation(True, "if Prometheus says yes"))
        for key in keys:
            ledger.wake(key)
        groups = [t.group for t in ledger.triggers.values() if t.fired and t.group.key in keys]
        said = {g.key: g.labels["model"] in confirmed for g in groups}
        self._asked = {k: (self.rows.groups[k].version, Confirmation(yes, "by a test")) for k, yes in said.items()}
        return said

    def wake(self) -> None:
        """One round of Waker.step."""
        keys = self.due()
        ledger = self._load_groups(keys)
        asked = ((key, self._asked[key]) for key in keys if key in self._asked)
        ledger.answers = {k: answer for k, (version, answer) in asked if version == ledger.groups[k].version}
        self._asked = {}
        for key in keys:
            ledger.wake(key)
        self._save(ledger)

    def accept(self, trigger: SimTrigger) -> None:
        """Delivery._accepted."""
        trigger.state, trigger.accepted = TriggerState.SUBMITTED, True
        group = replace(self.rows.groups[trigger.key], accepted_at=self.now)
        self._save_groups([group])

    def end(self, trigger: SimTrigger, outcome: str) -> None:
        """Endings.end."""
        trigger.state = {SUCCESS: TriggerState.SUCCEEDED, DEAD: TriggerState.DEAD}.get(outcome, TriggerState.FAILED)
        if outcome == SUCCESS:
            for episode in self.rows.episodes.values():
                episode.spent = episode.spent or episode.trigger_id == trigger.id
        group = replace(self.rows.groups[trigger.key])
        assert group.open_trigger == trigger.id
        group.open_trigger = group.held_since = None
        facts.book(group, outcome, self.policy.route(group.route), self.now, counted=trigger.lost)
        self._save_groups([group])

    def lose(self, trigger: SimTrigger) -> None:
        """Endings.lose."""
        group = replace(self.rows.groups[trigger.key])
        facts.book(group, LOST, self.policy.route(group.route), self.now, counted=trigger.lost)
        trigger.lost = True
        self._save_groups([group])

    def redrive(self, trigger: SimTrigger) -> bool:
        """Requests.redrive; False when it is refused."""
        group = replace(self.rows.groups[trigger.key])
        route = self.policy.route(group.route)
        assert route is not None
        if group.open_trigger is not None or facts.redrive_at(group, trigger.id, route, self.now) is not None:
            return False
        trigger.state, trigger.lost = TriggerState.PENDING, False
        facts.fire(group, trigger.id, route.on_failure, self.now)
        self._save_groups([group])
        self.fires.append(Fired(trigger, self.now, redriven=True))
        return True

    def reset(self, key: str) -> None:
        """Requests.reset."""
        group = replace(self.rows.groups[key])
        facts.reset(group, self.now)
        self._save_groups([group])

    def reload(self, policy: Policy) -> None:
        """Another file is in force, and every waker has looked at every group."""
        self.policy = policy
        self._asked = {}
        self._review()

    def pause(self, until: datetime | None) -> None:
        """Pauses.pause of the route, and the look at every group that each waker takes then."""
        self.pauses = {"accuracy": Pause("accuracy", until, "a test", "ana", self.now)}
        self._review()

    def lift(self) -> None:
        """Pauses.lift."""
        self.pauses = {}
        self._review()

    def _review(self) -> None:
        for key, group in self.rows.groups.items():
            waits = group.open_trigger is None and any(
                e.group_key == key and e.firing for e in self.rows.episodes.values()
            )
            if waits or (group.wake_at is not None and group.wake_at > self.now):
                self.rows.groups[key] = replace(group, wake_at=self.now)

    def cancel(self, trigger: SimTrigger) -> None:
        """Requests.cancel."""
        ledger = self._load_groups([trigger.key])
        decision = Decision(Action.CANCEL, Reason.BY_REQUEST, None, trigger.id, "cancelled by a test")
        ledger.release_held(ledger.groups[trigger.key], decision)
        self._save(ledger)

    # -- looking -------------------------------------------------------------------------------------------------------

    def triggers(self, *states: TriggerState) -> list[SimTrigger]:
        return [t for t in self.rows.triggers.values() if t.state in states]

    def open_of(self, key: str) -> list[SimTrigger]:
        return [t for t in self.rows.triggers.values() if t.key == key and t.state in OPEN_STATES]

    def pass_by(self, time: timedelta) -> None:
        self.now += time
        if time > LONGEST_QUESTION:
            self._asked = {}
