"""The rules as one table: what is known of a group and an alert, and the action with its reason that must follow."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.decide import rules
from app.decide.rules import FREE, Mute, Obstacles, Pause
from app.decide.state import DEAD, FAILED, GONE, LOST, SUCCESS, Action, Confirmation, Reason
from app.policy.schema import Route
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, episode, group, route, uid

T1, T2 = uid(71), uid(72)
EPSILON = timedelta(microseconds=1)

HELD: dict[str, Any] = {"open_trigger": T1, "held_since": NOW - 4 * MINUTE}
OPEN: dict[str, Any] = {"open_trigger": T1, "last_trigger": T1, "fired_at": NOW - HOUR}
FIRED: dict[str, Any] = {"last_trigger": T1, "fired_at": NOW - HOUR, "outcome": SUCCESS, "ended_at": NOW - MINUTE}
BROKEN: dict[str, Any] = FIRED | {"outcome": FAILED, "failures": 1, "ended_at": NOW - 10 * MINUTE}
SLOW = route(debounce=10 * MINUTE)
DAILY = route()
ONCE = route(refire=False)
KEEP = route(on_failure="keep")
WEEKLY = route(limit={"triggers": 1, "per": "7d"})
CONFIRM = {"prometheus": "http://p", "query": "up"}
ASKS, ASKS_LATE = route(confirm=CONFIRM), route(confirm=CONFIRM, debounce=10 * MINUTE)
YES, NO = (
    Obstacles(answer=Confirmation(True, "yes")),
    Obstacles(answer=Confirmation(False, "no series satisfies the query")),
)
DUE: dict[str, Any] = {"open_trigger": T1, "held_since": NOW - MINUTE}
NOT_CONFIRMED: dict[str, Any] = {"unconfirmed_at": NOW - MINUTE}
MUTED = Obstacles(mute=Mute("the time interval 'freeze' holds", NOW + 5 * HOUR))


@dataclass(frozen=True)
class Case:
    """`facts` of the group, `alert` fields of the episode, and what must be said of them."""

    name: str
    says: str  # action, reason
    facts: dict[str, Any]
    alert: dict[str, Any]
    route: Route = DAILY
    until: datetime | None = None
    trigger: UUID | None = None
    obstacles: Obstacles = FREE


CASES = [
    # Nothing stands in the way.
    Case("the first alert of a group fires", "fire new_alert", {}, {}),
    Case("an alert waits for calm first", "hold debouncing", {}, {}, SLOW, NOW + 10 * MINUTE),
    Case(
        "calm is counted from the alert's beginning, not from now",
        "hold debouncing",
        {},
        {"firing_since": NOW - 9 * MINUTE},
        SLOW,
        NOW + MINUTE,
    ),
    Case("calm that is over fires", "fire new_alert", {}, {"firing_since": NOW - 10 * MINUTE}, SLOW),
    Case(
        "calm lasts to its very end",
        "hold debouncing",
        {},
        {"firing_since": NOW - 10 * MINUTE + EPSILON},
        SLOW,
        NOW + EPSILON,
    ),
    # A held group.
    Case("another alert joins it", "hold joined", HELD, {}, SLOW, NOW + 6 * MINUTE, T1),
    Case("a held alert's repeat", "suppress duplicate", HELD, {"trigger_id": T1}, SLOW, NOW + 6 * MINUTE, T1),
    Case(
        "an alert of an earlier trigger joins too",
        "hold joined",
        HELD | {"last_trigger": T2},
        {"trigger_id": T2},
        SLOW,
        NOW + 6 * MINUTE,
        T1,
    ),
    Case(
        "a repeat at the hold's end fires what is held",
        "fire new_alert",
        HELD | {"held_since": NOW - 10 * MINUTE},
        {"trigger_id": T1},
        SLOW,
        None,
        T1,
    ),
    Case(
        "a newcomer at the hold's end fires with what is held, however young it is",
        "fire new_alert",
        HELD | {"held_since": NOW - 10 * MINUTE},
        {},
        SLOW,
        None,
        T1,
    ),
    Case(
        "a shorter debounce counts for what is held already",
        "fire new_alert",
        HELD,
        {"trigger_id": T1},
        route(debounce=4 * MINUTE),
        None,
        T1,
    ),
    # An open trigger that has fired.
    Case("another alert of the group", "suppress in_flight", OPEN, {}, DAILY, None, T1),
    Case("its own alert's repeat", "suppress duplicate", OPEN, {"trigger_id": T1}, DAILY, None, T1),
    Case(
        "in flight stands before the cooldown's end",
        "suppress in_flight",
        OPEN | {"fired_at": NOW - 2 * DAY},
        {},
        until=None,
        trigger=T1,
    ),
    Case("in flight stands before debounce", "suppress in_flight", OPEN, {}, SLOW, None, T1),
    Case(
        "a lost run is still in flight", "suppress in_flight", OPEN | {"outcome": LOST, "failures": 1}, {}, trigger=T1
    ),
    Case("a reset frees no run in flight", "suppress in_flight", OPEN | {"reset_at": NOW}, {}, trigger=T1),
    # After a success: the cooldown.
    Case("a new alert while it cools", "suppress cooldown", FIRED, {}, DAILY, NOW + 23 * HOUR, T1),
    Case("the fired alert's repeat", "suppress duplicate", FIRED, {"trigger_id": T1}, DAILY, NOW + 23 * HOUR, T1),
    Case("cooldown stands before debounce", "suppress cooldown", FIRED, {}, SLOW, NOW + 23 * HOUR, T1),
    Case(
        "the cooldown's last instant",
        "suppress cooldown",
        FIRED | {"fired_at": NOW - DAY + EPSILON},
        {},
        DAILY,
        NOW + EPSILON,
        T1,
    ),
    Case("the cooldown's end", "fire new_alert", FIRED | {"fired_at": NOW - DAY}, {}),
    Case("the cooldown's end, still firing", "fire still_firing", FIRED | {"fired_at": NOW - DAY}, {"trigger_id": T1}),
    Case(
        "the cooldown counts again from Airflow's acceptance",
        "suppress cooldown",
        FIRED | {"fired_at": NOW - DAY, "accepted_at": NOW - HOUR},
        {},
        DAILY,
        NOW + 23 * HOUR,
        T1,
    ),
    Case("no cooldown at all", "fire still_firing", FIRED, {"trigger_id": T1}, route(cooldown=timedelta(0))),
    Case(
        "a longer cooldown counts at once",
        "suppress cooldown",
        FIRED | {"fired_at": NOW - DAY},
        {},
        route(cooldown=2 * DAY),
        NOW + DAY,
        T1,
    ),
    Case("a reset ends it", "fire new_alert", FIRED | {"reset_at": NOW}, {}),
    Case(
        "a reset before the fire does not",
        "suppress cooldown",
        FIRED | {"reset_at": NOW - 2 * HOUR},
        {},
        DAILY,
        NOW + 23 * HOUR,
        T1,
    ),
    Case(
        "an alert that fired long ago waits for calm anew when it reopens",
        "hold debouncing",
        FIRED | {"fired_at": NOW - 2 * DAY},
        {"trigger_id": T1},
        SLOW,
        NOW + 10 * MINUTE,
    ),
    # After a failure: the backoff.
    Case("a failed run backs off", "suppress cooldown", BROKEN, {"trigger_id": T1}, DAILY, NOW + 20 * MINUTE, T1),
    Case("a lost run backs off", "suppress cooldown", BROKEN | {"outcome": LOST}, {}, DAILY, NOW + 20 * MINUTE, T1),
    Case(
        "a run that is gone backs off",
        "suppress cooldown",
        BROKEN | {"outcome": GONE},
        {},
        DAILY,
        NOW + 20 * MINUTE,
        T1,
    ),
    Case("a dead trigger backs off", "suppress cooldown", BROKEN | {"outcome": DEAD}, {}, DAILY, NOW + 20 * MINUTE, T1),
    Case(
        "the second failure backs off twice as long",
        "suppress cooldown",
        BROKEN | {"failures": 2},
        {},
        DAILY,
        NOW + 50 * MINUTE,
        T1,
    ),
    Case("the backoff's end", "fire still_firing", BROKEN | {"ended_at": NOW - 30 * MINUTE}, {"trigger_id": T1}),
    Case(
        "the backoff's last instant",
        "suppress cooldown",
        BROKEN | {"ended_at": NOW - 30 * MINUTE + EPSILON},
        {},
        DAILY,
        NOW + EPSILON,
        T1,
    ),
    Case("on_failure keep keeps the cooldown", "suppress cooldown", BROKEN, {}, KEEP, NOW + 23 * HOUR, T1),
    Case(
        "a dead trigger releases it in spite of keep",
        "suppress cooldown",
        BROKEN | {"outcome": DEAD},
        {},
        KEEP,
        NOW + 20 * MINUTE,
        T1,
    ),
    Case("a reset ends the backoff", "fire new_alert", BROKEN | {"reset_at": NOW}, {}),
    # What stands in the way of a whole route.
    Case(
        "a route that has fired enough",
        "suppress limit",
        {},
        {},
        WEEKLY,
        NOW + 6 * DAY,
        obstacles=Obstacles([NOW - DAY]),
    ),
    Case(
        "limit stands before mute",
        "suppress limit",
        {},
        {},
        WEEKLY,
        NOW + 6 * DAY,
        obstacles=Obstacles([NOW - DAY], MUTED.mute),
    ),
    Case("a muted route", "suppress muted", {}, {}, DAILY, NOW + 5 * HOUR, obstacles=MUTED),
    Case(
        "a mute without an end",
        "suppress muted",
        {},
        {},
        obstacles=Obstacles(mute=Mute("ana has paused it: audit", None)),
    ),
    Case("mute stands before debounce", "suppress muted", {}, {}, SLOW, NOW + 5 * HOUR, obstacles=MUTED),
    Case("the cooldown stands before mute", "suppress cooldown", FIRED, {}, DAILY, NOW + 23 * HOUR, T1, MUTED),
    Case("in flight stands before mute", "suppress in_flight", OPEN, {}, DAILY, None, T1, MUTED),
    Case(
        "what is held stays held in a mute",
        "suppress duplicate",
        HELD,
        {"trigger_id": T1},
        SLOW,
        NOW + 6 * MINUTE,
        T1,
        MUTED,
    ),
    Case(
        "a hold that ends in a mute does not fire",
        "suppress muted",
        HELD | {"held_since": NOW - 10 * MINUTE},
        {"trigger_id": T1},
        SLOW,
        NOW + 5 * HOUR,
        obstacles=MUTED,
    ),
    # Prometheus has its say.
    Case("nothing fires unasked", "hold debouncing", {}, {}, ASKS, NOW),
    Case("a hold that is due waits for the answer", "suppress duplicate", DUE, {"trigger_id": T1}, ASKS, NOW, T1),
    Case("another alert joins it meanwhile", "hold joined", DUE, {}, ASKS, NOW, T1),
    Case("calm comes before the question", "hold debouncing", {}, {}, ASKS_LATE, NOW + 10 * MINUTE),
    Case("a yes fires", "fire new_alert", {}, {}, ASKS, obstacles=YES),
    Case("a yes fires what is held", "fire new_alert", DUE, {"trigger_id": T1}, ASKS, None, T1, YES),
    Case("a no is asked again", "suppress unconfirmed", {}, {}, ASKS, NOW + 5 * MINUTE, obstacles=NO),
    Case("until then it stands", "suppress unconfirmed", NOT_CONFIRMED, {}, ASKS, NOW + 4 * MINUTE),
    Case("mute stands before a no", "suppress muted", NOT_CONFIRMED, {}, ASKS, NOW + 5 * HOUR, obstacles=MUTED),
    Case(
        "after five minutes it is asked again",
        "hold debouncing",
        {"unconfirmed_at": NOW - 5 * MINUTE},
        {},
        ASKS,
        NOW,
    ),
    Case("who asks nobody any more fires", "fire new_alert", NOT_CONFIRMED, {}),
    # refire: false.
    Case(
        "a spent alert never fires again",
        "suppress duplicate",
        {"fired_at": NOW - 9 * DAY, "last_trigger": T1},
        {"trigger_id": T1, "spent": True},
        ONCE,
        None,
        T1,
    ),
    Case(
        "spent stands before the cooldown",
        "suppress duplicate",
        FIRED,
        {"trigger_id": T1, "spent": True},
        ONCE,
        None,
        T1,
    ),
    Case(
        "a spent alert does not join",
        "suppress duplicate",
        HELD,
        {"trigger_id": T2, "spent": True},
        route(refire=False, debounce=10 * MINUTE),
        None,
        T2,
    ),
    Case(
        "a spent alert is no part of a new flight",
        "suppress duplicate",
        OPEN,
        {"trigger_id": T2, "spent": True},
        ONCE,
        None,
        T2,
    ),
    Case(
        "an unspent alert fires after a failure",
        "fire still_firing",
        BROKEN | {"ended_at": NOW - HOUR},
        {"trigger_id": T1},
        ONCE,
    ),
    Case("a new episode of a spent alert fires", "fire new_alert", FIRED | {"fired_at": NOW - DAY}, {}, ONCE),
    Case(
        "with refire a spent alert fires",
        "fire still_firing",
        FIRED | {"fired_at": NOW - DAY},
        {"trigger_id": T1, "spent": True},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_what_is_known_leads_to_one_action_and_one_reason(case: Case) -> None:
    decision = rules.decide(group(**case.facts), episode(**case.alert), case.route, NOW, case.obstacles)
    assert (f"{decision.action} {decision.reason}", decision.until, decision.trigger_id) == (
        case.says,
        case.until,
        case.trigger,
    )
    assert decision.detail[0].islower()
    assert not decision.detail.endswith(".")


def test_the_table_has_a_row_for_every_reason_that_the_rules_give() -> None:
    says = {tuple(case.says.split()) for case in CASES}
    assert says == {
        (Action.FIRE, Reason.NEW_ALERT),
        (Action.FIRE, Reason.STILL_FIRING),
        (Action.HOLD, Reason.DEBOUNCING),
        (Action.HOLD, Reason.JOINED),
        (Action.SUPPRESS, Reason.DUPLICATE),
        (Action.SUPPRESS, Reason.IN_FLIGHT),
        (Action.SUPPRESS, Reason.COOLDOWN),
        (Action.SUPPRESS, Reason.LIMIT),
        (Action.SUPPRESS, Reason.MUTED),
        (Action.SUPPRESS, Reason.UNCONFIRMED),
    }


@pytest.mark.parametrize(
    ("until", "holds"),
    [(None, True), (NOW + EPSILON, True), (NOW, False), (NOW - EPSILON, False)],
    ids=["without an end", "just before its end", "at its end", "after it"],
)
def test_a_pause_holds_until_its_end_and_no_longer(until: datetime | None, holds: bool) -> None:
    assert Pause("accuracy", until, "a freeze", "ana", NOW - HOUR).is_in_force(NOW) == holds
