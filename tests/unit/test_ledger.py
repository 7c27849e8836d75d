"""The ledger: what a batch or a wake makes of a group as a whole."""

from datetime import timedelta
from typing import Any

import pytest

from app.decide import facts
from app.decide.state import FAILED, SUCCESS, Action, Decision, Reason, TriggerState
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, Kept, decided, firing, policy, resolved

FIRES = (Action.FIRE, Reason.NEW_ALERT)
AGAIN = (Action.FIRE, Reason.STILL_FIRING)
HELD = (Action.HOLD, Reason.DEBOUNCING)
JOINED = (Action.HOLD, Reason.JOINED)
DUPLICATE = (Action.SUPPRESS, Reason.DUPLICATE)
COOLING = (Action.SUPPRESS, Reason.COOLDOWN)
IN_FLIGHT = (Action.SUPPRESS, Reason.IN_FLIGHT)
CANCELLED = (Action.CANCEL, Reason.RESOLVED_WHILE_HELD)
RESOLVED = (Action.IGNORE, Reason.RESOLVED)
NO_ROUTE = (Action.IGNORE, Reason.NO_ROUTE)


def books(**options: Any) -> Kept:
    return Kept(policy(**options))


def slow(**options: Any) -> Kept:
    return books(debounce=10 * MINUTE, **options)


def end(kept: Kept, outcome: str = SUCCESS) -> None:
    """The open trigger of the only group ends, as app.deliver.ending books it."""
    ended = kept.group.open_trigger
    for episode in kept.episodes:
        episode.spent = episode.spent or (outcome == SUCCESS and episode.trigger_id == ended)
    kept.group.open_trigger = None
    facts.record_end(kept.group, outcome, kept.policy.route("accuracy"), kept.now)


def states(kept: Kept) -> list[TriggerState]:
    return [t.state for t in kept.books.triggers.values()]


def recorded(kept: Kept) -> list[tuple[str, str]]:
    """Action and reason of every decision row of the newest batch or wake."""
    return [(d.action, d.reason) for d in kept.books.decisions]


# -- one batch -------------------------------------------------------------------------------------------------------


def test_alerts_of_one_group_in_one_batch_stand_behind_one_trigger() -> None:
    kept = books()
    decisions = kept.send(*[firing(f) for f in "abcde"])
    assert decided(decisions) == [FIRES] * 5
    assert {v.trigger_id for v in decisions} == {kept.group.open_trigger}
    (trigger,) = kept.books.triggers.values()
    assert [e.fingerprint for e in trigger.alerts] == list("abcde")
    assert (trigger.state, trigger.is_new) == (TriggerState.PENDING, True)


def test_groups_of_one_batch_do_not_touch_each_other() -> None:
    kept = books()
    decisions = kept.send(firing("a", model="churn"), firing("b", model="fraud"), firing("c", model=""))
    assert decided(decisions) == [FIRES] * 3
    assert len({v.trigger_id for v in decisions}) == len(kept.groups) == 3


def test_a_group_is_its_routes_labels_and_a_missing_one_is_empty() -> None:
    kept = Kept(policy({"name": "r", "match": [], "group_by": ["team", "model"]}))
    kept.send(firing("a"))
    assert kept.group.labels == {"team": "", "model": "churn"}


def test_what_no_route_takes_is_in_the_history_and_touches_no_group() -> None:
    kept = Kept(policy({"name": "r", "match": ['alertname="Else"']}))
    assert decided(kept.send(firing("a"), resolved("b"), firing("a"))) == [NO_ROUTE] * 3
    assert (kept.groups, len(kept.episodes), kept.of("a").count) == ({}, 2, 2)


def test_equal_notifications_are_counted_at_once() -> None:
    kept = books()
    kept.send(firing("a"))
    kept.send(firing("a"), times=7)
    assert (kept.of("a").count, kept.of("a").decision_count) == (8, 7)


def test_a_batch_that_fires_resolves_and_fires_again_starts_one_run() -> None:
    kept = books()
    later = firing("a", NOW + HOUR)
    assert decided(kept.send(firing("a"), resolved("a", NOW + MINUTE), later)) == [FIRES, RESOLVED, FIRES]
    assert (len(kept.books.triggers), len(kept.episodes)) == (1, 2)


def test_a_batch_that_holds_and_resolves_leaves_a_cancelled_trigger() -> None:
    kept = slow()
    assert decided(kept.send(firing("a"), resolved("a", NOW + MINUTE))) == [HELD, CANCELLED]
    (trigger,) = kept.books.triggers.values()
    assert (trigger.state, trigger.is_new) == (TriggerState.CANCELLED, True)
    assert (kept.group.open_trigger, kept.group.held_since) == (None, None)


# -- holding ---------------------------------------------------------------------------------------------------------


def test_a_held_group_fires_as_a_whole_when_its_debounce_ends() -> None:
    kept = slow()
    assert decided(kept.send(firing("a"), firing("b"))) == [HELD, JOINED]
    held = kept.group.open_trigger
    kept.pass_by(9 * MINUTE)
    assert decided(kept.send(firing("c"), firing("a"))) == [JOINED, DUPLICATE]
    assert kept.group.wake_at == NOW + 10 * MINUTE
    kept.pass_by(MINUTE)
    kept.wake()
    assert recorded(kept) == [FIRES] * 3
    assert (states(kept), kept.group.open_trigger) == ([TriggerState.PENDING], held)
    assert held is not None
    assert not kept.books.triggers[held].is_new
    assert not kept.group.held


def test_a_hold_ends_only_when_nothing_of_it_fires_any_more() -> None:
    kept = slow()
    kept.send(firing("a"), firing("b"))
    kept.pass_by(MINUTE)
    assert decided(kept.send(resolved("a", NOW + MINUTE))) == [RESOLVED]
    assert kept.of("a").trigger_id is None
    decisions = kept.send(resolved("b", NOW + MINUTE))
    assert decided(decisions) == [CANCELLED]
    assert (states(kept), kept.group.open_trigger) == ([TriggerState.CANCELLED], None)
    assert decisions[0].trigger_id in kept.books.triggers


def test_silence_for_stale_after_is_no_reason_to_fire_at_the_end_of_a_hold() -> None:
    kept = books(debounce=HOUR, stale_after=30 * MINUTE)
    kept.send(firing("a"))
    kept.pass_by(HOUR)
    kept.wake()
    assert (states(kept), recorded(kept)) == ([TriggerState.CANCELLED], [CANCELLED])
    assert "none of its alerts fires" in kept.books.decisions[0].detail


def test_the_debounce_counts_from_the_groups_first_alert_whichever_is_decided_first() -> None:
    kept = slow(cooldown=HOUR)
    kept.send(firing("z"))
    kept.pass_by(10 * MINUTE)
    kept.wake()
    end(kept)
    kept.pass_by(59 * MINUTE)
    assert decided(kept.send(firing("a"))) == [COOLING]
    kept.pass_by(MINUTE)
    kept.wake()
    assert (states(kept), sorted(recorded(kept))) == ([TriggerState.PENDING], sorted([AGAIN, FIRES]))


def test_a_young_alert_that_overtakes_the_wake_does_not_hold_an_old_one_back() -> None:
    kept = slow(cooldown=HOUR)
    kept.send(firing("z"))
    kept.pass_by(10 * MINUTE)
    kept.wake()
    end(kept)
    kept.pass_by(HOUR)
    assert decided(kept.send(firing("a"))) == [FIRES]
    assert (states(kept), sorted(recorded(kept))) == ([TriggerState.PENDING], sorted([AGAIN, FIRES]))


def test_an_old_alert_that_begins_anew_behind_a_young_one_has_had_its_calm() -> None:
    kept = slow(cooldown=HOUR)
    kept.send(firing("z"))
    kept.pass_by(10 * MINUTE)
    kept.wake()
    end(kept, FAILED)
    kept.pass_by(30 * MINUTE)
    assert decided(kept.send(firing("a"), firing("z", NOW + HOUR))) == [FIRES, FIRES]
    (trigger,) = kept.books.triggers.values()
    assert [(e.fingerprint, e.firing_since) for e in trigger.alerts] == [
        ("a", kept.now),
        ("z", NOW),
        ("z", kept.now),
    ]


def test_a_cancel_by_request_is_told_to_each_alert_behind_the_hold() -> None:
    kept = slow()
    kept.send(firing("a"), firing("b"))
    kept.wake()
    decision = Decision(Action.CANCEL, Reason.BY_REQUEST, None, kept.group.open_trigger, "cancelled by ops")
    kept.ledger.cancel_held(kept.group, decision)
    assert recorded(kept) == [(Action.CANCEL, Reason.BY_REQUEST)] * 2
    assert [e.trigger_id for e in kept.episodes] == [None, None]
    kept.ledger.cancel_held(kept.group, decision)
    assert len(kept.books.decisions) == 2


# -- cooldown, failure, refire ---------------------------------------------------------------------------------------


def test_what_still_fires_fires_again_when_the_cooldown_ends_with_no_notification() -> None:
    kept = books(stale_after=2 * DAY)
    kept.send(firing("a"))
    end(kept)
    kept.pass_by(23 * HOUR)
    assert decided(kept.send(firing("a"), firing("b"))) == [DUPLICATE, COOLING]
    assert kept.group.wake_at == NOW + DAY
    kept.pass_by(HOUR)
    kept.wake()
    assert (states(kept), sorted(recorded(kept))) == ([TriggerState.PENDING], sorted([AGAIN, FIRES]))
    assert [e.count for e in kept.episodes] == [2, 1]


def test_the_end_of_an_earlier_episode_does_not_bring_a_silent_one_back() -> None:
    kept = books()
    kept.send(firing("a"))
    end(kept)
    kept.pass_by(DAY)
    kept.wake()
    assert decided(kept.send(resolved("a", NOW - HOUR))) == [RESOLVED]
    kept.group.wake_at = kept.now
    kept.wake()
    assert (states(kept), kept.of("a").last_seen_at, kept.of("a").count) == ([], NOW, 2)


@pytest.mark.parametrize("meanwhile", ["resolved", "stale"])
def test_what_no_longer_fires_does_not_fire_when_the_cooldown_ends(meanwhile: str) -> None:
    kept = books()
    kept.send(firing("a"))
    end(kept)
    if meanwhile == "resolved":
        kept.send(resolved("a", NOW + MINUTE))
    kept.pass_by(DAY)
    kept.wake()
    assert (states(kept), recorded(kept), kept.group.wake_at) == ([], [], None)


def test_a_failed_run_releases_the_group_after_its_backoff() -> None:
    kept = books()
    kept.send(firing("a"))
    end(kept, FAILED)
    assert decided(kept.send(firing("a"), firing("b"))) == [COOLING, COOLING]
    kept.pass_by(30 * MINUTE)
    kept.wake()
    assert (states(kept), sorted(recorded(kept))) == ([TriggerState.PENDING], sorted([AGAIN, FIRES]))
    end(kept, FAILED)
    assert kept.group.wake_at == kept.now + HOUR


def test_without_refire_an_episode_that_had_its_retrain_is_done() -> None:
    kept = books(refire=False, stale_after=9 * DAY)
    kept.send(firing("a"))
    end(kept)
    kept.pass_by(2 * DAY)
    kept.wake()
    assert states(kept) == []
    assert decided(kept.send(firing("a"), firing("b"), firing("a"))) == [DUPLICATE, FIRES, DUPLICATE]
    assert [e.fingerprint for t in kept.books.triggers.values() for e in t.alerts] == ["b"]


def test_without_refire_a_spent_alert_keeps_no_hold_alive() -> None:
    kept = slow(refire=False, cooldown=timedelta(0), stale_after=9 * DAY)
    kept.send(firing("a"))
    kept.pass_by(10 * MINUTE)
    kept.wake()
    end(kept)
    first = kept.of("a").trigger_id
    assert decided(kept.send(firing("b"), firing("a"))) == [HELD, DUPLICATE]
    assert decided(kept.send(resolved("b", NOW + HOUR))) == [CANCELLED]
    assert kept.of("a").trigger_id == first
