"""Replicas of a gateway, as the engine in plain memory sees them: the rows are locked, so that they are one engine, but a
batch may be answered from a memory that is behind. Each fire is kept with what was true of it then."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from app.decide.alert import Alert
from app.decide.batch import AlertDecision, Fold, fold
from app.decide.engine import PureEngine
from app.decide.ledger import Ledger
from app.decide.repeats import known_of
from app.decide.rules import Pause
from app.decide.state import OPEN_STATES, Confirmation, Decision, Episode, Group, HeardAnswer, Trigger, TriggerState
from app.policy.schema import Policy
from tests.unit.builders import NOW, REORDER, ids

#: A question to Prometheus that is on its way for longer has no answer.
LONGEST_QUESTION = timedelta(seconds=30)


@dataclass(frozen=True)
class Fired:
    """One fire or redrive. `behind` are the alerts as they were when it fired."""

    trigger: Trigger
    at: datetime
    redriven: bool
    held_since: datetime | None = None
    behind: Sequence[Episode] = ()


class Replicas:
    """Every method is one pass at `now`."""

    def __init__(self, policy: Policy) -> None:
        self.now = NOW
        self.engine = PureEngine(policy, NOW, REORDER, ids())
        self.fires: list[Fired] = []
        self.from_memory = 0
        self._held_since: dict[UUID, datetime | None] = {}
        self._asked: dict[str, HeardAnswer] = {}
        self._remembered: deque[tuple[dict[str, Group], dict[str, Episode]]] = deque(maxlen=8)

    # -- alerts --------------------------------------------------------------------------------------------------------

    def notify(self, alerts: Sequence[Alert], ages: tuple[int, int] | None) -> list[Decision]:
        """One batch. `ages`: how many passes ago the copies of groups and of episodes in memory were made."""
        answers: dict[int, AlertDecision] = {}
        if ages is not None and self._remembered:
            answers = self._from_memory(fold(alerts, self.engine.policy), ages)
        left = [at for at in range(len(alerts)) if at not in answers]
        before = dict(self.engine.episodes)
        answers |= zip(left, self.engine.take([alerts[at] for at in left], self.now), strict=True)
        self._keep(before)
        return [answers[at].decision for at in range(len(alerts))]

    def _from_memory(self, folds: list[Fold], ages: tuple[int, int]) -> dict[int, AlertDecision]:
        """As app.intake.fast_path: nothing of it when an episode or a group is not as it is remembered."""
        engine, oldest = self.engine, len(self._remembered) - 1
        groups = self._remembered[-1 - min(ages[0], oldest)][0]
        episodes = self._remembered[-1 - min(ages[1], oldest)][1]
        ledger = Ledger(engine.policy, self.now, REORDER, ids())  # Memory knows of no pause.
        known = known_of(folds, groups, episodes, ledger)
        counted = []
        for each, _ in known:
            key, remembered = each.intent.key, episodes[each.intent.alert.fingerprint]
            row = engine.episodes.get(remembered.id)
            if row is None or not row.firing or row.decision_id != remembered.decision_id:
                return {}
            if key is not None and engine.groups[key].version != groups[key].version:
                return {}
            counted.append((row, len(each.positions)))
        for row, times in counted:
            row.count, row.decision_count, row.last_seen_at = row.count + times, row.decision_count + times, self.now
        self.from_memory += len(counted)
        return {at: answer for each, answer in known for at in each.positions}

    # -- everything else that changes a group --------------------------------------------------------------------------

    def ask(self, confirmed: Collection[str]) -> dict[str, bool]:
        """Prometheus is asked, and says yes about these models. It counts in the next wake."""
        groups = self.engine.questions(self.now)
        answers = {group.key: group.labels["model"] in confirmed for group in groups}
        self._asked = {g.key: HeardAnswer(g.facts_version, Confirmation(answers[g.key], "by a test")) for g in groups}
        return answers

    def wake(self) -> None:
        before, asked = dict(self.engine.episodes), self._asked
        self._asked = {}
        self.engine.wake(self.now, asked)
        self._keep(before)

    def accept(self, trigger: Trigger) -> None:
        self.engine.accept(trigger.id, self.now)
        self._remember()

    def end(self, trigger: Trigger, outcome: str) -> None:
        assert self.engine.groups[trigger.key].open_trigger == trigger.id
        assert self.engine.end(trigger.id, outcome, self.now)
        self._remember()

    def lose(self, trigger: Trigger) -> None:
        assert self.engine.lose(trigger.id, self.now)
        self._remember()

    def redrive(self, trigger: Trigger) -> None:
        if self.engine.redrive(trigger.id, self.now) is None:
            self.fires.append(Fired(trigger, self.now, redriven=True))
        self._remember()

    def reset(self, key: str) -> None:
        self.engine.reset(key, self.now)
        self._remember()

    def cancel(self, trigger: Trigger) -> None:
        before = dict(self.engine.episodes)
        assert self.engine.cancel(trigger.id, "a test", self.now)
        self._keep(before)

    def reload(self, policy: Policy) -> None:
        self._asked = {}
        self.engine.reload(policy, self.now)

    def pause(self, until: datetime | None) -> None:
        self.engine.pause(Pause("accuracy", until, "a test", "ana", self.now), self.now)

    def lift(self) -> None:
        self.engine.lift("accuracy", self.now)

    def pass_by(self, time: timedelta) -> None:
        self.now += time
        if time > LONGEST_QUESTION:
            self._asked = {}

    # -- looking -------------------------------------------------------------------------------------------------------

    def due(self) -> list[str]:
        return self.engine.rows.due(self.now)

    def triggers(self, *states: TriggerState) -> list[Trigger]:
        return [t for t in self.engine.triggers.values() if t.state in states]

    def open_of(self, key: str) -> list[Trigger]:
        return [t for t in self.triggers(*OPEN_STATES) if t.key == key]

    def _keep(self, before: dict[UUID, Episode]) -> None:
        """The fires of the newest pass. A rehearsal spends its alerts at once: `before` says what they were."""
        for made in self.engine.books.triggers.values():
            if made.state is TriggerState.HELD:
                self._held_since[made.id] = made.group.held_since
            if made.fired:
                behind = [replace(e, spent=_was_spent(e, before)) for e in made.alerts]
                trigger = self.engine.triggers[made.id]
                self.fires.append(Fired(trigger, self.now, False, self._held_since.get(made.id), behind))
        self._remember()

    def _remember(self) -> None:
        firing = (e for e in self.engine.episodes.values() if e.firing)
        episodes = {e.fingerprint: replace(e, labels={}, annotations={}) for e in firing}
        self._remembered.append(({k: replace(g) for k, g in self.engine.groups.items()}, episodes))


def _was_spent(episode: Episode, before: dict[UUID, Episode]) -> bool:
    """Before the pass, in the group that it has now: a change of mode starts clean."""
    known = before.get(episode.id)
    return known is not None and known.spent and known.group_key == episode.group_key
