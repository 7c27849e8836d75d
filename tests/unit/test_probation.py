"""The probation of a promotion, at each boundary one second before and after. T+ is counted from the promotion."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.effects.probation import Against, Facts, Judgement, judge
from app.effects.rules import Deaf, Why
from app.policy.file.load import parse_policy
from app.policy.promotions import Probation
from app.promotion.model import BY_PROBATION, Standing
from app.promotion.store import Promotion

T = datetime(2026, 11, 3, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POLICY = """
version: 1
airflow: [{name: a, url: http://a}]
routes: []
mlflow: {tracking_uri: http://m}
promotions:
"""


def terms(then: str = "rollback", **more: str) -> Probation:
    """The terms of a policy: 48h, and what `more` says."""
    keys = {"match": "['alertname=\"Low\"']", "then": then} | more
    text = f"  - {{model: churn, to: champion, probation: {{{', '.join(f'{k}: {v}' for k, v in keys.items())}}}}}"
    found = parse_policy(POLICY + text, "p.yaml", {}).promotions[0].probation
    assert found is not None
    return found


TERMS = terms()


def row(state: str = "promoted", ended: timedelta = timedelta(0), **more: Any) -> Promotion:
    """A row of the journal; without more, the promotion itself."""
    values: dict[str, Any] = {
        "kind": "promote",
        "registry": "mlflow",
        "model": "churn",
        "alias": "champion",
        "version": "4",
        "previous": "3",
        "mode": "live",
        "requested_by": "ci",
        "policy": "p",
        "created_at": T + ended,
        "ended_at": None if state in ("open", "moving") else T + ended,
    }
    return Promotion(id=UUID(int=1), state=state, **(values | more))


def back(state: str, ended: timedelta, **more: Any) -> Promotion:
    """A rollback that the probation asked for."""
    return row(state, ended, kind="rollback", requested_by=BY_PROBATION, reason="its probation failed: Low", **more)


def alert(
    begin: timedelta = HOUR,
    closed: timedelta | None = None,
    *,
    debounce: timedelta = 10 * MINUTE,
    heard: timedelta | None = None,
    **more: Any,
) -> Against:
    """An alert that began then, and is heard of once unless `heard` says more."""
    ended = None if closed is None else T + closed
    last = T + (heard if heard is not None else begin)
    return Against(UUID(int=7), "Low", T + begin, T + begin, last, ended, debounce, 6 * HOUR, **more)


def facts(*alerts: Against, **more: Any) -> Facts:
    known: dict[str, Any] = {"promotion": row(), "promoted_at": T, "alerts": alerts}
    return Facts(**(known | more))


ROLLS_BACK = "rolls back"


def outcome(found: Judgement) -> str:
    return ROLLS_BACK if found.rolls_back else str(found.standing)


def deaf(since: timedelta, until: timedelta | None) -> Deaf:
    return Deaf(Why.UNHEARD, "no gateway ran", T + since, T + until if until is not None else None)


LASTED = HOUR + 10 * MINUTE
NO_WAY = {"rule": "version", "passed": False, "detail": "version 3 is gone", "final": True}
HELD = {"rule": "holds champion", "passed": False, "detail": "version 7 holds champion", "final": True}
CASES: list[tuple[str, Facts, Probation | None, timedelta, str]] = [
    ("nothing happens, a second before the end", facts(), TERMS, 48 * HOUR - SECOND, "watching"),
    ("nothing happened", facts(), TERMS, 48 * HOUR, "passed"),
    ("it began with the promotion", facts(alert(timedelta(0))), TERMS, 2 * HOUR, "watching"),
    ("it began a second before", facts(alert(-SECOND)), TERMS, 2 * HOUR, "watching"),
    ("it began a second after", facts(alert(SECOND)), TERMS, 2 * HOUR, ROLLS_BACK),
    ("it began with the end", facts(alert(48 * HOUR)), TERMS, 49 * HOUR, "passed"),
    ("it fires, a second too short", facts(alert()), TERMS, LASTED - SECOND, "watching"),
    ("it lasted", facts(alert()), TERMS, LASTED, ROLLS_BACK),
    ("it ended a second before", facts(alert(closed=LASTED - SECOND)), TERMS, LASTED, "watching"),
    ("it ended at that moment", facts(alert(closed=LASTED)), TERMS, 48 * HOUR, "passed"),
    ("it ended a second after", facts(alert(closed=LASTED + SECOND)), TERMS, 2 * HOUR, ROLLS_BACK),
    ("it ended long before the look", facts(alert(closed=LASTED + SECOND)), TERMS, 50 * HOUR, ROLLS_BACK),
    ("without debounce at once", facts(alert(debounce=timedelta(0))), TERMS, HOUR, ROLLS_BACK),
    ("it was over when it arrived", facts(alert(closed=HOUR, debounce=timedelta(0))), TERMS, 2 * HOUR, "watching"),
    ("it begins at the end and lasts", facts(alert(48 * HOUR - SECOND)), TERMS, 48 * HOUR + 5 * MINUTE, "watching"),
    ("and lasted", facts(alert(48 * HOUR - SECOND)), TERMS, 48 * HOUR + 10 * MINUTE, ROLLS_BACK),
    ("it went silent before", facts(alert(debounce=7 * HOUR)), TERMS, 9 * HOUR, "watching"),
    ("it was heard again in time", facts(alert(debounce=7 * HOUR, heard=3 * HOUR)), TERMS, 8 * HOUR, ROLLS_BACK),
    ("it fires in a shorter probation", facts(alert()), terms(**{"for": "90m"}), LASTED, ROLLS_BACK),
    ("a shorter probation is over", facts(), terms(**{"for": "90m"}), 90 * MINUTE, "passed"),
    ("receivers decide", facts(alert()), terms("tell"), LASTED, "failed"),
    ("no version held it before", facts(alert(), promotion=row(previous=None)), TERMS, LASTED, "failed"),
    ("the version went back once", facts(alert(), went_back=True), TERMS, LASTED, "failed"),
    ("nobody heard whether it fired before", facts(alert(unsure=True)), TERMS, LASTED, "failed"),
    ("no gateway ran at the promotion", facts(alert(), deaf=[deaf(-HOUR, SECOND)]), TERMS, LASTED, "failed"),
    (
        "it began an hour after such an outage",
        facts(alert(2 * HOUR), deaf=[deaf(-HOUR, HOUR)]),
        TERMS,
        3 * HOUR,
        "failed",
    ),
    ("and a second more", facts(alert(2 * HOUR + SECOND), deaf=[deaf(-HOUR, HOUR)]), TERMS, 3 * HOUR, ROLLS_BACK),
    ("an outage before that", facts(alert(HOUR), deaf=[deaf(-3 * HOUR, -SECOND)]), TERMS, LASTED, ROLLS_BACK),
    ("nobody could hear its end", facts(alert(), deaf=[deaf(HOUR + SECOND, LASTED)]), TERMS, 2 * HOUR, "watching"),
    (
        "it was heard again afterwards",
        facts(alert(heard=2 * HOUR), deaf=[deaf(HOUR + SECOND, LASTED)]),
        TERMS,
        2 * HOUR,
        ROLLS_BACK,
    ),
    (
        "its end was heard afterwards",
        facts(alert(closed=2 * HOUR, heard=2 * HOUR), deaf=[deaf(HOUR + SECOND, LASTED)]),
        TERMS,
        3 * HOUR,
        "watching",
    ),
    (
        "it was never heard again",
        facts(alert(), deaf=[deaf(HOUR + SECOND, LASTED)]),
        TERMS,
        49 * HOUR,
        "passed",
    ),
    ("nobody has the key any more", facts(alert()), None, LASTED, "over"),
    (
        "a person rolled it back",
        facts(alert(), since=[row("rolled_back", HOUR, kind="rollback")]),
        TERMS,
        LASTED,
        "over",
    ),
    ("a later promotion", facts(alert(), since=[row(ended=HOUR, version="5")]), TERMS, LASTED, "over"),
    ("a later promotion is under way", facts(alert(), since=[row("moving", HOUR)]), TERMS, LASTED, "watching"),
    ("it is going back", facts(alert(), since=[back("moving", LASTED)]), TERMS, LASTED, "watching"),
    ("it went back", facts(alert(), since=[back("rolled_back", LASTED)]), TERMS, LASTED, "rolled_back"),
    ("it went back, and the key is gone", facts(since=[back("rolled_back", LASTED)]), None, LASTED, "rolled_back"),
    ("it is gone", facts(alert(), since=[back("blocked", LASTED, verdicts=[NO_WAY])]), TERMS, LASTED, "failed"),
    (
        "somebody holds it",
        facts(alert(), since=[back("blocked", LASTED, verdicts=[HELD])]),
        TERMS,
        LASTED + MINUTE - SECOND,
        "watching",
    ),
    (
        "it is asked once more",
        facts(alert(), since=[back("blocked", LASTED, verdicts=[HELD])]),
        TERMS,
        LASTED + MINUTE,
        ROLLS_BACK,
    ),
    (
        "somebody holds it still",
        facts(alert(), since=[back("blocked", LASTED, verdicts=[HELD])] * 2),
        TERMS,
        LASTED + MINUTE,
        "over",
    ),
    (
        "somebody moved it while it went back",
        facts(alert(), since=[back("lost", LASTED, verdicts=[HELD])]),
        TERMS,
        LASTED + MINUTE,
        "over",
    ),
    (
        "the registry was away",
        facts(alert(), since=[back("unreadable", LASTED)]),
        TERMS,
        LASTED + MINUTE - SECOND,
        "watching",
    ),
    ("a minute later", facts(alert(), since=[back("unreadable", LASTED)]), TERMS, LASTED + MINUTE, ROLLS_BACK),
    (
        "twice, and the pause grows",
        facts(alert(), since=[back("undone", LASTED), back("lost", 2 * HOUR)]),
        TERMS,
        2 * HOUR + 2 * MINUTE - SECOND,
        "watching",
    ),
    (
        "for hours, a quarter of an hour later",
        facts(alert(), since=[back("unreadable", LASTED)] * 40),
        TERMS,
        LASTED + 15 * MINUTE,
        ROLLS_BACK,
    ),
]


@pytest.mark.parametrize(("facts", "terms", "now", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_a_probation_comes_to(facts: Facts, terms: Probation | None, now: timedelta, expected: str) -> None:
    found = judge(facts, terms, T + now)
    assert outcome(found) == expected
    assert (found.next_at is None) is (found.standing is not Standing.WATCHING)
    assert found.next_at is None or found.next_at > T + now


def test_a_look_comes_at_each_boundary() -> None:
    assert judge(facts(alert()), TERMS, T + LASTED - SECOND).next_at == T + LASTED
    assert judge(facts(), TERMS, T + 48 * HOUR - SECOND).next_at == T + 48 * HOUR


def test_the_first_that_lasted_is_named_and_a_sure_one_before_an_unsure_one() -> None:
    later, unsure = replace(alert(2 * HOUR), id=UUID(int=8)), replace(alert(unsure=True), id=UUID(int=9))
    assert judge(facts(later, alert()), TERMS, T + 9 * HOUR).alert == UUID(int=7)
    found = judge(facts(unsure, later), TERMS, T + 9 * HOUR)
    assert (found.alert, found.rolls_back) == (UUID(int=8), True)
    assert found.detail == "Low began 2h after the promotion, and lasted 10m"


@pytest.mark.parametrize(
    ("labels", "takes"),
    [
        ({"alertname": "Low", "model": "churn", "severity": "warning"}, True),
        ({"alertname": "Low", "model": "churn", "severity": "info"}, False),
        ({"alertname": "Low", "model": "fraud", "severity": "warning"}, False),
        ({"alertname": "Low", "severity": "warning"}, False),
        ({"alertname": "High", "model": "churn", "severity": "warning"}, False),
        ({"alertname": "TriggerGatewayRunFailed", "notice": "x", "model": "churn", "severity": "warning"}, False),
    ],
)
def test_an_alert_counts_when_it_matches_and_has_the_labels_of_the_version(labels: dict[str, str], takes: bool) -> None:
    match = "['alertname=~\"Low|Trigger.*\"', 'severity!=\"info\"']"
    found = terms(match=match, group="{model: '{{version.model}}', version: '{{ version.version }}'}")
    assert found.labels("churn", "4") == {"model": "churn", "version": "4"}
    assert found.takes(labels, found.labels("churn", "4") | {"version": labels.get("version", "")}) is takes


SPANS = st.integers(0, 60 * 60 * 60)


@given(begin=SPANS, lasts=st.none() | SPANS, heard=SPANS, looks=st.lists(SPANS, min_size=1, max_size=5))
def test_a_late_look_comes_to_the_same_and_no_alert_gives_back_what_it_did_not_fail(
    begin: int, lasts: int | None, heard: int, looks: list[int]
) -> None:
    """Whoever looks later, at what was known then, finds the same verdict on the same alert."""
    closed = None if lasts is None else timedelta(seconds=begin + lasts)
    known = alert(
        timedelta(seconds=begin), closed, heard=timedelta(seconds=min(begin + heard, begin + (lasts or heard)))
    )
    verdicts = [judge(facts(known), TERMS, T + timedelta(seconds=look)).rolls_back for look in sorted(looks)]
    assert verdicts == sorted(verdicts), "once it has failed, it has failed"
    if any(verdicts):
        assert closed is None or closed > known.due - T


LOW = "match: ['alertname=\"Low\"']"
WARNED: list[tuple[str, list[str]]] = [
    (f"{{model: churn, to: c, probation: {{{LOW}}}}}", []),
    (f"{{model: churn.v2, to: c, probation: {{{LOW}}}}}", []),
    (f"{{model: 'churn|fraud', to: c, probation: {{{LOW}, group: {{m: 'x {{{{ version.model }}}}'}}}}}}", []),
    (
        f"{{model: .*, to: c, probation: {{{LOW}, group: {{v: '{{{{version.version}}}}'}}}}}}",
        [
            "an alert of one model speaks against every model of this entry; "
            "group: {model: '{{version.model}}'} tells them apart"
        ],
    ),
    (
        f"{{model: churn, to: c, mode: shadow, probation: {{{LOW}}}}}",
        ["an entry in shadow mode promotes nothing, so no version is on probation"],
    ),
]


@pytest.mark.parametrize(("entry", "expected"), WARNED)
def test_an_entry_that_is_probably_not_meant_so_is_a_warning(entry: str, expected: list[str]) -> None:
    found = parse_policy(f"{POLICY}  - {entry}", "p.yaml", {}).warnings
    assert [problem.message for problem in found if problem.path == "promotions.0.probation"] == expected


def test_a_policy_without_the_key_keeps_its_hash_and_one_with_it_has_another() -> None:
    bare = parse_policy(f"{POLICY}  - {{model: churn, to: champion}}", "p.yaml", {})
    assert bare.hash == "e224459d64a5"
    hashes = {
        parse_policy(f"{POLICY}  - {{model: churn, to: champion, probation: {{{LOW}{more}}}}}", "p.yaml", {}).hash
        for more in ("", ", for: 47h", ", then: rollback", ", debounce: 5m", ", group: {model: churn}")
    }
    assert len(hashes | {bare.hash}) == 6
    written = f"{POLICY}  - {{model: churn, to: champion, probation: {{{LOW}, for: 2d, then: tell}}}}"
    assert parse_policy(written, "p.yaml", {}).hash in hashes, "a written default changes nothing"
