"""Time over the pure engine: alerts, people and clocks go in, and what would have been started comes out. Pure.

The decisions are those of `app.decide.engine`. Here is only what Postgres, the loops and Airflow do live: each thing that is
due happens at its moment, a fire becomes a DAG run, and the run ends.

    replay = Replay(policy, start, Terms())
    replay.take(alerts, at)              # everything due before `at` happens first
    replay.run_to(at)
    replay.runs                          # each fire, with what became of it
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count
from typing import Final, Literal
from uuid import UUID

from app.decide.alert import Alert
from app.decide.batch import AlertDecision
from app.decide.engine import PureEngine
from app.decide.facts import is_ineffective
from app.decide.rules import ASK_AGAIN, Pause
from app.decide.state import (
    DEAD,
    LIVE,
    SHADOW,
    Confirmation,
    Decision,
    Group,
    HeardAnswer,
    Reason,
    RunRequest,
    Trigger,
    TriggerState,
    group_key,
)
from app.kit.errors import UsageError
from app.policy.schema import Policy, Route
from app.replay.history import (
    Ask,
    Asked,
    Cancelled,
    Event,
    Heard,
    Ineffective,
    Lifted,
    LiveAnswer,
    NotEvaluable,
    Outage,
    Paused,
    Redriven,
    Reloaded,
    Reset,
    nearest,
)
from app.replay.runs import GroupId, Run, Runs, death_of, end_of, group_id, loss_of, ready_at

REORDER: Final = timedelta(minutes=2)  # GATEWAY_REORDER_WINDOW, as it is without the setting

#: A policy that starts more runs than this has a cooldown of about nothing.
MOST_RUNS: Final = 200_000


class Turn(IntEnum):
    """What happens to a run next, in the order in which it happens within one moment."""

    DIE = 0
    END = 1
    LOSE = 2
    ACCEPT = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """What a replay takes for granted: the reorder window, live runs or their length, and the answers of Prometheus: those
    that live got, or who can be asked."""

    reorder: timedelta = REORDER
    runs: Runs = field(default_factory=lambda: Runs(()))
    answers: Sequence[LiveAnswer] = ()
    ask: Ask | None = None


class Replay:
    """One policy through time. `now` never goes back."""

    def __init__(self, policy: Policy, start: datetime, terms: Terms | None = None) -> None:
        self.terms = terms or Terms()
        self.now = self.start = start
        self.runs: list[Run] = []
        self.not_evaluable: list[NotEvaluable] = []
        numbers = count(1)
        self.engine = PureEngine(policy, start, self.terms.reorder, lambda: UUID(int=next(numbers)))
        self._by_trigger: dict[UUID, Run] = {}
        self._agenda: list[tuple[datetime, Turn, UUID]] = []
        self._waiting: list[UUID] = []  # fired, and not yet taken by Airflow; oldest first
        self._open: defaultdict[str, set[UUID]] = defaultdict(set)  # runs that hold a place, by Airflow
        self._answers: defaultdict[GroupId, list[LiveAnswer]] = defaultdict(list)
        self._unanswered: dict[str, datetime] = {}  # when a group was last asked about in vain
        for answer in self.terms.answers:
            self._answers[group_id(answer.route, answer.group)].append(answer)

    # -- what happens -------------------------------------------------------------------------------------------------

    def take(self, alerts: Sequence[Alert], at: datetime) -> list[AlertDecision]:
        """A notification arrives; the decisions in its order."""
        self.run_to(at)
        if (known := self.engine.repeat(alerts, at)) is not None:
            return known
        answers = self.engine.take(alerts, at)
        self._follow()
        return answers

    def request(self, route: Route, group: dict[str, str], request: RunRequest, at: datetime) -> Decision:
        """Somebody asks for a DAG run of a group."""
        self.run_to(at)
        decision = self.engine.request(route, group, request, at)
        self._follow()
        return decision

    def pause(self, pause: Pause, at: datetime) -> None:
        """Somebody mutes a route."""
        self.run_to(at)
        self.engine.pause(pause, at)
        self._settle()

    def lift(self, route: str, at: datetime) -> None:
        """Somebody ends a pause. One that is over already is no pause."""
        self.run_to(at)
        pause = self.engine.pauses.get(route)
        if pause is not None and pause.is_in_force(at):
            self.engine.lift(route, at)
            self._settle()

    def reload(self, policy: Policy, at: datetime) -> None:
        """Another policy comes into force."""
        self.run_to(at)
        self.engine.reload(policy, at)
        self._settle()

    def run_to(self, at: datetime) -> None:
        """Let time pass. What is due until then happens, each thing at its moment."""
        while (due := self._next()) is not None and due <= at:
            self.now = max(due, self.now)
            self._settle()
        self.now = max(at, self.now)

    def end_holds(self) -> None:
        """Let time pass until the debounces under way are over: what is held when a history ends is taken to fire on."""
        ends = [group.wake_at for group in self.engine.groups.values() if group.held and group.wake_at is not None]
        if ends:
            self.run_to(max(ends))

    def play(self, event: Event | LiveAnswer, *, follow_policies: bool) -> None:
        """One event of a history. `follow_policies`: a policy that came into force comes into force here too, and a group
        that live held because retraining did not help is held here. Prometheus is asked whenever live asked it. Whether a
        retrain helps another policy nobody knows."""
        if event.at < self.now:
            event = replace(event, at=self.now)  # It arrived while the gateway was starting.
        match event:
            case Heard():
                self.take(event.alerts, event.at)
            case Outage():
                self._outage(event)
            case Paused():
                self.pause(event.pause, event.at)
            case Lifted():
                self.lift(event.route, event.at)
            case Reloaded():
                if follow_policies:
                    self.reload(event.policy, event.at)
            case Ineffective():
                if follow_policies:
                    self._hold_ineffective(event)
            case LiveAnswer():
                if follow_policies:
                    self._ask_early(event)
            case _:
                self._play_for_group(event)

    def _outage(self, outage: Outage) -> None:
        """Nothing happens until the gateway runs again. Then each hold is longer by that time, as it is live."""
        self.run_to(outage.at)
        until = max(outage.until, self.now)
        for key, group in list(self.engine.groups.items()):
            if group.held and group.held_since is not None:
                held_since = group.held_since + (until - max(group.held_since, outage.at))
                self.engine.groups[key] = replace(group, held_since=held_since)
                self.engine.rows.wake_at(key, until)
        self.now = until
        self._settle()

    def _hold_ineffective(self, event: Ineffective) -> None:
        """The group fires no more, if its route says so. When that ends, a group that was held is decided at once."""
        self.run_to(event.at)
        route = self.engine.policy.route(event.route)
        group = self.engine.groups.get(group_key(event.route, LIVE, event.group))
        if route is None or group is None:
            return
        if event.holds:
            count, under = max(group.ineffective, route.on_no_effect.after), route.digest
            group = replace(group, ineffective=count, ineffective_since=event.at, ineffective_under=under)
        else:
            wake = event.at if is_ineffective(group, route) and group.open_trigger is None else group.wake_at
            group = replace(group, ineffective=0, ineffective_since=None, ineffective_under=None, wake_at=wake)
        self.engine.groups[group.key] = group
        self.engine.rows.wake_later(group.key)
        self._settle()

    def _ask_early(self, event: LiveAnswer) -> None:
        """Live asked Prometheus again before that was due: a gateway that starts looks at every group."""
        self.run_to(event.at)
        route = self.engine.policy.route(event.route)
        group = self.engine.groups.get(group_key(event.route, route.mode, event.group)) if route is not None else None
        if group is None or group.unconfirmed_at is None or group.unconfirmed_at >= event.at:
            return
        if group.open_trigger is None and group.wake_at is not None:
            self.engine.rows.wake_at(group.key, event.at)
            self._settle()

    def _play_for_group(self, event: Asked | Reset | Cancelled | Redriven) -> None:
        route = self.engine.policy.route(event.route)
        if route is None or set(event.group) != set(route.group_by):
            why: Literal["no_route", "group_by"] = "no_route" if route is None else "group_by"
            self.not_evaluable.append(NotEvaluable(event.at, event.route, event.group, why))
            return
        group = {label: event.group[label] for label in route.group_by}
        if isinstance(event, Asked):
            reason = Reason.FORCED if event.force else Reason.MANUAL
            self.request(route, group, RunRequest(reason, event.by, event.why, {}, event.force), event.at)
            return
        self.run_to(event.at)
        known = self.engine.groups.get(group_key(route.name, route.mode, group))
        if known is None:
            return
        if isinstance(event, Reset):
            self.engine.reset(known.key, event.at)
        elif isinstance(event, Cancelled):
            if known.held and known.open_trigger is not None:
                self.engine.cancel(known.open_trigger, event.by, event.at)
        else:
            self._redrive(known, event)
        self._settle()

    def _redrive(self, group: Group, event: Redriven) -> None:
        trigger = self.engine.triggers.get(group.last_trigger) if group.last_trigger else None
        if trigger is None or trigger.state is not TriggerState.DEAD or trigger.on_failure is None:
            self.not_evaluable.append(NotEvaluable(event.at, event.route, event.group, "no_trigger"))
            return
        if self.engine.redrive(trigger.id, event.at) is None:
            self._fired(trigger.id, str(Reason(trigger.reason)), ())

    # -- what time does -----------------------------------------------------------------------------------------------

    def _next(self) -> datetime | None:
        due = self.engine.next_at()
        if self._agenda and (due is None or self._agenda[0][0] < due):
            due = self._agenda[0][0]
        return due

    def _settle(self) -> None:
        """Do what is due now until nothing is, in the order of the product's loops."""
        busy = True
        while busy:
            busy = self._wake()
            busy |= self._take_schedules()
            busy |= self._go_on()
            busy |= self._start()

    def _wake(self) -> bool:
        due = self.engine.rows.next_wake()
        if due is None or due > self.now:
            return False
        heard = None
        if any(route.confirm is not None for route in self.engine.policy.routes):
            asked = self.engine.questions(self.now)
            heard = {group.key: HeardAnswer(group.facts_version, self.answer(group)) for group in asked}
        self.engine.wake(self.now, heard)
        self._note()
        return True

    def _take_schedules(self) -> bool:
        if not self.engine.schedule_is_due(self.now):
            return False
        self.engine.take_schedules(self.now)
        self._note()
        return True

    def answer(self, group: Group) -> Confirmation:
        """What Prometheus said then; without it, what the route does when Prometheus gives no answer."""
        near = nearest(self._answers[group_id(group.route, group.labels)], self.now, ASK_AGAIN / 2)
        route = self.engine.policy.route(group.route)
        fires = route is not None and route.confirm is not None and route.confirm.on_error == "fire"
        if near is not None and near.confirmed is None:
            return Confirmation(fires, "Prometheus gave no answer then", answered=False)
        if near is not None and near.confirmed is not None:
            return Confirmation(near.confirmed, "as Prometheus answered then")
        if self.terms.ask is not None and route is not None and route.confirm is not None:
            answer = self.terms.ask(route.confirm, group.labels, self.now)
            if answer is not None:
                return answer
        last = self._unanswered.get(group.key)
        if fires or last is None or self.now - last > 2 * ASK_AGAIN:
            self.not_evaluable.append(NotEvaluable(self.now, group.route, group.labels, "confirm"))
        self._unanswered[group.key] = self.now
        return Confirmation(fires, "nobody knows what Prometheus would have answered", answered=False)

    # -- what Airflow does --------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        self._note()
        self._settle()

    def _note(self) -> None:
        """Keep the newest fires."""
        fires, self.engine.fires = self.engine.fires, []
        for made in fires:
            behind = tuple(episode.id for episode in made.alerts)
            self._fired(made.id, str(made.reason), behind, rehearsed=made.rehearsed)

    def _fired(self, trigger_id: UUID, reason: str, behind: tuple[UUID, ...], *, rehearsed: bool = False) -> None:
        trigger = self.engine.triggers[trigger_id]
        route = self.engine.policy.route(trigger.route)
        assert trigger.fired_at is not None
        run = Run(trigger_id, trigger.route, trigger.group, reason, trigger.fired_at, behind, rehearsed=rehearsed)
        if len(self.runs) >= MOST_RUNS:
            raise UsageError(f"this policy starts more than {MOST_RUNS} runs: give its routes a cooldown")
        self.runs.append(run)
        run.live = self.terms.runs.take(run.route, run.group, run.fired_at, SHADOW if rehearsed else LIVE)
        if run.live is not None and run.live.fired_at > trigger.fired_at:
            self._fire_later(trigger, run.live.fired_at)
        if rehearsed:
            return
        if route is not None:
            run.airflow, run.timeout = route.dag.airflow, route.run_timeout
        self._by_trigger[trigger_id] = run
        if (death := death_of(run)) is not None:
            self._plan(death, Turn.DIE, trigger_id)
        elif (ready := ready_at(run)) is not None:
            self._waiting.append(trigger_id)
            if ready > self.now:
                self._plan(ready, Turn.ACCEPT, trigger_id)

    def _fire_later(self, trigger: Trigger, at: datetime) -> None:
        """Live acts a little after a moment is due, and what follows counts from then."""
        trigger.fired_at, group = at, self.engine.groups[trigger.key]
        if group.last_trigger == trigger.id:
            self.engine.groups[trigger.key] = replace(group, fired_at=at)

    def _plan(self, at: datetime, turn: Turn, trigger_id: UUID) -> None:
        heappush(self._agenda, (at, turn, trigger_id))

    def _go_on(self) -> bool:
        """What the runs do now: they end, or count as lost."""
        busy = False
        while self._agenda and self._agenda[0][0] <= self.now:
            _, turn, trigger_id = heappop(self._agenda)
            run, busy = self._by_trigger[trigger_id], True
            if turn is Turn.DIE:
                run.ended_at, run.outcome = self.now, DEAD
                self.engine.end(trigger_id, DEAD, self.now)
            elif turn is Turn.END and run.accepted_at is not None:
                end = end_of(run, self.terms.runs.length(run.route))
                assert end is not None
                run.ended_at, run.outcome = self.now, end[1]
                self._open[run.airflow].discard(trigger_id)
                self.engine.end(trigger_id, end[1], self.now)
            elif turn is Turn.LOSE and run.ended_at is None:
                run.lost_at = self.now
                self.engine.lose(trigger_id, self.now)
        return busy

    def _start(self) -> bool:
        """Airflow takes what has fired, the oldest first, as far as it has room."""
        if not self._waiting:
            return False
        started = [trigger_id for trigger_id in self._waiting if self._accept(self._by_trigger[trigger_id])]
        self._waiting = [trigger_id for trigger_id in self._waiting if trigger_id not in started]
        return bool(started)

    def _accept(self, run: Run) -> bool:
        ready = ready_at(run)
        airflow = self.engine.policy.airflow_named(run.airflow)
        room = airflow is None or airflow.max_parallel is None or len(self._open[run.airflow]) < airflow.max_parallel
        if ready is None or ready > self.now or not room:
            return False
        run.accepted_at = self.now
        self._open[run.airflow].add(run.trigger)
        self.engine.accept(run.trigger, self.now)
        end = end_of(run, self.terms.runs.length(run.route))
        if end is not None:
            self._plan(end[0], Turn.END, run.trigger)
        loss = loss_of(run)
        if end is None or loss < end[0]:
            self._plan(loss, Turn.LOSE, run.trigger)
        return True
