"""What the switches of a policy say about its routes, its receivers and each other."""

import difflib
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod
from typing import Final

from app.policy.deadman import LONGEST_NAME, MOST_SWITCHES, Instance, Retrain, Switch
from app.policy.file.checks import unknown_receivers
from app.policy.file.document import Document
from app.policy.file.problems import Path, Problem
from app.policy.language.templates import TemplateError, becomes, placed, placeholders
from app.policy.schema import Route

# The name of a switch that takes pings is part of an address, and people type it into scripts.
_IN_ADDRESS: Final = re.compile(r"[A-Za-z0-9._~-]+")


def deadman_problems(
    document: Document, switches: Mapping[Path, Switch], routes: tuple[Route, ...], raw_routes: frozenset[str]
) -> Iterator[Problem]:
    """Every problem between valid entries. `raw_routes`: the names of all routes, also of those with an error."""
    if sum(_size(switch) for switch in switches.values()) > MOST_SWITCHES:
        yield document.problem(("deadman",), f"these are more than {MOST_SWITCHES} switches")
        return
    by_name = {route.name: route for route in routes}
    taken: dict[str, Path] = {}
    for path, switch in switches.items():
        yield from _name(document, path, switch, taken)
        yield from unknown_receivers(document, (*path, "receivers"))
        if isinstance(switch.expect, Retrain):
            yield from _retrain(document, path, switch, switch.expect, by_name, raw_routes)
        elif switch.kind == "ping":
            yield from _ping(document, path, switch)
    yield from _collisions(document, switches)


def _collisions(document: Document, switches: Mapping[Path, Switch]) -> Iterator[Problem]:
    """Names into which an alert can bring values that make them the name of another entry's switch."""
    for path, switch in switches.items():
        if not switch.for_each or switch.kind == "ping" or _is_open(switch.name) or not _is_template(switch):
            continue
        own = {instance.name for instance in switch.instances()}  # Of two equal names the other check speaks.
        others = {each.name for other in switches.values() if other is not switch for each in _instances(other)}
        taken = next((name for name in sorted(others - own) if becomes(switch.name, name)), None)
        if taken is not None:
            sentence = f"an alert's label can make it {taken!r}, the name of another switch: begin or end it otherwise"
            yield document.problem((*path, "name"), sentence)


def _is_template(switch: Switch) -> bool:
    try:
        return bool(placeholders(switch.name))
    except TemplateError:
        return False


def _instances(switch: Switch) -> Iterator[Instance]:
    try:
        yield from () if _is_open(switch.name) else switch.instances()
    except TemplateError:
        return


def _size(switch: Switch) -> int:
    return prod(len(values) for values in switch.for_each.values())


def _name(document: Document, path: Path, switch: Switch, taken: dict[str, Path]) -> Iterator[Problem]:
    try:
        named = list(placed(switch.name))
    except TemplateError as error:
        yield document.problem((*path, "name"), str(error), offset=error.offset)
        return
    for name, offset in named:
        if name not in switch.for_each:
            yield document.problem((*path, "name"), f"{name!r} is not in for_each", offset=offset)
    for missing in switch.for_each.keys() - {name for name, _ in named}:
        sentence = f"must hold {{{{group.{missing}}}}}: each value makes its own switch"
        yield document.problem((*path, "name"), sentence)
    if switch.for_each.keys() != {name for name, _ in named} or _is_open(switch.name):
        return
    for instance in switch.instances():
        if not instance.usable:
            sentence = f"{instance.name[:80]!r} is not a valid name: at most {LONGEST_NAME} printable characters"
            yield document.problem((*path, "name"), sentence)
        elif instance.name in taken:
            yield document.problem((*path, "name"), f"another switch is called {instance.name!r} already")
        taken[instance.name] = path


def _retrain(
    document: Document,
    path: Path,
    switch: Switch,
    expect: Retrain,
    routes: Mapping[str, Route],
    raw_routes: frozenset[str],
) -> Iterator[Problem]:
    if switch.match:
        yield document.problem((*path, "match"), "is for a heartbeat; a retrain is found by its route", key=True)
    route = routes.get(expect.retrain)
    if route is None:
        if expect.retrain not in raw_routes and not _is_open(expect.retrain):
            close = difflib.get_close_matches(expect.retrain, raw_routes, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            where = (*path, "expect", "retrain")
            yield document.problem(where, f"no route is called {expect.retrain!r}{hint}")
        return
    given = {**dict.fromkeys(expect.group, "expect"), **dict.fromkeys(switch.for_each, "for_each")}
    for label, source in given.items():
        at = (*path, "expect", "group", label) if source == "expect" else (*path, "for_each", label)
        if label not in route.group_by:
            yield document.problem(at, f"{label!r} is not in the route's group_by", key=True)
        if source == "for_each" and label in expect.group:
            yield document.problem(at, "is in expect.group too", key=True)
    for label in dict.fromkeys(placeholders(route.dag.id)):
        if label not in given and label in route.group_by:
            sentence = f"must name {label!r}: the DAG of the route is {route.dag.id!r}, another DAG for each value"
            yield document.problem((*path, "expect"), sentence)


def _ping(document: Document, path: Path, switch: Switch) -> Iterator[Problem]:
    values = chain.from_iterable(switch.for_each.values())
    for text in (re.sub(r"\{\{.*?\}\}", "", switch.name), *values):
        if text and not _is_open(text) and not _IN_ADDRESS.fullmatch(text):
            sentence = f"{text[:80]!r} cannot be in the address of a ping: use letters, digits, - . _ ~"
            yield document.problem((*path, "name"), sentence)


def _is_open(text: str) -> bool:
    """Whether it holds a variable that `check` does not know. (Pydantic makes a plain str of an Unexpanded.)"""
    return "${" in text
