"""The effect of a retrain, at each boundary one second before and after. T+ is counted from the end of the DAG run."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decide.drift import Firing
from app.effects.rules import Asked, Deaf, Effect, Facts, Judgement, Made, Terms, Why, judge
from app.effects.sums import Sums, total

END = datetime(2026, 11, 3, 12, tzinfo=UTC)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
TERMS = Terms(settle=6 * HOUR, watch=7 * DAY, stale_after=6 * HOUR, grace=HOUR)
CHAMPION = Made("churn", "2", frozenset({"champion"}))


def firing(
    end: timedelta | None = None, *, begin: timedelta = -HOUR, heard: timedelta | None = None, name: str = "Drift"
) -> Firing:
    """An alert, its times counted from the end of the run."""
    ended = END + end if end is not None else None
    last = END + heard if heard is not None else ended or END + 8 * DAY
    return Firing(name, END + begin, ended, last, ended)


def asked(
    at: timedelta, state: str = "promoted", *, alias: str = "champion", undone: timedelta | None = None, ident: int = 1
) -> Asked:
    back = END + undone if undone is not None else None
    return Asked(UUID(int=ident), "churn", "2", alias, state, f"it is {state}", END + at, back)


def facts(*alerts: Firing, **more: Any) -> Facts:
    return Facts(outcome="success", ended_at=END, alerts=alerts or (firing(HOUR),), **more)


def gated(*alerts: Firing, promotions: Sequence[Asked] = (), **more: Any) -> Facts:
    return facts(*alerts, registers=True, versions=(CHAMPION,), promotions=promotions, surveyed_at=END, **more)


def outcome(judgement: Judgement) -> tuple[str | None, str]:
    return judgement.effect, judgement.why


WAITS = None
BARE: list[tuple[str, Facts, timedelta, tuple[Effect | None, Why]]] = [
    ("the run is under way", Facts(None, None), HOUR, (WAITS, Why.RUNNING)),
    ("the run failed", Facts("failed", END), SECOND, (Effect.FAILED, Why.FAILED)),
    ("the run was lost", Facts("lost", END), SECOND, (Effect.FAILED, Why.LOST)),
    ("somebody deleted the run", Facts("gone", END), SECOND, (Effect.FAILED, Why.GONE)),
    ("Airflow never took it", Facts("dead", END), SECOND, (Effect.FAILED, Why.DEAD)),
    ("its route is gone", facts(switched="gone"), SECOND, (Effect.UNKNOWN, Why.SWITCHED)),
    ("nothing stood behind it", Facts("success", END), SECOND, (Effect.UNKNOWN, Why.NO_ALERT)),
    ("it fires, a second before settle", facts(firing()), 6 * HOUR - SECOND, (WAITS, Why.SETTLING)),
    ("it fires at settle", facts(firing()), 6 * HOUR, (Effect.RECURRED, Why.STILL_FIRING)),
    ("it ended at settle", facts(firing(6 * HOUR)), 6 * HOUR, (WAITS, Why.WATCHING)),
    ("it ended a second before settle", facts(firing(6 * HOUR - SECOND)), 7 * DAY, (Effect.FIXED, Why.QUIET)),
    ("it ended a second after settle", facts(firing(6 * HOUR + SECOND)), DAY, (Effect.RECURRED, Why.STILL_FIRING)),
    ("one of two still fires", facts(firing(HOUR), firing()), DAY, (Effect.RECURRED, Why.STILL_FIRING)),
    ("it ended before the run did", facts(firing(-SECOND)), 7 * DAY, (Effect.FIXED, Why.QUIET)),
    ("quiet, a second before watch is over", facts(), 7 * DAY - SECOND, (WAITS, Why.WATCHING)),
    ("quiet until watch is over", facts(), 7 * DAY, (Effect.FIXED, Why.QUIET)),
    (
        "one began a second after the run",
        facts(firing(HOUR), firing(2 * HOUR, begin=SECOND)),
        2 * HOUR,
        (Effect.RECURRED, Why.AGAIN),
    ),
    (
        "one began with the end of the run and ended in time",
        facts(firing(HOUR), firing(HOUR, begin=timedelta(0))),
        7 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    (
        "one began in the last second of watch",
        facts(firing(HOUR), firing(begin=7 * DAY)),
        8 * DAY,
        (Effect.RECURRED, Why.AGAIN),
    ),
    (
        "one began a second after watch",
        facts(firing(HOUR), firing(begin=7 * DAY + SECOND)),
        8 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    ("silent: not stale at settle", facts(firing(heard=timedelta(0))), DAY, (Effect.RECURRED, Why.STILL_FIRING)),
    ("silent: stale by a second at settle", facts(firing(heard=-SECOND)), DAY, (WAITS, Why.SETTLING)),
    ("silent to the end", facts(firing(heard=-SECOND)), 7 * DAY, (Effect.UNKNOWN, Why.STALE)),
    ("silent, and heard again", facts(firing(heard=2 * DAY)), 2 * DAY, (Effect.RECURRED, Why.STILL_FIRING)),
    (
        "a later retrain came before the end",
        facts(firing(5 * HOUR), fires=(END + 4 * HOUR,)),
        7 * DAY,
        (Effect.UNKNOWN, Why.OVERTAKEN),
    ),
    (
        "a later retrain came after the end",
        facts(firing(5 * HOUR), fires=(END + 5 * HOUR + SECOND,)),
        7 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
]


@pytest.mark.parametrize(("known", "later", "expected"), [row[1:] for row in BARE], ids=[row[0] for row in BARE])
def test_without_a_gate_the_time_counts_from_the_end_of_the_run(
    known: Facts, later: timedelta, expected: tuple[Effect | None, Why]
) -> None:
    assert outcome(judge(known, TERMS, END + later)) == expected


REGISTERS = Facts("success", END, registers=True, alerts=(firing(HOUR),))
STEPS = Made("churn", "2", frozenset({"champion"}))
GATED: list[tuple[str, Facts, timedelta, tuple[Effect | None, Why]]] = [
    ("no version, within grace", REGISTERS, HOUR - SECOND, (WAITS, Why.REGISTERING)),
    ("no version, and MLflow was not read", REGISTERS, HOUR, (WAITS, Why.REGISTERING)),
    (
        "no version, MLflow was read a second too early",
        replace(REGISTERS, surveyed_at=END + HOUR - SECOND),
        DAY,
        (WAITS, Why.REGISTERING),
    ),
    (
        "no version, MLflow was read",
        replace(REGISTERS, surveyed_at=END + HOUR),
        HOUR,
        (Effect.NO_MODEL, Why.NO_VERSION),
    ),
    ("MLflow was never read, a second before", REGISTERS, HOUR + 7 * DAY - SECOND, (WAITS, Why.REGISTERING)),
    ("MLflow was never read", REGISTERS, HOUR + 7 * DAY, (Effect.UNKNOWN, Why.UNHEARD)),
    (
        "a model without a gate",
        replace(REGISTERS, versions=(Made("churn", "2"),)),
        7 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    ("nobody asked, within grace", gated(), HOUR - SECOND, (WAITS, Why.PROMOTING)),
    ("nobody asked", gated(), HOUR, (Effect.NOT_PROMOTED, Why.NOT_ASKED)),
    (
        "blocked, within grace",
        gated(promotions=[asked(SECOND, "blocked")]),
        HOUR - SECOND,
        (WAITS, Why.PROMOTING),
    ),
    ("blocked", gated(promotions=[asked(SECOND, "blocked")]), HOUR, (Effect.NOT_PROMOTED, Why.BLOCKED)),
    ("under way", gated(promotions=[asked(SECOND, "moving")]), 2 * HOUR, (WAITS, Why.PROMOTING)),
    (
        "only a step on the way",
        gated(promotions=[asked(SECOND, alias="staging")]),
        HOUR,
        (Effect.NOT_PROMOTED, Why.NOT_ASKED),
    ),
    (
        "promoted after three days: a second before",
        gated(firing(3 * DAY + HOUR), promotions=[asked(3 * DAY)]),
        10 * DAY - SECOND,
        (WAITS, Why.WATCHING),
    ),
    (
        "promoted after three days",
        gated(firing(3 * DAY + HOUR), promotions=[asked(3 * DAY)]),
        10 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    (
        "one began a second before the promotion and ended",
        gated(firing(HOUR), firing(4 * HOUR, begin=2 * HOUR - SECOND), promotions=[asked(2 * HOUR)]),
        8 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    (
        "one began a second after the promotion",
        gated(firing(HOUR), firing(4 * HOUR, begin=2 * HOUR + SECOND), promotions=[asked(2 * HOUR)]),
        8 * DAY,
        (Effect.RECURRED, Why.AGAIN),
    ),
    (
        "promoted before the run ended",
        gated(firing(6 * HOUR), promotions=[asked(-HOUR)]),
        7 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
    (
        "rolled back before it was known",
        gated(promotions=[asked(SECOND, undone=DAY)]),
        DAY,
        (Effect.NOT_PROMOTED, Why.ROLLED_BACK),
    ),
    (
        "rolled back because it recurred",
        gated(firing(HOUR), firing(begin=DAY), promotions=[asked(SECOND, undone=DAY + SECOND)]),
        2 * DAY,
        (Effect.RECURRED, Why.AGAIN),
    ),
    (
        "rolled back, then the alert came",
        gated(firing(HOUR), firing(begin=DAY + SECOND), promotions=[asked(SECOND, undone=DAY)]),
        2 * DAY,
        (Effect.NOT_PROMOTED, Why.ROLLED_BACK),
    ),
    (
        "rolled back and promoted again",
        gated(promotions=[asked(SECOND, undone=HOUR), asked(2 * HOUR, ident=2)]),
        2 * HOUR + 7 * DAY,
        (Effect.FIXED, Why.QUIET),
    ),
]


@pytest.mark.parametrize(("known", "later", "expected"), [row[1:] for row in GATED], ids=[row[0] for row in GATED])
def test_with_a_gate_the_time_counts_from_the_promotion(
    known: Facts, later: timedelta, expected: tuple[Effect | None, Why]
) -> None:
    assert outcome(judge(known, TERMS, END + later)) == expected


def deaf(since: timedelta, until: timedelta | None, why: Why = Why.UNHEARD) -> Deaf:
    return Deaf(why, "nobody heard", END + since, END + until if until is not None else None)


DEAF: list[tuple[str, Facts, tuple[Effect | None, Why]]] = [
    ("for less than settle", facts(deaf=[deaf(DAY, DAY + 6 * HOUR)]), (Effect.FIXED, Why.QUIET)),
    ("for a second more than settle", facts(deaf=[deaf(DAY, DAY + 6 * HOUR + SECOND)]), (Effect.UNKNOWN, Why.UNHEARD)),
    ("at the end of watch", facts(deaf=[deaf(7 * DAY - SECOND, 8 * DAY)]), (Effect.UNKNOWN, Why.UNHEARD)),
    ("and the heartbeat never came back", facts(deaf=[deaf(DAY, None, Why.MUTED)]), (Effect.UNKNOWN, Why.MUTED)),
    ("after watch", facts(deaf=[deaf(7 * DAY + SECOND, 8 * DAY)]), (Effect.FIXED, Why.QUIET)),
    (
        "at settle, and it ended meanwhile or later",
        facts(firing(7 * HOUR), deaf=[deaf(5 * HOUR, 6 * HOUR + SECOND)]),
        (Effect.UNKNOWN, Why.UNHEARD),
    ),
    (
        "at settle, and it still fires afterwards",
        facts(firing(heard=7 * HOUR), deaf=[deaf(5 * HOUR, 6 * HOUR + SECOND)]),
        (Effect.RECURRED, Why.STILL_FIRING),
    ),
    (
        "but an alert came all the same",
        facts(firing(HOUR), firing(begin=2 * DAY), deaf=[deaf(DAY, None)]),
        (Effect.RECURRED, Why.AGAIN),
    ),
]


@pytest.mark.parametrize(("known", "expected"), [row[1:] for row in DEAF], ids=[row[0] for row in DEAF])
def test_when_nobody_could_hear_nothing_is_called_fixed(known: Facts, expected: tuple[Effect | None, Why]) -> None:
    assert outcome(judge(known, TERMS, END + 30 * DAY)) == expected


MINUTES = st.integers(-600, 12_000).map(lambda minutes: timedelta(minutes=minutes))


@st.composite
def histories(draw: st.DrawFn) -> Facts:
    """Alerts of one group as they may come, and a promotion or none."""
    alerts = []
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(MINUTES)
        end = begin + draw(st.timedeltas(timedelta(minutes=1), 2 * DAY)) if draw(st.booleans()) else None
        alerts.append(firing(end, begin=begin, heard=end or begin + draw(st.timedeltas(timedelta(0), 9 * DAY))))
    promotions = []
    if draw(st.booleans()):
        at = draw(st.timedeltas(timedelta(0), 3 * DAY))
        undone = at + draw(st.timedeltas(SECOND, 9 * DAY)) if draw(st.booleans()) else None
        promotions.append(asked(at, undone=undone))
    gate = bool(promotions) or draw(st.booleans())
    return gated(*alerts, promotions=promotions) if gate else replace(facts(), alerts=tuple(alerts))


def seen_by(known: Facts, now: datetime) -> Facts:
    """What of a history is known at a moment."""
    alerts = []
    for each in known.alerts:
        if each.begin <= now:
            ended = each.end is not None and each.end <= now
            alerts.append(each if ended else replace(each, end=None, closed=None, heard=min(each.heard, now)))
    done = [p for p in known.promotions if p.ended_at is not None and p.ended_at <= now]
    shown = [p if p.rolled_back_at and p.rolled_back_at <= now else replace(p, rolled_back_at=None) for p in done]
    return replace(known, alerts=tuple(alerts), promotions=tuple(shown))


@settings(max_examples=400, deadline=None)
@given(histories(), st.lists(st.timedeltas(timedelta(0), 12 * DAY), max_size=6))
def test_a_late_judgement_is_that_of_one_who_looked_all_the_time(known: Facts, looks: list[timedelta]) -> None:
    """In the end each trigger has exactly one effect. An effect that no later fact may change was the last word."""
    last = END + 30 * DAY
    late = judge(seen_by(known, last), TERMS, last)
    assert late.effect is not None
    for look in sorted(looks):
        early = judge(seen_by(known, END + look), TERMS, END + look)
        if early.effect in (Effect.FIXED, Effect.RECURRED):
            assert outcome(early) == outcome(late)
        if early.effect is None and early.until is not None:
            assert early.until >= END + look


@given(st.lists(st.tuples(st.sampled_from([None, *Effect]), st.integers(1, 9), st.floats(0, 1e6))))
def test_the_sums_of_the_table_are_those_of_the_triggers(rows: list[tuple[Effect | None, int, float]]) -> None:
    groups = [Sums("a"), Sums("b")]
    for place, (effect, number, seconds) in enumerate(rows):
        groups[place % 2].add(effect, number, seconds, END)
    whole = total(groups, "churn").shown()
    assert whole["retrains"] == sum(number for _, number, _ in rows)
    assert sum(int(str(whole[name])) for name in [*Effect, "waiting"]) == whole["retrains"]


SENTENCES = [
    ({Effect.FIXED: 1, Effect.RECURRED: 7}, 0, "churn: 8 retrains, 1 fixed: retraining does not help; look at the data"),
    ({Effect.FIXED: 1}, 0, "churn: 1 retrain, 1 fixed: retraining helps"),
    ({Effect.FIXED: 2, Effect.RECURRED: 2}, 1, "churn: 5 retrains, 2 fixed: retraining helps"),
    ({Effect.NO_MODEL: 1, Effect.NOT_PROMOTED: 2, Effect.RECURRED: 1}, 0, "churn: 4 retrains, 0 fixed: retraining brings no "
     "better model; look at the data"),
    ({Effect.FAILED: 3, Effect.RECURRED: 1}, 0, "churn: 4 retrains, 0 fixed: most DAG runs fail; repair the DAG first"),
    ({Effect.UNKNOWN: 2}, 0, "churn: 2 retrains, 0 fixed: nobody can say whether retraining helps"),
    ({}, 1, "churn: 1 retrain, 0 fixed: it is not known yet whether they help"),
]  # fmt: skip


@pytest.mark.parametrize(("effects", "waiting", "sentence"), SENTENCES)
def test_the_sentence_says_whether_retraining_helps(effects: dict[Effect, int], waiting: int, sentence: str) -> None:
    sums = Sums("churn")
    for effect, number in effects.items():
        sums.add(effect, number, 0.0, END)
    if waiting:
        sums.add(None, waiting, 0.0, END)
    assert sums.summary() == sentence
