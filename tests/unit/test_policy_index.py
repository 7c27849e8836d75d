"""The route of an alert is found by an index, and it is the one that trying every route would find."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.policy.file.load import parse_policy
from app.policy.language.index import MatcherIndex
from app.policy.language.matchers import parse_matchers
from tests.unit.builders import policy

NAMES = ["alertname", "model", "team"]
VALUES = ["", "a", "b", "c", "a|b", "a.*", ".+"]
MATCHERS = st.builds(
    lambda name, op, value: f'{name}{op}"{value}"',
    st.sampled_from(NAMES),
    st.sampled_from(["=", "=", "!=", "=~", "=~", "!~"]),
    st.sampled_from(VALUES),
)
LABELS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "a", "b", "c", "d", "a|b"]))


@settings(max_examples=100, deadline=None)
@given(routes=st.lists(st.lists(MATCHERS, max_size=3), min_size=1, max_size=12), labels=LABELS)
def test_the_index_finds_what_trying_every_route_finds(routes: list[list[str]], labels: dict[str, str]) -> None:
    entries: list[dict[str, Any]] = [{"name": f"r{n}", "match": match} for n, match in enumerate(routes)]
    made = policy(*entries)
    assert made.route_for(labels) == next((route for route in made.routes if route.matches(labels)), None)
    candidates = list(MatcherIndex(route.match for route in made.routes).candidates(labels))
    assert candidates == sorted(set(candidates))


@pytest.mark.parametrize(
    ("match", "tried"),
    [
        (lambda n: [f'alertname="A{n}"'], 1),
        (lambda n: ['alertname="A"', f'model="m{n}"'], 1),
        (lambda n: ['alertname="A"', f'model=~"m{n}|x{n}"'], 1),
        (lambda n: [f'alertname="A{n}"'] if n else [], 2),
        (lambda n: ['severity!="info"', f'model="m{n}"', 'alertname=~".+"'], 1),
    ],
    ids=["by name", "by model", "by a list", "with a route for everything", "beside matchers that name no value"],
)
@pytest.mark.parametrize("routes", [10, 1000])
def test_a_thousand_routes_cost_as_much_as_ten(match: Any, tried: int, routes: int) -> None:
    """So many routes are tried for one alert, however many there are."""
    index = MatcherIndex(parse_matchers("{" + ",".join(match(n)) + "}") for n in range(routes))
    labels = {
        "alertname": "A7" if "A0" in str(match(0)) or not match(0) else "A",
        "model": "m7",
        "severity": "critical",
    }
    assert len(list(index.candidates(labels))) == tried


def test_a_heartbeat_finds_its_switch_among_a_thousand() -> None:
    switches = "".join(
        f"  - {{name: s{n}, expect: heartbeat, match: ['alertname=\"W{n}\"'], every: 5m}}\n" for n in range(1000)
    )
    text = "version: 1\nairflow: [{name: default, url: 'http://a:8080'}]\n"
    text += "routes: [{name: a, match: [alertname=A], dag: {id: a}}]\n" + f"deadman:\n{switches}"
    made = parse_policy(text, "policy.yaml", {})
    assert [beat.name for beat in made.heartbeats_for({"alertname": "W500"})] == ["s500"]
    assert made.heartbeats_for({"alertname": "A"}) == []
