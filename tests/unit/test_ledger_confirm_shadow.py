"""The ledger of a route that asks Prometheus, and of one that starts nothing: `confirm` and `mode: shadow`."""

from typing import Any

import pytest

from app.decide.state import Action, Reason, RunRequest, TriggerState
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, Kept, decided, firing, policy, resolved
from tests.unit.test_ledger import (
    AGAIN,
    CANCELLED,
    COOLING,
    DUPLICATE,
    FIRES,
    HELD,
    JOINED,
    books,
    end,
    recorded,
    states,
)

UNCONFIRMED = (Action.SUPPRESS, Reason.UNCONFIRMED)
WOULD_FIRE = (Action.SUPPRESS, Reason.SHADOW)
CONFIRM = {"prometheus": "http://prometheus.test", "query": "drift > 1"}


def asking(**options: Any) -> Kept:
    return books(confirm=CONFIRM, **options)


def shadow(**options: Any) -> Kept:
    return books(mode="shadow", **options)


# -- confirm ---------------------------------------------------------------------------------------------------------


def test_without_a_debounce_a_group_is_held_and_due_until_prometheus_has_been_asked() -> None:
    kept = asking()
    assert decided(kept.send(firing("a"), firing("b"), firing("a"))) == [HELD, JOINED, DUPLICATE]
    assert kept.group.wake_at == NOW
    kept.wake()
    assert (recorded(kept), kept.group.held, kept.group.wake_at) == ([], True, NOW), "not asked: still due"
    kept.wake(confirmed=True)
    assert (recorded(kept), states(kept), kept.group.held) == ([FIRES] * 2, [TriggerState.PENDING], False)


def test_prometheus_is_asked_at_the_end_of_the_debounce_and_not_before() -> None:
    kept = asking(debounce=10 * MINUTE)
    assert decided(kept.send(firing("a"))) == [HELD]
    assert kept.group.wake_at == NOW + 10 * MINUTE
    kept.pass_by(10 * MINUTE)
    kept.wake(confirmed=True)
    assert (recorded(kept), states(kept)) == ([FIRES], [TriggerState.PENDING])


def test_a_no_cancels_the_hold_and_stands_for_every_alert_until_it_is_asked_again() -> None:
    kept = asking()
    kept.send(firing("a"), firing("b"))
    kept.wake(confirmed=False)
    assert (recorded(kept), states(kept)) == ([UNCONFIRMED] * 2, [TriggerState.CANCELLED])
    assert kept.group.wake_at == NOW + 5 * MINUTE
    kept.pass_by(4 * MINUTE)
    assert decided(kept.send(firing("a"), firing("c"))) == [UNCONFIRMED] * 2
    kept.pass_by(MINUTE)
    kept.wake(confirmed=True)
    assert (recorded(kept), states(kept)) == ([FIRES] * 3, [TriggerState.PENDING])
    assert kept.group.unconfirmed_at is None


def test_what_resolves_before_it_is_asked_or_after_a_no_is_not_asked_for() -> None:
    kept = asking()
    kept.send(firing("a"))
    assert decided(kept.send(resolved("a", NOW))) == [CANCELLED]
    kept.send(firing("b"))
    kept.wake(confirmed=False)
    kept.send(resolved("b", NOW))
    kept.pass_by(5 * MINUTE)
    kept.wake(confirmed=True)
    assert (recorded(kept), states(kept), kept.group.wake_at) == ([], [], None)


def test_a_yes_overcomes_no_cooldown_and_is_asked_for_again_at_its_end() -> None:
    kept = asking(cooldown=HOUR)
    kept.send(firing("a"))
    kept.wake(confirmed=True)
    end(kept)
    kept.pass_by(30 * MINUTE)
    kept.group.wake_at = kept.now
    kept.wake(confirmed=True)
    assert (states(kept), kept.group.wake_at) == ([], NOW + HOUR)
    kept.pass_by(30 * MINUTE)
    kept.wake()
    assert (recorded(kept), kept.group.wake_at) == ([HELD], kept.now), "yesterday's yes does not count"
    kept.wake(confirmed=True)
    assert recorded(kept) == [AGAIN]


# -- shadow ----------------------------------------------------------------------------------------------------------


def test_a_rehearsal_is_told_of_the_whole_group_and_leaves_nothing_open() -> None:
    kept = shadow()
    decisions = kept.send(firing("a"), firing("b"), firing("a"))
    assert decided(decisions) == [WOULD_FIRE, WOULD_FIRE, DUPLICATE]
    assert {v.trigger_id for v in decisions} == {kept.group.last_trigger}
    (trigger,) = kept.books.triggers.values()
    assert (trigger.state, trigger.is_new, trigger.rehearsed) == (TriggerState.CANCELLED, True, True)
    assert [e.fingerprint for e in trigger.alerts] == ["a", "b"]
    assert (kept.group.open_trigger, kept.group.fired_at) == (None, NOW)


def test_it_cools_down_and_would_fire_again_as_if_its_run_had_succeeded() -> None:
    kept = shadow(stale_after=2 * DAY)
    kept.send(firing("a"))
    kept.pass_by(HOUR)
    assert decided(kept.send(firing("a"), firing("b"))) == [DUPLICATE, COOLING]
    assert kept.group.wake_at == NOW + DAY
    kept.pass_by(23 * HOUR)
    kept.wake()
    assert (recorded(kept), states(kept)) == ([WOULD_FIRE] * 2, [TriggerState.CANCELLED])
    assert (kept.group.failures, kept.group.open_trigger) == (0, None)


def test_a_hold_in_shadow_ends_in_a_rehearsal_under_its_own_id() -> None:
    kept = shadow(debounce=10 * MINUTE)
    assert decided(kept.send(firing("a"))) == [HELD]
    held = kept.group.open_trigger
    kept.pass_by(10 * MINUTE)
    kept.wake()
    assert (recorded(kept), kept.group.last_trigger, kept.group.held) == ([WOULD_FIRE], held, False)


def test_a_rehearsed_episode_is_spent_without_refire() -> None:
    kept = shadow(refire=False, stale_after=9 * DAY)
    kept.send(firing("a"))
    kept.pass_by(2 * DAY)
    kept.wake()
    assert recorded(kept) == []
    assert decided(kept.send(firing("a"), firing("b"))) == [DUPLICATE, WOULD_FIRE]


@pytest.mark.parametrize("confirmed", [True, False])
def test_in_shadow_prometheus_is_asked_as_well(confirmed: bool) -> None:
    kept = shadow(confirm=CONFIRM)
    assert decided(kept.send(firing("a"))) == [HELD]
    kept.wake(confirmed=confirmed)
    assert recorded(kept) == [WOULD_FIRE if confirmed else UNCONFIRMED]


def test_a_request_in_shadow_rehearses_and_asks_nobody() -> None:
    kept = shadow(confirm=CONFIRM)
    kept.send(firing("a"))
    kept.wake(confirmed=False)
    decision = kept.ledger.request(kept.group.key, RunRequest(Reason.MANUAL, "ana", "new labels", {}))
    assert (decision.action, decision.reason) == WOULD_FIRE
    assert kept.group.open_trigger is None


@pytest.mark.parametrize(("before", "after", "expected"), [("shadow", "live", FIRES), ("live", "shadow", WOULD_FIRE)])
def test_a_change_of_mode_lets_a_hold_go_and_decides_its_alerts_anew(
    before: str, after: str, expected: tuple[Action, Reason]
) -> None:
    kept = books(mode=before, debounce=10 * MINUTE)
    kept.send(firing("a"))
    (old,) = kept.groups.values()
    kept.pass_by(5 * MINUTE)
    kept.policy = policy(mode=after, debounce=10 * MINUTE)
    assert decided(kept.send(firing("a"))) == [HELD]
    old.wake_at = kept.now  # Under another policy every group is looked at.
    kept.wake()
    (new,) = (g for g in kept.groups.values() if g is not old)
    assert (old.open_trigger, new.held_since) == (None, kept.now), "its calm begins anew"
    kept.pass_by(10 * MINUTE)
    kept.wake()
    assert recorded(kept) == [expected]
