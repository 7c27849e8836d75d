"""What `explain` promises must come true by itself, or say what it needs."""

from datetime import timedelta

import pytest

from app.decide.state import Action, Decision, Reason
from app.explain.sentences import would_fire
from tests.unit.builders import NOW, episode, group, route


@pytest.mark.parametrize(("wake", "says"), [(None, "no wake is booked"), (NOW + timedelta(minutes=5), "or at 20")])
def test_a_wake_is_promised_only_when_one_is_booked(wake: object, says: str) -> None:
    assert says in would_fire(Decision(Action.FIRE, Reason.NEW_ALERT), group(wake_at=wake), episode(), route())
