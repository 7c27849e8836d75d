"""The limit of a route: how many fires in a sliding time, and when the next one may follow. A table and its edges."""

from datetime import datetime, timedelta

import pytest

from app.decide import rules
from app.decide.state import Reason, RunRequest
from tests.unit.builders import NOW, episode, group, route

HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
TWO_A_DAY = route(limit={"triggers": 2, "per": "1d"})


@pytest.mark.parametrize(
    ("ago", "until"),
    [
        ([], None),
        ([1 * HOUR], None),
        ([1 * HOUR, 2 * HOUR], NOW + 22 * HOUR),
        ([1 * HOUR, 2 * HOUR, 3 * HOUR], NOW + 22 * HOUR),
        ([1 * HOUR, 24 * HOUR - INSTANT], NOW + INSTANT),
        ([1 * HOUR, 24 * HOUR], None),
    ],
    ids=["none", "one", "full", "forced beyond", "the last instant", "the oldest has left"],
)
def test_a_route_is_full_until_the_oldest_counted_fire_leaves(ago: list[timedelta], until: datetime | None) -> None:
    fires = [NOW - past for past in ago]
    no = rules.limited(TWO_A_DAY, fires, NOW)
    assert (no.until if no else None) == until
    assert rules.limited(route(), fires, NOW) is None
    decision = rules.decide(group(), episode(), TWO_A_DAY, NOW, rules.Obstacles(fires))
    assert (decision.reason, decision.until) == ((Reason.LIMIT, until) if until else (Reason.NEW_ALERT, None))


def test_cooldown_and_a_run_in_flight_are_named_before_the_limit() -> None:
    full = rules.Obstacles([NOW - HOUR, NOW - HOUR])
    cooling = group(fired_at=NOW - HOUR, accepted_at=NOW - HOUR, ended_at=NOW, outcome="success")
    assert rules.decide(cooling, episode(), TWO_A_DAY, NOW, full).reason is Reason.COOLDOWN
    flying = group(open_trigger=episode().id, fired_at=NOW)
    assert rules.decide(flying, episode(), TWO_A_DAY, NOW, full).reason is Reason.IN_FLIGHT


@pytest.mark.parametrize("force", [False, True])
def test_a_request_obeys_it_unless_it_is_forced(force: bool) -> None:
    request = RunRequest(Reason.FORCED if force else Reason.MANUAL, "ana", "new labels", {}, force)
    decision = rules.decide_request(group(), TWO_A_DAY, request, NOW, rules.Obstacles([NOW - HOUR, NOW - HOUR]))
    assert decision.reason is (Reason.FORCED if force else Reason.LIMIT)
