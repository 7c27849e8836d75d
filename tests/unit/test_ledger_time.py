"""The ledger over time: firings that arrive late, another policy, and which decision rows are written."""

from app.decide.state import TriggerState
from tests.unit.builders import HOUR, MINUTE, NOW, REORDER, Kept, decided, firing, policy, resolved
from tests.unit.test_ledger import (
    AGAIN,
    CANCELLED,
    DUPLICATE,
    FIRES,
    HELD,
    IN_FLIGHT,
    NO_ROUTE,
    RESOLVED,
    books,
    end,
    recorded,
    slow,
    states,
)

# -- late firings ----------------------------------------------------------------------------------------------------


def late(kept: Kept) -> None:
    """`a` has resolved, and a firing from before arrives just after."""
    kept.send(firing("a"))
    kept.send(resolved("a", NOW + MINUTE))
    assert decided(kept.send(firing("a"))) == [RESOLVED]


def test_a_late_firing_reopens_when_the_window_ends_and_fires() -> None:
    kept = slow()
    late(kept)
    assert kept.group.wake_at == NOW + REORDER
    kept.pass_by(REORDER)
    kept.wake()
    assert kept.of("a").firing
    assert recorded(kept) == [HELD]
    assert kept.group.wake_at == NOW + 10 * MINUTE  # Since it was heard of.


def test_another_resolved_within_the_window_was_right() -> None:
    kept = slow()
    late(kept)
    kept.pass_by(MINUTE)
    kept.send(resolved("a", NOW + MINUTE))
    kept.pass_by(MINUTE)
    kept.wake()
    assert (kept.of("a").firing, recorded(kept), states(kept)) == (False, [], [])


def test_a_late_firing_is_not_forgotten_when_the_hold_of_another_is_cancelled() -> None:
    kept = slow()
    late(kept)
    kept.send(firing("b"))
    assert kept.group.wake_at == NOW + REORDER
    assert decided(kept.send(resolved("b", NOW + MINUTE))) == [CANCELLED]
    assert kept.group.wake_at == NOW + REORDER
    kept.pass_by(REORDER)
    kept.wake()
    assert recorded(kept) == [HELD]


def test_a_wake_before_the_windows_end_waits_for_it() -> None:
    kept = slow()
    late(kept)
    kept.pass_by(MINUTE)
    kept.group.wake_at = kept.now
    kept.wake()
    assert (kept.of("a").firing, kept.group.wake_at) == (False, NOW + REORDER)


# -- another policy --------------------------------------------------------------------------------------------------


def test_a_held_trigger_whose_route_left_the_policy_is_cancelled() -> None:
    kept = slow()
    kept.send(firing("a"), firing("b"))
    kept.policy = policy({"name": "other", "match": ['model="x"']})
    kept.pass_by(10 * MINUTE)
    kept.wake()
    assert (states(kept), recorded(kept)) == ([TriggerState.CANCELLED], [NO_ROUTE] * 2)
    assert kept.group.wake_at is None


def test_an_open_episode_keeps_its_route_and_the_next_goes_by_the_policy_in_force() -> None:
    kept = books()
    kept.send(firing("a"))
    first = {"name": "first", "match": [], "group_by": []}
    kept.policy = policy(first, {"name": "accuracy", "match": [], "group_by": ["model"]})
    assert decided(kept.send(firing("a"))) == [DUPLICATE]
    assert kept.of("a").route == "accuracy"
    assert decided(kept.send(firing("a", NOW + HOUR))) == [FIRES]
    assert (kept.of("a").route, kept.of("a").group_labels) == ("first", {})


def test_an_open_episode_whose_route_is_gone_goes_to_the_route_that_takes_it_now() -> None:
    kept = books()
    kept.send(firing("a"))
    kept.policy = policy({"name": "other", "match": [], "group_by": ["model"]})
    kept.send(firing("a"))
    assert (kept.of("a").route, len(kept.episodes), len(kept.groups)) == ("other", 1, 2)


def test_a_route_that_comes_back_takes_the_open_episode_that_had_none() -> None:
    kept = Kept(policy({"name": "accuracy", "match": ['model="x"']}))
    assert decided(kept.send(firing("a"))) == [NO_ROUTE]
    kept.policy = policy()
    assert decided(kept.send(firing("a"))) == [FIRES]
    assert len(kept.episodes) == 1


# -- decision rows ---------------------------------------------------------------------------------------------------


def test_a_decision_row_is_written_for_a_change_of_mind_and_counted_otherwise() -> None:
    kept = books()
    rows = []
    for minute, sender in enumerate([firing("a")] * 4):
        kept.now = NOW + minute * MINUTE
        kept.send(sender)
        rows += kept.books.decisions
    assert [(r.action, r.reason) for r in rows] == [FIRES, DUPLICATE]
    assert (kept.of("a").decision_id, kept.of("a").decision_count) == (rows[1].id, 3)
    kept.now = NOW + 5 * MINUTE
    kept.send(resolved("a", NOW + MINUTE))
    assert kept.books.ended_decisions == [(rows[1].id, 3, NOW + 3 * MINUTE)]


def test_the_same_reason_for_another_trigger_is_a_change_of_mind() -> None:
    kept = books(cooldown=HOUR)
    kept.send(firing("a"))
    end(kept)
    kept.pass_by(HOUR)
    kept.send(firing("a"))
    end(kept)
    kept.pass_by(HOUR)
    kept.send(firing("a"))
    assert recorded(kept) == [AGAIN]
    assert kept.books.decisions[0].trigger_id == kept.group.open_trigger


def test_a_wake_that_changes_nothing_writes_nothing() -> None:
    kept = slow()
    kept.send(firing("a"))
    kept.group.wake_at = kept.now
    kept.wake()
    assert (recorded(kept), states(kept)) == ([], [])
    assert kept.group.wake_at == NOW + 10 * MINUTE


def test_in_flight_is_told_once_by_the_wake_and_counted_by_the_notifications() -> None:
    kept = books()
    kept.send(firing("a"))
    assert decided(kept.send(firing("b"))) == [IN_FLIGHT]
    kept.group.wake_at = kept.now
    kept.wake()
    assert recorded(kept) == []
    kept.send(firing("b"))
    assert (kept.of("b").count, kept.of("b").decision_count) == (2, 2)
