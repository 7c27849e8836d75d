"""Where Alertmanager's routes lead an alert of which some labels are known: its own walk, with maybe in it."""

from datetime import timedelta
from typing import Any

import pytest
import yaml

from app.cli.doctor.routing import ConfigError, known_labels, reached, read_tree
from app.policy.language.matchers import parse_matchers

LOW = 'alertname="Low"'


def tree(text: str) -> dict[str, Any]:
    return {"route": yaml.safe_load(text)}


@pytest.mark.parametrize(
    ("routes", "takers"),
    [
        pytest.param("{receiver: top}", ["top"], id="the-top-takes-what-nobody-below-takes"),
        pytest.param("{receiver: top, routes: [{receiver: a}]}", ["a"], id="a-child-without-matchers-takes-all"),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, matchers: ['alertname=\"Low\"']}, {receiver: b}]}",
            ["a"],
            id="the-first-that-matches-takes-it-away",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, continue: true}, {receiver: b}]}",
            ["a", "b"],
            id="continue-hands-it-on",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, matchers: ['alertname=\"High\"']}, {receiver: b}]}",
            ["b"],
            id="another-value-of-a-known-label-does-not-match",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, matchers: ['team=\"ml\"']}]}",
            ["a", "top"],
            id="a-label-that-is-not-known-may-match-and-may-not",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, matchers: ['severity=\"warning\"']}, {receiver: b}]}",
            ["a", "b"],
            id="one-of-two-known-values-may-match",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, matchers: ['severity=~\"warning|critical|page\"']}, {receiver: b}]}",
            ["a"],
            id="every-known-value-matches",
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, match: {alertname: Low}}]}", ["a"], id="match-of-older-files"
        ),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, match_re: {alertname: 'L.*'}}]}",
            ["a"],
            id="match_re-of-older-files",
        ),
        pytest.param("{receiver: top, routes: [{match: {alertname: Low}}]}", ["top"], id="a-receiver-is-inherited"),
        pytest.param(
            "{receiver: top, routes: [{receiver: a, routes: [{receiver: b, matchers: 'severity=\"none\"'}]}]}",
            ["a"],
            id="a-node-takes-what-its-children-do-not",
        ),
    ],
)
def test_an_alert_is_taken_by(routes: str, takers: list[str]) -> None:
    known = known_labels(parse_matchers('{alertname="Low", severity=~"warning|critical"}'))
    assert [node.receiver for node in reached(read_tree(tree(routes)), known)] == takers


@pytest.mark.parametrize(
    ("matchers", "known"),
    [
        (LOW, {"alertname": {"Low"}}),
        ('severity=~"a|b"', {"severity": {"a", "b"}}),
        ('severity=~"a|b", severity!="b"', {"severity": {"a"}}),
        ('severity=~"a|b", severity="b"', {"severity": {"b"}}),
        ('model=~"churn.*"', {}),
        ('model!="churn"', {}),
        ('team=""', {"team": {""}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_matchers_tell_of_labels(matchers: str, known: dict[str, set[str]]) -> None:
    assert known_labels(parse_matchers("{" + matchers + "}")) == known


def test_timings_are_inherited_and_at_the_top_alertmanagers_own() -> None:
    text = "{receiver: a, routes: [{matchers: [], group_interval: 1m, routes: [{repeat_interval: 2h}]}]}"
    top = read_tree(tree(text))
    (child,) = top.children
    (grandchild,) = child.children
    minutes, hours = timedelta(minutes=1), timedelta(hours=1)
    assert (top.group_interval, top.repeat_interval) == (5 * minutes, 4 * hours)
    assert (child.group_interval, child.repeat_interval) == (minutes, 4 * hours)
    assert (grandchild.group_interval, grandchild.repeat_interval) == (minutes, 2 * hours)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"route": "people"},
        tree("{receiver: a, routes: {receiver: b}}"),
        tree("{receiver: a, routes: [b]}"),
        tree("{receiver: a, group_interval: soon}"),
        tree("{receiver: a, matchers: ['((']}"),
        tree("{receiver: a, matchers: 5}"),
        tree("{receiver: a, match: [b]}"),
        tree("{receiver: a, match_re: {b: '('}}"),
    ],
    ids=str,
)
def test_what_alertmanager_would_not_load_is_told_so(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        read_tree(config)
