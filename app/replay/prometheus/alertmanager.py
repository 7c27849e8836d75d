"""An `alertmanager.yml`: which alerts get to the gateway, and with which pace.

Source: Alertmanager's documentation of its configuration file. Only `route` and `receivers` count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from app.kit.errors import UsageError
from app.policy.language.durations import format_duration, parse_duration
from app.policy.language.matchers import Matcher, MatcherError, parse_matchers
from app.replay.prometheus.notify import Pace
from app.replay.prometheus.read import Routing, Way

WEBHOOK: Final = "/api/v1/webhooks/alertmanager"
LARGEST: Final = 4 * 1024 * 1024  # bytes of the file
DEEPEST: Final = 50  # routes in routes

_TIMES: Final = ("group_wait", "group_interval", "repeat_interval")


@dataclass(frozen=True, slots=True)
class _Node:
    """A route of the file."""

    way: Way
    receiver: str
    matchers: tuple[Matcher, ...]
    goes_on: bool
    children: tuple["_Node", ...]

    def reached(self, labels: Mapping[str, str]) -> Iterator["_Node"]:
        """The routes that an alert ends in, as Alertmanager looks for them."""
        if not all(matcher.matches(labels) for matcher in self.matchers):
            return
        any_child = False
        for child in self.children:
            found = list(child.reached(labels))
            yield from found
            any_child = any_child or bool(found)
            if found and not child.goes_on:
                return
        if not any_child:
            yield self


def without_file(group_by: Sequence[str], given: Mapping[str, timedelta]) -> Routing:
    """One route for every alert, with Alertmanager's own times but for those that are given."""
    pace = _with_times(Pace(tuple(group_by)), given)
    times = ", ".join(f"{name} {format_duration(getattr(pace, name))}" for name in _TIMES)
    way = Way("default", pace)
    text = f"Alertmanager posts with {times}, grouped by {', '.join(group_by)}: see --alertmanager."
    return Routing(lambda _: [way], text)


def from_file(path: Path, given: Mapping[str, timedelta]) -> Routing:
    """The routes of a file. Routes to a gateway's webhook count. When it has none, each alert keeps the pace of the first
    route that it ends in. Raises UsageError."""
    top = _read(path)
    try:
        hooks = _gateways(top)
        root = _node(top.get("route"), Pace(()), "", "route", given, hooks)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{path} is no configuration of Alertmanager: {error or type(error).__name__}") from None
    named = f"Alertmanager posts as {path.name} says" + (
        f", with {', '.join(f'{name} {format_duration(value)}' for name, value in given.items())}" if given else ""
    )
    if not hooks:
        text = (
            f"{named}. No receiver in it posts to a gateway: each alert has the pace of the first route that takes it."
        )
        return Routing(lambda labels: [node.way for node in root.reached(labels)][:1], text)
    return Routing(lambda labels: [node.way for node in root.reached(labels) if node.receiver in hooks], f"{named}.")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UsageError(f"{path} is larger than {LARGEST} bytes: name an alertmanager.yml")
        top = yaml.safe_load(raw)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Name an alertmanager.yml") from error
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise UsageError(f"{where}: it is not YAML") from None
    if not isinstance(top, dict) or not isinstance(top.get("route"), dict):
        raise UsageError(f"{path} is no configuration of Alertmanager: it has no `route`")
    return top


def _gateways(top: Mapping[str, Any]) -> dict[str, bool]:
    """The receivers that post to a gateway, and whether they send the end of an alert too."""
    found = {}
    for receiver in top.get("receivers") or []:
        for hook in receiver.get("webhook_configs") or []:
            if str(hook.get("url", "")).partition("?")[0].rstrip("/").endswith(WEBHOOK):
                found[str(receiver["name"])] = hook.get("send_resolved", True) is not False
    return found


def _node(
    entry: Any, parent: Pace, receiver: str, name: str, given: Mapping[str, timedelta], hooks: Mapping[str, bool]
) -> _Node:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no mapping")
    if name.count(".") > 2 * DEEPEST:
        raise ValueError("its routes are too deep")
    receiver = str(entry.get("receiver") or receiver)
    times = {key: _duration(entry[key], f"{name}.{key}") for key in _TIMES if entry.get(key) is not None}
    group_by = parent.group_by if entry.get("group_by") is None else _group_by(entry["group_by"], name)
    pace = replace(parent, group_by=group_by, send_resolved=hooks.get(receiver, True))
    pace = _with_times(pace, {**times, **given})
    children = [
        _node(child, pace, receiver, f"{name}.routes.{number}", given, hooks)
        for number, child in enumerate(entry.get("routes") or [])
    ]
    return _Node(
        Way(name, pace), receiver, tuple(_matchers(entry, name)), entry.get("continue") is True, tuple(children)
    )


def _matchers(entry: Mapping[str, Any], name: str) -> Iterator[Matcher]:
    try:
        for text in entry.get("matchers") or []:
            yield from parse_matchers(str(text))
        for op, key in (("=", "match"), ("=~", "match_re")):
            for label, value in (entry.get(key) or {}).items():
                yield Matcher(str(label), op, str(value))
    except MatcherError as error:
        raise ValueError(f"{name}: {error.message}") from None


def _with_times(pace: Pace, times: Mapping[str, timedelta]) -> Pace:
    wait, interval, repeat = (times.get(name, getattr(pace, name)) for name in _TIMES)
    return replace(pace, group_wait=wait, group_interval=interval, repeat_interval=repeat)


def _group_by(value: Any, name: str) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        raise ValueError(f"{name}.group_by is no list")
    return None if "..." in value else tuple(map(str, value))


def _duration(value: Any, name: str) -> timedelta:
    try:
        found = parse_duration(str(value))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if name.endswith(("group_interval", "repeat_interval")) and not found:
        raise ValueError(f"{name} must be longer than 0")
    return found
