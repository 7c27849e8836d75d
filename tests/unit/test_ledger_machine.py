"""No sequence of alerts, resolves, wakes, clock jumps, failures and replicas starts a run too many or too few.

The machine keeps its own account of what may fire, from the words of the contract and not from app.decide.rules.
"""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.decide.alert import Alert
from app.decide.state import DEAD, FAILED, GONE, OPEN_STATES, SUCCESS, Action, Episode, Reason, Trigger, TriggerState
from tests.sizes import size
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, REORDER, firing, policy, resolved
from tests.unit.ledger_account import Account
from tests.unit.replicas import LONGEST_QUESTION, Fired, Replicas

REASONS = {
    Action.FIRE: {Reason.NEW_ALERT, Reason.STILL_FIRING},
    Action.HOLD: {Reason.DEBOUNCING, Reason.JOINED},
    Action.SUPPRESS: {
        Reason.DUPLICATE,
        Reason.COOLDOWN,
        Reason.IN_FLIGHT,
        Reason.MUTED,
        Reason.UNCONFIRMED,
        Reason.SHADOW,
    },
    Action.CANCEL: {Reason.RESOLVED_WHILE_HELD, Reason.BY_REQUEST},
    Action.IGNORE: {Reason.NO_ROUTE, Reason.RESOLVED},
}
FINGERPRINTS = {
    "a": {"model": "churn"},
    "b": {"model": "churn"},
    "c": {"model": "churn"},
    "d": {"model": "fraud"},
    "e": {"model": "fraud"},
    "x": {"alertname": "Unrouted"},
}
NATIVE = {"c", "e"}
SECOND = timedelta(seconds=1)
CONFIRM = {"prometheus": "http://prometheus.test", "query": "drift > 1"}

OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "debounce": st.sampled_from([timedelta(0), timedelta(0), 10 * MINUTE, HOUR]),
        "cooldown": st.sampled_from([timedelta(0), HOUR, DAY]),
        "refire": st.booleans(),
        "on_failure": st.sampled_from(["release", "release", "keep"]),
        "failure_backoff": st.sampled_from([timedelta(0), 30 * MINUTE, 2 * HOUR]),
        "stale_after": st.sampled_from([6 * HOUR, 2 * DAY]),
        "mute": st.sampled_from([[], [], ["night"]]),
        "mode": st.sampled_from(["live", "live", "shadow"]),
    },
    optional={"confirm": st.just(CONFIRM)},
)
CONFIRMED = st.sets(st.sampled_from(["churn", "fraud"]))  # the models of which Prometheus says yes
NOTES = st.lists(
    st.tuples(
        st.sampled_from(sorted(FINGERPRINTS)),
        st.sampled_from(["firing", "firing", "firing", "again", "resolved", "resolved", "old_resolved"]),
        st.integers(-90, 200),  # seconds by which a replica of the sender sees its startsAt otherwise
    ),
    min_size=1,
    max_size=4,
)
AGES = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(0, 5)))
PASSING = st.one_of(
    st.integers(0, 30).map(lambda n: timedelta(seconds=n)),
    st.integers(1, 180).map(lambda n: timedelta(minutes=n)),
    st.integers(1, 72).map(lambda n: timedelta(hours=n)),
)


class Gateway(RuleBasedStateMachine):
    @initialize(options=OPTIONS)
    def start(self, options: dict[str, Any]) -> None:
        matched = {"name": "accuracy", "match": ['alertname="ModelAccuracyLow"'], "group_by": ["model"]}
        self.options = {**matched, **options}
        self.route = policy(self.options).routes[0]
        self.sim = Replicas(policy(self.options))
        self.accounts: dict[str, Account] = {}
        self.sent: dict[str, int] = dict.fromkeys(FINGERPRINTS, 0)
        self.began: dict[str, datetime] = dict.fromkeys(FINGERPRINTS, NOW)
        self.cancelled: set[str] = set()  # groups whose hold a person cancelled: their next notification decides
        self.checked = 0
        self.paused = False
        self.paused_until: datetime | None = None
        self.answers: dict[
            str, tuple[datetime, bool]
        ] = {}  # what Prometheus said last of a group, until that has fired

    # -- what senders do -----------------------------------------------------------------------------------------------

    @rule(notes=NOTES, ages=AGES)
    def notify(self, notes: list[tuple[str, str, int]], ages: tuple[int, int] | None) -> None:
        alerts = [self.notification(*note) for note in notes]
        for alert in alerts:
            self.sent[alert.fingerprint] += 1
        for decision in self.sim.notify(alerts, ages):
            assert decision.reason in REASONS[decision.action]
            assert decision.detail

    @rule(fingerprint=st.sampled_from(sorted(FINGERPRINTS)), times=st.integers(1, 3), ages=AGES)
    def repeat(self, fingerprint: str, times: int, ages: tuple[int, int] | None) -> None:
        alert = self.notification(fingerprint, "firing", 0)
        self.sent[fingerprint] += times
        self.sim.notify([alert] * times, ages)

    def notification(self, fingerprint: str, kind: str, jitter: int) -> Alert:
        labels, native = FINGERPRINTS[fingerprint], fingerprint in NATIVE
        moved = timedelta(seconds=jitter)
        if kind == "again":
            self.began[fingerprint] = self.sim.now
        if kind == "resolved":
            return resolved(fingerprint, self.sim.now, self.began[fingerprint], native=native, **labels)
        if kind == "old_resolved":
            ended = self.began[fingerprint] - HOUR + moved
            return resolved(fingerprint, ended, ended - HOUR, native=native, **labels)
        return firing(
            fingerprint, (self.sim.now if native else self.began[fingerprint]) + moved, native=native, **labels
        )

    # -- what time, Airflow and people do ------------------------------------------------------------------------------

    @rule(time=PASSING)
    def pass_by(self, time: timedelta) -> None:
        self.sim.pass_by(time)

    @precondition(lambda self: any(g.wake_at for g in self.sim.engine.groups.values()))
    @rule(off=st.sampled_from([-SECOND, timedelta(0), SECOND]))
    def jump_to_next_wake(self, off: timedelta) -> None:
        soonest = min(g.wake_at for g in self.sim.engine.groups.values() if g.wake_at is not None)
        self.sim.pass_by(max(soonest + off - self.sim.now, timedelta(0)))

    @precondition(lambda self: self.sim.due())
    @rule(confirmed=st.one_of(CONFIRMED, CONFIRMED, st.none()))
    def wake(self, confirmed: set[str] | None) -> None:
        """With the answers of now, or with what was asked before, if that still counts."""
        if confirmed is not None and self.route.confirm is not None:
            self.ask(confirmed)
        self.sim.wake()

    @precondition(lambda self: self.route.confirm is not None and self.sim.due())
    @rule(confirmed=CONFIRMED)
    def ask(self, confirmed: set[str]) -> None:
        for key, yes in self.sim.ask(confirmed).items():
            self.answers[key] = self.sim.now, yes

    @precondition(lambda self: self.fired(accepted=False))
    @rule(pick=st.integers(0, 9))
    def airflow_takes_it(self, pick: int) -> None:
        trigger = self.pick(self.fired(accepted=False), pick)
        self.sim.accept(trigger)
        self.accounts[trigger.key].accepted_at = self.sim.now

    @precondition(lambda self: self.fired(accepted=False))
    @rule(pick=st.integers(0, 9))
    def delivery_gives_up(self, pick: int) -> None:
        self.ends(self.pick(self.fired(accepted=False), pick), DEAD)

    @precondition(lambda self: self.fired(accepted=True))
    @rule(pick=st.integers(0, 9), outcome=st.sampled_from([SUCCESS, SUCCESS, FAILED, GONE]))
    def run_ends(self, pick: int, outcome: str) -> None:
        self.ends(self.pick(self.fired(accepted=True), pick), outcome)

    @precondition(lambda self: any(not t.lost_at for t in self.fired(accepted=True)))
    @rule(pick=st.integers(0, 9))
    def run_is_lost(self, pick: int) -> None:
        trigger = self.pick([t for t in self.fired(accepted=True) if not t.lost_at], pick)
        self.accounts[trigger.key].failures += 1
        self.sim.lose(trigger)

    @precondition(lambda self: self.sim.triggers(TriggerState.DEAD))
    @rule(pick=st.integers(0, 9))
    def redrive(self, pick: int) -> None:
        trigger = self.pick(self.sim.triggers(TriggerState.DEAD), pick)
        self.sim.redrive(trigger)

    @precondition(lambda self: self.sim.engine.groups)
    @rule(pick=st.integers(0, 9))
    def reset(self, pick: int) -> None:
        key = sorted(self.sim.engine.groups)[pick % len(self.sim.engine.groups)]
        self.sim.reset(key)
        account = self.accounts.setdefault(key, Account())
        account.was_reset, account.failures = True, 0

    @precondition(lambda self: self.sim.triggers(TriggerState.HELD))
    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        trigger = self.pick(self.sim.triggers(TriggerState.HELD), pick)
        self.sim.cancel(trigger)
        self.cancelled.add(trigger.key)

    @rule()
    def change_mode(self) -> None:
        self.options["mode"] = {"live": "shadow", "shadow": "live"}[self.options["mode"]]
        changed = policy(self.options)
        self.route = changed.routes[0]
        self.sim.reload(changed)

    @rule(lasts=st.sampled_from([None, MINUTE, 3 * HOUR, 2 * DAY]))
    def pause(self, lasts: timedelta | None) -> None:
        self.paused = True
        self.paused_until = self.sim.now + lasts if lasts is not None else None
        self.sim.pause(self.paused_until)

    @precondition(lambda self: self.paused)
    @rule()
    def lift(self) -> None:
        self.paused = False
        self.sim.lift()

    def is_muted(self, at: datetime) -> bool:
        """By the words of the policy and of the person, and nothing else."""
        night = bool(self.route.mute) and (at.hour >= 22 or at.hour < 6)
        return night or (self.paused and (self.paused_until is None or at < self.paused_until))

    def mute_ends(self, at: datetime) -> datetime | None:
        """None: when somebody lifts the pause."""
        while self.is_muted(at):
            if self.paused and self.paused_until is None:
                return None
            if self.paused and self.paused_until is not None and at < self.paused_until:
                at = self.paused_until
            else:
                at = at.replace(minute=0, second=0, microsecond=0) + HOUR
        return at

    def fired(self, *, accepted: bool) -> list[Trigger]:
        return self.sim.triggers(TriggerState.SUBMITTED if accepted else TriggerState.PENDING)

    @staticmethod
    def pick(triggers: list[Trigger], number: int) -> Trigger:
        return triggers[number % len(triggers)]

    def ends(self, trigger: Trigger, outcome: str) -> None:
        account, counted = self.accounts[trigger.key], trigger.lost_at is not None
        self.sim.end(trigger, outcome)
        account.outcome, account.ended_at = outcome, self.sim.now
        account.failures = 0 if outcome == SUCCESS else account.failures + (not counted)

    # -- what must hold after each of it -------------------------------------------------------------------------------

    @invariant()
    def one_open_trigger_a_group(self) -> None:
        for key, group in self.sim.engine.groups.items():
            open_ones = [t.id for t in self.sim.open_of(key)]
            assert open_ones == ([group.open_trigger] if group.open_trigger else [])
            held = bool(open_ones) and self.sim.engine.triggers[open_ones[0]].state is TriggerState.HELD
            assert group.held == held

    @invariant()
    def no_fire_within_a_cooldown_or_a_backoff(self) -> None:
        for fired in self.sim.fires[self.checked :]:
            account = self.accounts.setdefault(fired.trigger.key, Account())
            clear = account.clear_at(self.route)
            own_death = fired.redriven and account.newest is not None and account.newest.trigger.id == fired.trigger.id
            if clear is not None and not account.was_reset and not own_death:
                assert account.ended_at is not None, "it fired beside another"
                assert fired.at >= clear
            self.accounts[fired.trigger.key] = account = Account(newest=fired, failures=account.failures)
            if self.sim.engine.groups[fired.trigger.key].mode == "shadow":
                assert fired.trigger.state is TriggerState.CANCELLED, "a rehearsal starts nothing"
                account.ended_at, account.outcome, account.failures = fired.at, SUCCESS, 0
            if not fired.redriven:
                self.fires_for_a_reason(fired)
        self.checked = len(self.sim.fires)

    def fires_for_a_reason(self, fired: Fired) -> None:
        assert not self.is_muted(fired.at)
        behind = fired.behind
        assert behind
        assert len({e.id for e in behind}) == len(behind)
        # A later line of the same batch may have closed one of them by now.
        assert all(e.firing or e.closed_at == fired.at for e in behind)
        assert all(fired.at - e.last_seen_at <= self.route.stale_after for e in behind)
        held_since = fired.held_since
        calm_since = [held_since] if held_since is not None else [e.firing_since for e in behind]
        assert min(calm_since) + self.route.debounce <= fired.at
        if not self.route.refire:
            assert not any(e.spent for e in behind)
        if self.route.confirm is not None:
            at, yes = self.answers.pop(fired.trigger.key)
            assert yes, "Prometheus said no"
            assert fired.at - at <= LONGEST_QUESTION
            assert min(e.firing_since for e in behind) <= at, "Prometheus was asked about what is over"

    @invariant()
    def nothing_suppressed_is_forgotten(self) -> None:
        for key, group in self.sim.engine.groups.items():
            waiting = [e for e in self.sim.engine.episodes.values() if e.group_key == key and self.waits(e)]
            if group.open_trigger is not None and not group.held:
                continue
            if group.held:
                assert group.wake_at is not None
                assert group.held_since is not None
                asking = self.route.confirm is not None and group.wake_at <= self.sim.now
                assert asking or group.wake_at <= group.held_since + self.route.debounce
            elif waiting and key not in self.cancelled:
                quiet = self.mute_ends(self.sim.now)
                if quiet is None:
                    continue  # Whoever lifts the pause has it looked at.
                if group.mode == "shadow" and group.fired_at is not None and not self.route.cooldown:
                    continue  # A rehearsed run takes no time: without a cooldown the next notification decides.
                assert group.wake_at is not None, "nothing will ever look at it again"
                clear = self.accounts.get(key, Account()).clear_at(self.route)
                late = max((e.resolved_at + REORDER for e in waiting if e.resolved_at is not None), default=None)
                assert group.wake_at <= max(filter(None, (clear, late, quiet, self.asked_again(key))))

    def asked_again(self, key: str) -> datetime | None:
        """When Prometheus, that has said no, is asked at the latest; its answer may have been on its way for a while."""
        at, yes = self.answers.get(key, (self.sim.now, True))
        return None if yes else at + LONGEST_QUESTION + 5 * MINUTE

    def waits(self, episode: Episode) -> bool:
        """It fires, or may reopen; it was heard of; and a trigger could still come of it."""
        if not episode.firing:
            return episode.late_at is not None
        stale = self.sim.now - episode.last_seen_at > self.route.stale_after
        return not stale and (self.route.refire or not episode.spent)

    @invariant()
    def every_episode_has_its_decision_and_its_count(self) -> None:
        rows = {d.id: d for d in self.sim.engine.decisions}
        counted = dict.fromkeys(FINGERPRINTS, 0)
        for episode in self.sim.engine.episodes.values():
            counted[episode.fingerprint] += episode.count
            assert episode.decision_id is not None
            newest = rows[episode.decision_id]
            assert (newest.alert, newest.action, newest.reason) == (episode.id, episode.action, episode.reason)
            assert newest.reason in REASONS[Action(newest.action)]
            assert newest.detail
        assert counted == self.sent

    @invariant()
    def one_open_episode_a_fingerprint(self) -> None:
        still_open = [e.fingerprint for e in self.sim.engine.episodes.values() if e.firing]
        assert len(still_open) == len(set(still_open))

    def teardown(self) -> None:
        """In the end every group is woken until it rests: then what waits is under way, or its time has not come."""
        if not hasattr(self, "sim") or self.checked < len(self.sim.fires):
            return  # It never began, or a step has broken an invariant: that is what is told.
        for _ in range(20):
            if self.sim.due():
                self.wake({"churn"})
        self.no_fire_within_a_cooldown_or_a_backoff()
        assert not self.sim.due()
        assert all(t.state in OPEN_STATES for k in self.sim.engine.groups for t in self.sim.open_of(k))
        self.nothing_suppressed_is_forgotten()


Gateway.TestCase.settings = settings(
    max_examples=size(150, 3000),
    stateful_step_count=40,
    deadline=None,
    derandomize=size(True, False),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    phases=[Phase.generate],
)
TestGateway = Gateway.TestCase
