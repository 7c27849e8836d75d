"""Did a retrain end what started it? Pure: the facts of a trigger, the terms of its route and one `now` go in, one effect
with its reason comes out.

    fire -> end of the run -> promotion ----- settle -----|------------- watch -------------|
                              (if the model has a gate)   every alert has ended by here     none began up to here: fixed

The clock of `settle` and `watch` begins with the promotion, or with the end of the run where no gate promotes. What is seen
later counts as if it had been seen in time: a late judgement is the same as an early one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.decide.drift import Firing, follows, was_open
from app.decide.state import DEAD, FAILED, GONE, LOST, SUCCESS
from app.kit.times import at
from app.policy.language.durations import format_duration


class Effect(StrEnum):
    """What a retrain has come to."""

    FIXED = "fixed"
    RECURRED = "recurred"
    NOT_PROMOTED = "not_promoted"
    NO_MODEL = "no_model"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Why(StrEnum):
    """The reason of an effect, or what a judgement waits for."""

    QUIET = "quiet"  # fixed: every alert ended, and none began again
    STILL_FIRING = "still_firing"  # recurred: an alert had not ended when `settle` was over
    AGAIN = "again"  # recurred: an alert of the group began within `watch`
    BLOCKED = "blocked"  # not_promoted: the gate refused the version
    NOT_ASKED = "not_asked"  # not_promoted: nobody asked for its promotion
    ROLLED_BACK = "rolled_back"  # not_promoted: its promotion was undone before the effect was known
    NO_VERSION = "no_version"  # no_model: the run registered no version
    FAILED = "failed"  # failed: the DAG run failed
    LOST = "lost"  # failed: the DAG run did not end in time
    GONE = "gone"  # failed: Airflow no longer has the DAG run
    DEAD = "dead"  # failed: Airflow never took the trigger
    STALE = "stale"  # unknown: an alert went silent, and nobody heard its end
    MUTED = "muted"  # unknown: a heartbeat of Prometheus was missing
    UNHEARD = "unheard"  # unknown: no gateway ran, or MLflow could not be read
    SWITCHED = "switched"  # unknown: the route left the policy, or changed its mode or its groups
    NO_ALERT = "no_alert"  # unknown: no alert stood behind it
    OVERTAKEN = "overtaken"  # unknown: a later retrain of the group may have done it
    NOT_JUDGED = "not_judged"  # unknown: it ended before the gateway judged effects
    RUNNING = "running"  # it waits for the end of the DAG run
    REGISTERING = "registering"  # it waits for a version
    PROMOTING = "promoting"  # it waits for a promotion
    SETTLING = "settling"  # it waits for the end of the alerts
    WATCHING = "watching"  # it waits whether an alert begins again


@dataclass(frozen=True, slots=True)
class Made:
    """A model version that the run registered. `gates`: the aliases that the gate gives to a version for use; none: no gate
    promotes this model."""

    model: str
    version: str
    gates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to promote a version that the run registered."""

    id: UUID
    model: str
    version: str
    alias: str
    state: str
    detail: str
    ended_at: datetime | None
    rolled_back_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deaf:
    """A time in which no alert could be heard, and why. `until` None: it goes on."""

    why: Why
    detail: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Terms:
    """`effect` of the route, and the patience with what is delivered late."""

    settle: timedelta
    watch: timedelta
    stale_after: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a fired trigger. `outcome` None: its DAG run is under way. `switched`: why its route can no longer be
    watched. `registers`: its DAG run must register a version. `surveyed_at`: when the newest whole look at MLflow ended.
    `fires`: the later fires of its group."""

    outcome: str | None
    ended_at: datetime | None
    switched: str = ""
    registers: bool = False
    surveyed_at: datetime | None = None
    versions: Sequence[Made] = ()
    promotions: Sequence[Asked] = ()
    alerts: Sequence[Firing] = ()
    fires: Sequence[datetime] = ()
    deaf: Sequence[Deaf] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """One effect, or None while it is not known. `until`: when it may change without a new fact; None: by a new fact alone.
    `counts_from`: when `settle` and `watch` began."""

    effect: Effect | None
    why: Why
    detail: str
    until: datetime | None = None
    counts_from: datetime | None = None
    made: Made | None = None
    promotion: UUID | None = None


_FAILURES: Final = {
    FAILED: (Why.FAILED, "the DAG run failed"),
    LOST: (Why.LOST, "the DAG run did not end in time"),
    GONE: (Why.GONE, "Airflow no longer has the DAG run"),
    DEAD: (Why.DEAD, "Airflow never took the trigger"),
}


def judge(facts: Facts, terms: Terms, now: datetime) -> Judgement:
    """The effect of a fired trigger, as it is known at `now`."""
    if facts.outcome is None or facts.ended_at is None:
        return Judgement(None, Why.RUNNING, "its DAG run has not ended")
    if facts.outcome != SUCCESS:
        why, detail = _FAILURES.get(facts.outcome, (Why.FAILED, f"the DAG run ended as {facts.outcome}"))
        return Judgement(Effect.FAILED, why, detail)
    if facts.switched:
        return Judgement(Effect.UNKNOWN, Why.SWITCHED, facts.switched)
    promoted = _promoted(facts, terms, facts.ended_at, now)
    if promoted.why is not Why.SETTLING or promoted.counts_from is None:
        return promoted
    asked = next((each for each in facts.promotions if each.id == promoted.promotion), None)
    undone = asked.rolled_back_at if asked is not None else None
    found = _heard(facts, terms, promoted.counts_from, undone, now)
    return replace(found, counts_from=promoted.counts_from, made=promoted.made, promotion=promoted.promotion)


# -- from the end of the run to the promotion ---------------------------------------------------------------------------


def _promoted(facts: Facts, terms: Terms, ended_at: datetime, now: datetime) -> Judgement:
    """Whether the new model is in use, and since when (`counts_from`, with SETTLING)."""
    due = ended_at + terms.grace
    if not facts.registers:
        return Judgement(None, Why.SETTLING, "", counts_from=ended_at)
    if not facts.versions:
        return _without_version(facts, terms, due, now)
    gated = [made for made in facts.versions if made.gates]
    if not gated:
        return Judgement(None, Why.SETTLING, "", counts_from=ended_at, made=facts.versions[-1])
    done = [(asked, made) for made in gated for asked in facts.promotions if _gave(asked, made)]
    if done:
        # The newest that is still in force; if all were rolled back, the newest of them.
        asked, made = max(done, key=lambda pair: (pair[0].rolled_back_at is None, pair[0].ended_at or ended_at))
        start = max(asked.ended_at or ended_at, ended_at)
        return Judgement(None, Why.SETTLING, "", counts_from=start, made=made, promotion=asked.id)
    named = f"version {gated[-1].version} of {gated[-1].model}"
    if now < due:
        return Judgement(None, Why.PROMOTING, f"{named} is not promoted yet", due, made=gated[-1])
    if any(asked.state in ("open", "moving") for asked in facts.promotions):
        return Judgement(None, Why.PROMOTING, f"the promotion of {named} is under way", made=gated[-1])
    blocked = [asked for asked in facts.promotions if asked.state not in ("promoted", "passed", "unchanged")]
    if blocked:
        newest = max(blocked, key=lambda asked: (asked.ended_at or ended_at, asked.id))
        detail = f"{named} is not promoted: {newest.detail or newest.state}"
        return Judgement(Effect.NOT_PROMOTED, Why.BLOCKED, detail, made=gated[-1])
    return Judgement(Effect.NOT_PROMOTED, Why.NOT_ASKED, f"nobody promoted {named}", made=gated[-1])


def _gave(asked: Asked, made: Made) -> bool:
    """Whether this request gave the version an alias for use. An alias that another gate only requires is none."""
    same = (asked.model, asked.version) == (made.model, made.version)
    return same and asked.state == "promoted" and asked.alias in made.gates


def _without_version(facts: Facts, terms: Terms, due: datetime, now: datetime) -> Judgement:
    if now < due:
        return Judgement(None, Why.REGISTERING, "its DAG run has registered no version yet", due)
    if facts.surveyed_at is not None and facts.surveyed_at >= due:
        return Judgement(Effect.NO_MODEL, Why.NO_VERSION, "its DAG run registered no model version")
    last = due + max(terms.settle, terms.watch)
    if now < last:
        return Judgement(None, Why.REGISTERING, "MLflow has not been read since the DAG run ended", last)
    return Judgement(Effect.UNKNOWN, Why.UNHEARD, "MLflow could not be read, so its versions are not known")


# -- from the promotion to the end of `watch` ---------------------------------------------------------------------------


def _heard(facts: Facts, terms: Terms, start: datetime, undone: datetime | None, now: datetime) -> Judgement:
    """Whether the alerts of the group ended, and stayed away. `undone`: when the promotion was rolled back."""
    settled, over = start + terms.settle, start + max(terms.settle, terms.watch)
    before = [firing for firing in facts.alerts if firing.begin <= start]
    if not before:
        return Judgement(Effect.UNKNOWN, Why.NO_ALERT, "no alert stood behind it, so there was nothing to end")
    bad = _evidence(facts, terms, start, now)
    if undone is not None and undone <= (bad.until if bad is not None and bad.until is not None else over):
        detail = f"its promotion was rolled back at {at(undone)}, before its effect was known"
        return Judgement(Effect.NOT_PROMOTED, Why.ROLLED_BACK, detail)
    if bad is not None:
        return replace(bad, until=None)
    if now >= over:
        return _when_over(facts, terms, start, before)
    if any(was_open(firing, start) and firing.end is None for firing in before):
        due = settled if now < settled else over
        return Judgement(None, Why.SETTLING, f"its alerts have until {at(settled)} to end", due)
    return Judgement(None, Why.WATCHING, f"its alerts ended; none may begin again before {at(over)}", over)


def _evidence(facts: Facts, terms: Terms, start: datetime, now: datetime) -> Judgement | None:
    """The first sign that the retrain did not end it; its time is in `until`."""
    settled = start + terms.settle
    found: list[Judgement] = []
    for firing in facts.alerts:
        if start < firing.begin and follows(start, firing.begin, terms.watch):
            after = format_duration(firing.begin - start)
            detail = f"{firing.alert_id} began again {after} after the new model"
            found.append(Judgement(Effect.RECURRED, Why.AGAIN, detail, firing.begin))
        elif firing.begin <= start and now >= settled and _fired_at(firing, facts.deaf, start, settled, terms):
            detail = f"{firing.alert_id} still fired {format_duration(terms.settle)} after the new model"
            found.append(Judgement(Effect.RECURRED, Why.STILL_FIRING, detail, settled))
    return min(found, key=lambda each: each.until or now, default=None)


def _fired_at(firing: Firing, deaf: Iterable[Deaf], start: datetime, moment: datetime, terms: Terms) -> bool:
    """Whether an alert from before `start` fired at `moment`: it had not ended, and was not silent for too long."""
    if not was_open(firing, start) or (firing.end is not None and firing.end <= moment):
        return False
    silence = covering(deaf, moment)
    if silence is not None:  # Its end may have been sent while nobody heard. Only what came afterwards counts.
        return firing.end is None and silence.until is not None and firing.heard > silence.until
    # An end that came later, or a notification after that moment, says that it fired then.
    return firing.end is not None or firing.heard + terms.stale_after >= moment


def covering(deaf: Iterable[Deaf], moment: datetime) -> Deaf | None:
    """What kept alerts from being heard at this moment."""
    return next((d for d in deaf if d.since <= moment and (d.until is None or d.until >= moment)), None)


def _when_over(facts: Facts, terms: Terms, start: datetime, before: Sequence[Firing]) -> Judgement:
    """At the end of `watch` nothing speaks against it: fixed, unless nobody could hear, or another retrain did it."""
    settled, over = start + terms.settle, start + max(terms.settle, terms.watch)
    for firing in before:
        if firing.end is None and was_open(firing, start):
            detail = f"{firing.alert_id} went silent at {at(firing.heard)}, and nobody heard its end"
            return Judgement(Effect.UNKNOWN, Why.STALE, detail)
    late = any(firing.end is not None and firing.end > settled for firing in before)
    deaf = (covering(facts.deaf, settled) if late else None) or _deaf_at_the_end(facts.deaf, terms, start, over)
    if deaf is not None:
        return Judgement(Effect.UNKNOWN, deaf.why, deaf.detail)
    last = max((firing.end for firing in before if firing.end is not None), default=start)
    if any(start < fired <= last for fired in facts.fires):
        detail = "a later retrain of its group began before its alerts ended: that one may have ended them"
        return Judgement(Effect.UNKNOWN, Why.OVERTAKEN, detail)
    detail = f"its alerts ended, and none of its group began within {format_duration(terms.watch)}"
    return Judgement(Effect.FIXED, Why.QUIET, detail)


def _deaf_at_the_end(deaf: Sequence[Deaf], terms: Terms, start: datetime, over: datetime) -> Deaf | None:
    """What kept alerts from being heard at the end of `watch`, or for longer than `settle` in all."""
    silence = covering(deaf, over)
    if silence is not None:
        return silence
    missed = [(min(d.until, over) - max(d.since, start), d) for d in deaf if d.until is not None and d.since < over]
    missed = [(time, each) for time, each in missed if time > timedelta(0)]
    if sum((time for time, _ in missed), timedelta(0)) <= terms.settle:
        return None
    return max(missed, key=lambda pair: pair[0])[1]
