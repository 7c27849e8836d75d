"""What a group that has not fired takes over from groups of another shape."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.decide.facts import inherit
from app.decide.state import FAILED, LOST, SUCCESS, Group, group_key

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD, NEW = UUID(int=1), UUID(int=2)


def group(route: str = "accuracy", mode: str = "live", *, labels: dict[str, str], **facts: Any) -> Group:
    return Group(group_key(route, mode, labels), route, mode, labels, **facts)


def fired(labels: dict[str, str], ago: timedelta = HOUR, trigger: UUID = OLD, **facts: Any) -> Group:
    return group(labels=labels, fired_at=NOW - ago, last_trigger=trigger, on_failure="release", **facts)


@pytest.mark.parametrize(
    ("mine", "theirs", "counts"),
    [
        pytest.param({"model": "churn", "pod": "a"}, {"model": "churn"}, True, id="refined"),
        pytest.param({"model": "churn"}, {"model": "churn", "pod": "a"}, True, id="coarsened"),
        pytest.param({"model": "churn", "pod": "a"}, {"model": "churn", "zone": "x"}, True, id="one label exchanged"),
        pytest.param({"model": "churn"}, {}, True, id="grouped at last"),
        pytest.param({}, {"model": "churn"}, True, id="no longer grouped"),
        pytest.param({"model": "churn"}, {"zone": "x"}, True, id="no label shared"),
        pytest.param({"model": "churn", "pod": "a"}, {"model": "fraud"}, False, id="another model"),
        pytest.param({"model": "churn"}, {"model": "fraud", "pod": "a"}, False, id="another model, coarsened"),
        pytest.param({"model": "churn", "pod": "a"}, {"model": "churn", "pod": "b"}, False, id="its sibling"),
        pytest.param({"model": "churn"}, {"model": "churn"}, False, id="itself"),
    ],
)
def test_groups_that_agree_on_the_labels_both_have_count(
    mine: dict[str, str], theirs: dict[str, str], counts: bool
) -> None:
    heir = group(labels=mine)
    assert inherit(heir, [fired(theirs)]) is counts
    assert (heir.last_trigger, heir.fired_at) == ((OLD, NOW - HOUR) if counts else (None, None))


@pytest.mark.parametrize(("route", "mode"), [("drift", "live"), ("accuracy", "shadow")])
def test_another_route_and_another_mode_do_not_count(route: str, mode: str) -> None:
    other = group(route, mode, labels={"model": "churn"}, fired_at=NOW, last_trigger=OLD)
    assert not inherit(group(labels={"model": "churn", "pod": "a"}), [other])


def test_a_group_that_has_fired_goes_by_its_own_facts() -> None:
    own = fired({"model": "churn", "pod": "a"}, ago=3 * HOUR)
    assert not inherit(own, [fired({"model": "churn"}, trigger=NEW)])
    assert own.last_trigger == OLD


def test_a_group_that_is_held_and_has_never_fired_is_nothing_to_count() -> None:
    held = group(labels={"model": "churn"}, open_trigger=OLD, held_since=NOW)
    assert not inherit(group(labels={"model": "churn", "pod": "a"}), [held])


def test_the_newest_trigger_counts_with_all_its_facts() -> None:
    older = fired({"model": "churn", "pod": "a"}, ago=5 * HOUR, outcome=SUCCESS, ended_at=NOW - 4 * HOUR)
    newer = fired({"model": "churn", "pod": "b"}, 2 * HOUR, NEW, outcome=FAILED, ended_at=NOW - HOUR, failures=3)
    for others in ([older, newer], [newer, older]):
        heir = group(labels={"model": "churn"})
        assert inherit(heir, others)
        facts = (heir.last_trigger, heir.fired_at, heir.outcome, heir.ended_at, heir.failures, heir.on_failure)
        assert facts == (NEW, NOW - 2 * HOUR, FAILED, NOW - HOUR, 3, "release")
        assert (heir.open_trigger, heir.held_since) == (None, None)


@pytest.mark.parametrize("outcome", [None, LOST])
def test_a_trigger_under_way_counts_before_a_newer_one_that_ended_and_cools_from_its_fire(outcome: str | None) -> None:
    ended = fired({"model": "churn", "pod": "b"}, HOUR, NEW, outcome=FAILED, ended_at=NOW)
    open_one = fired({"model": "churn", "pod": "a"}, 5 * HOUR, open_trigger=OLD, outcome=outcome, ended_at=None)
    heir = group(labels={"model": "churn"})
    assert inherit(heir, [ended, open_one])
    assert (heir.last_trigger, heir.fired_at, heir.outcome, heir.open_trigger) == (OLD, NOW - 5 * HOUR, None, None)


@pytest.mark.parametrize(
    ("own", "theirs", "kept"),
    [(None, None, None), (NOW, None, NOW), (None, NOW, NOW), (NOW, NOW - HOUR, NOW), (NOW - HOUR, NOW, NOW)],
)
def test_the_newer_reset_stays(own: datetime | None, theirs: datetime | None, kept: datetime | None) -> None:
    heir = group(labels={"model": "churn", "pod": "a"}, reset_at=own)
    assert inherit(heir, [fired({"model": "churn"}, reset_at=theirs)])
    assert heir.reset_at == kept
