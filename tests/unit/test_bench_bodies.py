"""What `make bench` posts: the gateway can read it, and each new alert gets one number of its own."""

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from app.decide.alert import Parsed
from app.intake.sources import alertmanager, native
from benchmarks.bodies import ALERTS, GROUP, NEXT, SAME, Form, Kind, Load, bodies

READERS: dict[Form, Callable[[bytes, int], Parsed]] = {"alertmanager": alertmanager.read, "native": native.read}


def filled(line: str, numbers: Iterator[int]) -> str:
    """As webhooks.lua fills the marks in. A mark before the first number has nothing to repeat."""
    number = -1

    def fill(mark: re.Match[str]) -> str:
        nonlocal number
        number = next(numbers) if mark[0] == NEXT else number
        assert number >= 0, f"{mark[0]} before {NEXT}"
        return f"{number % 7}" if mark[0] == GROUP else f"{number:08x}"

    return re.sub("|".join(map(re.escape, (NEXT, SAME, GROUP))), fill, line)


@pytest.mark.parametrize("alerts", [1, 6])
@pytest.mark.parametrize(
    ("form", "kind", "new", "firing"),
    [
        ("alertmanager", "known", 0.0, True),
        ("alertmanager", "new", 1.0, True),
        ("alertmanager", "half", 0.5, True),
        ("alertmanager", "resolved", 1.0, False),
        ("native", "known", 0.0, True),
        ("native", "new", 1.0, True),
    ],
)
def test_a_load_holds_the_alerts_that_it_names(form: Form, kind: Kind, new: float, firing: bool, alerts: int) -> None:
    lines = bodies(Load(kind, alerts, form), random.Random(1)).splitlines()
    numbers = count()
    found = [READERS[form](filled(line, numbers).encode(), 100) for line in lines * 2]
    assert [(len(parsed.alerts), parsed.bad) for parsed in found] == [(alerts, [])] * len(found)
    prints = [alert.fingerprint for parsed in found for alert in parsed.alerts]
    fresh = next(numbers)
    assert fresh == new * len(prints)
    known = len(set(prints)) - fresh
    assert 0 <= known <= ALERTS
    assert known > ALERTS / 2 or kind not in ("known", "half")
    assert {alert.firing for parsed in found for alert in parsed.alerts} == {firing}


def test_ends_are_of_the_alerts_that_a_run_of_new_alerts_brings() -> None:
    begun, ended = (
        alertmanager.read(filled(bodies(Load(kind, 5), random.Random(1)), count(40)).encode(), 100).alerts
        for kind in ("new", "resolved")
    )
    assert [alert.fingerprint for alert in begun] == [alert.fingerprint for alert in ended]
    assert [alert.labels for alert in begun] == [alert.labels for alert in ended]


def test_alertmanager_gets_the_same_alerts_as_prometheus_posts_them() -> None:
    [posted] = json.loads(filled(bodies(Load("new", 1, "api"), random.Random(1)), count()))
    [notified] = json.loads(filled(bodies(Load("new", 1), random.Random(1)), count()))["alerts"]
    assert posted.items() <= notified.items()
    [ended] = json.loads(filled(bodies(Load("resolved", 1, "api"), random.Random(1)), count()))
    assert ended["endsAt"] > ended["startsAt"]
