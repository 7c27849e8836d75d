"""Where Alertmanager's tree of routes leads an alert when only some of its labels are known. Pure.

The walk is Alertmanager's own (its documentation, "Routing-related settings"). The first child that matches takes the alert,
and the next ones get it too only after `continue: true`. A node takes an alert that none of its children takes. A setting
that a route leaves out comes from its parent. At the top it is Alertmanager's: group_interval 5m, repeat_interval 4h.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from app.policy.language.durations import parse_duration
from app.policy.language.matchers import Matcher, MatcherError, parse_matchers

Known = Mapping[str, frozenset[str]]  # label to its possible values; a label that is missing here may have any value

GROUP_INTERVAL: Final = timedelta(minutes=5)
REPEAT_INTERVAL: Final = timedelta(hours=4)
_LITERALS: Final = re.compile(r"[\w:/ -]+(\|[\w:/ -]+)*")


class ConfigError(ValueError):
    """Not a configuration that Alertmanager would load."""


@dataclass(frozen=True, slots=True)
class Node:
    """One route of Alertmanager, with the settings that it inherits."""

    receiver: str
    matchers: tuple[Matcher, ...]
    goes_on: bool  # `continue`
    group_interval: timedelta
    repeat_interval: timedelta
    children: tuple["Node", ...]


def read_tree(config: Mapping[str, Any]) -> Node:
    """The tree below `route`. Raises ConfigError."""
    top = config.get("route")
    if not isinstance(top, Mapping):
        raise ConfigError("it has no `route`")
    return _read(top, Node("", (), False, GROUP_INTERVAL, REPEAT_INTERVAL, ()))


def reached(node: Node, known: Known) -> tuple[Node, ...]:
    """Every node that may take an alert with these labels, in the order of the file."""
    if _matches(node, known) is False:
        return ()
    found: list[Node] = []
    taken = False
    for child in node.children:
        matches = _matches(child, known)
        found += reached(child, known)
        taken = taken or matches is True
        if matches is True and not child.goes_on:
            break
    return tuple(found) if taken else (*found, node)


def known_labels(matchers: tuple[Matcher, ...]) -> dict[str, frozenset[str]]:
    """The labels that an alert must have to satisfy these matchers, as far as `=` and `=~` with plain words say it."""
    known: dict[str, frozenset[str]] = {}
    for matcher in matchers:
        if matcher.op == "=":
            values = frozenset({matcher.value})
        elif matcher.op == "=~" and _LITERALS.fullmatch(matcher.value):
            values = frozenset(matcher.value.split("|"))
        else:
            continue
        known[matcher.name] = known.get(matcher.name, values) & values
    for matcher in matchers:
        if matcher.name in known:
            known[matcher.name] = frozenset(v for v in known[matcher.name] if matcher.matches({matcher.name: v}))
    return known


def _matches(node: Node, known: Known) -> bool | None:
    """True or False when that is sure; None when it depends on labels that are not known."""
    sure = True
    for matcher in node.matchers:
        answers = {matcher.matches({matcher.name: value}) for value in known.get(matcher.name, ())}
        if answers == {False}:
            return False
        sure = sure and answers == {True}
    return True if sure else None


def _read(route: Mapping[str, Any], parent: Node) -> Node:
    node = Node(
        receiver=str(route.get("receiver") or parent.receiver),
        matchers=_read_matchers(route),
        goes_on=route.get("continue") is True,
        group_interval=_duration(route, "group_interval", parent.group_interval),
        repeat_interval=_duration(route, "repeat_interval", parent.repeat_interval),
        children=(),
    )
    below = route.get("routes") or []
    if not isinstance(below, list) or not all(isinstance(child, Mapping) for child in below):
        raise ConfigError("`routes` is not a list of routes")
    children = tuple(_read(child, node) for child in below)
    return Node(node.receiver, node.matchers, node.goes_on, node.group_interval, node.repeat_interval, children)


def _read_matchers(route: Mapping[str, Any]) -> tuple[Matcher, ...]:
    modern = route.get("matchers") or []
    texts = [modern] if isinstance(modern, str) else modern
    try:
        found = [matcher for text in texts for matcher in parse_matchers(str(text))]
        found += [Matcher(str(name), "=", str(value)) for name, value in (route.get("match") or {}).items()]
        found += [Matcher(str(name), "=~", str(value)) for name, value in (route.get("match_re") or {}).items()]
    except (MatcherError, AttributeError, TypeError) as error:
        raise ConfigError(f"a route's matchers cannot be read: {error}") from None
    return tuple(found)


def _duration(route: Mapping[str, Any], key: str, inherited: timedelta) -> timedelta:
    text = route.get(key)
    if text is None:
        return inherited
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
