"""Problems between the entries of a policy file: names, references, placeholders. And the warnings."""

import difflib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import JsonValue

from app.policy.conf import CONF_ROOM, conf_bytes
from app.policy.file.document import Document
from app.policy.file.entries import derived_name
from app.policy.file.problems import Path, Problem
from app.policy.language.durations import parse_duration
from app.policy.language.matchers import MatcherError, read_matchers
from app.policy.language.promql import misplaced
from app.policy.language.templates import TemplateError, fill, fixed_parts, placed
from app.policy.language.variables import Unexpanded, blanked
from app.policy.schedules import Schedule
from app.policy.schema import Route

# Alertmanager's default group_interval: it sends the end of an alert no sooner than that after its start.
_GROUP_INTERVAL: Final = timedelta(minutes=5)
# Schedules are checked from this time on, so the same file has the same warnings on any day.
_ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
RESERVED_CONF_KEY: Final = "gateway"
#: What Airflow refuses in the id of a DAG, of any version.
_NOT_IN_A_DAG_ID: Final = re.compile(r"[^\w.-]")
_LONGEST_DAG_ID: Final = 250  # characters


def cross_problems(document: Document, defaults: dict[str, JsonValue]) -> Iterator[Problem]:
    """Every problem between entries. It reads the plain values, so a bad entry does not hide the problems of others."""
    airflow = [name for _, entry in _mappings(document, "airflow") if isinstance(name := entry.get("name"), str)]
    routes = list(_mappings(document, "routes"))
    yield from _repeated_names(
        document, "airflow", [(p, e.get("name"), "name" in e) for p, e in _mappings(document, "airflow")]
    )
    yield from _missing_names(document, routes)
    sources = [(path, entry.get("name"), "name" in entry) for path, entry in _mappings(document, "sources")]
    yield from _repeated_names(document, "source", sources)
    receivers = [(path, entry.get("name"), "name" in entry) for path, entry in _mappings(document, "receivers")]
    yield from _repeated_names(document, "receiver", receivers)
    for path in [("notify",), ("defaults", "notify"), *((*path, "notify") for path, _ in routes)]:
        notify = _at(document, path)
        for event in notify if isinstance(notify, dict) else {}:
            yield from unknown_receivers(document, (*path, event))
    for path in [("defaults",), *(path for path, _ in routes)]:
        yield from unknown_receivers(document, (*path, "on_no_effect", "receivers"))
    names = [(path, entry.get("name", derived_name(entry)), "name" in entry) for path, entry in routes]
    yield from _repeated_names(document, "route", names)
    intervals = list(_mappings(document, "time_intervals"))
    yield from _repeated_names(
        document, "time interval", [(path, entry.get("name"), "name" in entry) for path, entry in intervals]
    )
    for path in [("defaults",), *(path for path, _ in routes)]:
        yield from _muted_by(document, (*path, "mute"), [entry.get("name") for _, entry in intervals])
    for path, entry in routes:
        yield from _confirm(document, path, entry, defaults)
        dag = entry.get("dag")
        if isinstance(dag, dict):
            yield from _reference(document, (*path, "dag"), dag, airflow)
            yield from _dag_id(document, (*path, "dag", "id"), dag.get("id"))
            yield from _conf(document, (*path, "dag", "conf"), dag.get("conf"))
            yield from _placeholders(document, (*path, "dag"), dag, entry.get("group_by", defaults.get("group_by", [])))
    yield from _schedules(document, defaults, [entry for _, entry in routes])


def unknown_receivers(document: Document, path: Path) -> Iterator[Problem]:
    """The names in a list at `path` that `receivers:` lacks."""
    there = [name for _, entry in _mappings(document, "receivers") if isinstance(name := entry.get("name"), str)]
    named = _at(document, path)
    for index, name in enumerate(named if isinstance(named, list) else []):
        if isinstance(name, str) and not isinstance(name, Unexpanded) and name not in there:
            if any(isinstance(each, Unexpanded) for each in there):
                continue
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(map(repr, there)) or 'none'}"
            yield document.problem((*path, index), f"no receiver is called {name!r}; {hint}")


def route_names(document: Document) -> frozenset[str]:
    """The names of all routes, also of those with an error."""
    names = (entry.get("name", derived_name(entry)) for _, entry in _mappings(document, "routes"))
    return frozenset(name for name in names if isinstance(name, str))


def airflow_for(named: str | None, airflow: Sequence[str]) -> str | None:
    """The Airflow of a `dag`: the named one, else `default`, else the only one; None when none of these exists."""
    if named is not None:
        return named if named in airflow else None
    if "default" in airflow:
        return "default"
    return airflow[0] if len(airflow) == 1 else None


def warnings(document: Document, routes: tuple[Route, ...], schedules: tuple[Schedule, ...]) -> Iterator[Problem]:
    """Entries that are allowed but probably not meant, in a file without errors."""
    for path in [("defaults",), *(("routes", index) for index in range(len(routes)))]:
        yield from _short_debounce(document, path)
    if not routes:
        yield document.problem(("routes",), "there is no route: nothing will ever start a DAG run")
    for index, route in enumerate(routes):
        path = ("routes", index)
        yield from _grammar_warnings(document, (*path, "match"))
        if not route.match and index + 1 < len(routes):
            yield document.problem((*path, "match"), "this takes every alert: no alert reaches the routes below it")
        mode = _at(document, (*path, "mode"))
        if route.group_by and route.limit is None and route.mode == "live" and not isinstance(mode, Unexpanded):
            sentence = "has no limit: whoever sends alerts can start a DAG run for each value that they invent"
            yield document.problem(path, f"{sentence}; limit: {{triggers: 100, per: 1d}} is a good one")
        if route.debounce >= route.stale_after:
            sentence = "not shorter than stale_after: an alert that is not repeated in time never fires"
            yield document.problem((*path, "debounce"), sentence)
    for index, schedule in enumerate(schedules):
        yield from _refused_schedule(document, ("schedules", index), schedule, routes)


def _repeated_names(document: Document, kind: str, names: list[tuple[Path, JsonValue, bool]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, name, is_written in names:
        if isinstance(name, str) and name in seen:
            message = f"another {kind} is called {name!r} already"
            yield document.problem((*path, "name"), message if is_written else f"required: {message}")
        elif isinstance(name, str):
            seen.add(name)


def _missing_names(document: Document, routes: list[tuple[Path, dict[str, JsonValue]]]) -> Iterator[Problem]:
    for path, entry in routes:
        dag = entry.get("dag")
        dag_id = dag.get("id") if isinstance(dag, dict) else None
        if "name" not in entry and isinstance(dag_id, str) and dag_id and derived_name(entry) is None:
            yield document.problem((*path, "name"), "required: no name can be made from this dag.id")


def _reference(document: Document, path: Path, dag: dict[str, JsonValue], airflow: list[str]) -> Iterator[Problem]:
    named = dag.get("airflow")
    if (named is not None and not isinstance(named, str)) or isinstance(named, Unexpanded) or not airflow:
        return
    if any(isinstance(name, Unexpanded) for name in airflow) or airflow_for(named, airflow) is not None:
        return
    if named is None:
        yield document.problem((*path, "airflow"), "required: there are several Airflows and none is called 'default'")
        return
    close = difflib.get_close_matches(named, airflow, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(map(repr, airflow))}"
    yield document.problem((*path, "airflow"), f"no Airflow is called {named!r}; {hint}")


def _muted_by(document: Document, path: Path, known: list[JsonValue]) -> Iterator[Problem]:
    if any(isinstance(name, Unexpanded) for name in known):
        return
    names = [name for name in known if isinstance(name, str)]
    mute = _at(document, path)
    for index, name in enumerate(mute if isinstance(mute, list) else []):
        if not isinstance(name, str) or isinstance(name, Unexpanded) or not name or name in names:
            continue
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(map(repr, names)) or 'none'}"
        yield document.problem((*path, index), f"no time interval is called {name!r}; {hint}")


def _schedules(
    document: Document, defaults: dict[str, JsonValue], routes: list[dict[str, JsonValue]]
) -> Iterator[Problem]:
    """Each schedule must name a route that exists, and exactly the labels of its group_by."""
    schedules = list(_mappings(document, "schedules"))
    yield from _repeated_names(document, "schedule", [(p, e.get("name"), "name" in e) for p, e in schedules])
    known = {name: e for e in routes if isinstance(name := e.get("name", derived_name(e)), str)}
    for path, entry in schedules:
        named, group = entry.get("route"), entry.get("group", {})
        if not isinstance(named, str) or isinstance(named, Unexpanded) or any(isinstance(n, Unexpanded) for n in known):
            continue
        if named not in known:
            close = difflib.get_close_matches(named, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(map(repr, known)) or 'none'}"
            yield document.problem((*path, "route"), f"no route is called {named!r}; {hint}")
            continue
        group_by = known[named].get("group_by", defaults.get("group_by", []))
        if isinstance(group, dict) and isinstance(group_by, list) and set(group) != set(map(str, group_by)):
            wanted = ", ".join(map(str, group_by)) or "none: leave it out"
            yield document.problem((*path, "group"), f"must have exactly the labels of the route's group_by: {wanted}")


def _confirm(
    document: Document, route: Path, entry: dict[str, JsonValue], defaults: dict[str, JsonValue]
) -> Iterator[Problem]:
    path = (*route, "confirm", "query") if "confirm" in entry else ("defaults", "confirm", "query")
    query, group_by = _at(document, path), entry.get("group_by", defaults.get("group_by", []))
    if not isinstance(query, str):
        return
    try:
        for offset in misplaced(query):
            message = 'a placeholder must stand in quotes: it is filled with text, such as {model="{{group.model}}"}'
            yield document.problem(path, message, offset=offset)
        for name, offset in placed(query):
            if isinstance(group_by, list) and name not in group_by:
                yield document.problem(path, f"{name!r} is not in the route's group_by", offset=offset)
    except TemplateError as error:
        yield document.problem(path, str(error), offset=error.offset)


def _dag_id(document: Document, path: Path, text: JsonValue) -> Iterator[Problem]:
    """An id that no DAG of Airflow can have, whatever its variables and labels are."""
    if not isinstance(text, str):
        return
    written = blanked(text) if isinstance(text, Unexpanded) else text
    bad = _NOT_IN_A_DAG_ID.search(fixed_parts(written))
    if bad and "{{" not in bad.string:  # Another `{{` is an error of its own.
        sentence = f"no DAG can have this id: Airflow takes letters, digits, _, - and ., but not {bad.group()!r}"
        yield document.problem(path, sentence, offset=bad.start())
    fixed = len(fill(text, lambda _name, _offset: ""))
    if fixed > _LONGEST_DAG_ID and not isinstance(text, Unexpanded):
        sentence = f"no DAG can have this id: Airflow takes {_LONGEST_DAG_ID} characters, and here are {fixed}"
        yield document.problem(path, sentence)


def _conf(document: Document, path: Path, conf: JsonValue) -> Iterator[Problem]:
    if not isinstance(conf, dict):
        return
    if RESERVED_CONF_KEY in conf:
        yield document.problem((*path, RESERVED_CONF_KEY), "this key is the gateway's own; choose another", key=True)
    size = conf_bytes(conf)
    if size > CONF_ROOM:
        yield document.problem(path, f"{size} bytes of JSON are too many; at most {CONF_ROOM} fit into a DAG run")


def _placeholders(document: Document, path: Path, dag: dict[str, JsonValue], group_by: JsonValue) -> Iterator[Problem]:
    for key in ("id", "conf"):
        for where, text, is_key in _strings(dag.get(key), (*path, key)):
            try:
                found = list(placed(text))
            except TemplateError as error:
                yield document.problem(where, str(error), key=is_key, offset=error.offset)
                continue
            if found and is_key:
                yield document.problem(where, "placeholders are filled in values, not in keys", key=True)
                continue
            for name, offset in found:
                if isinstance(group_by, list) and name not in group_by:
                    yield document.problem(where, f"{name!r} is not in the route's group_by", offset=offset)


def _strings(value: JsonValue, path: Path) -> Iterator[tuple[Path, str, bool]]:
    """Every string in a value, and every key, with its path."""
    if isinstance(value, str):
        yield path, value, False
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), key, True
            yield from _strings(item, (*path, key))


def _short_debounce(document: Document, path: Path) -> Iterator[Problem]:
    text = _at(document, (*path, "debounce"))
    if isinstance(text, str) and not isinstance(text, Unexpanded):
        debounce = parse_duration(text)
        if timedelta(0) < debounce < _GROUP_INTERVAL:
            sentence = "shorter than Alertmanager's group_interval (5m): it may fire before the end of an alert arrives"
            yield document.problem((*path, "debounce"), sentence)


def _refused_schedule(
    document: Document, path: Path, schedule: Schedule, routes: tuple[Route, ...]
) -> Iterator[Problem]:
    index = next((i for i, route in enumerate(routes) if route.name == schedule.route), None)
    if index is None:
        return
    written = (_at(document, (*path, "cron")), _at(document, (*path, "timezone")))
    cooling = (_at(document, ("routes", index, "cooldown")), _at(document, ("defaults", "cooldown")))
    if any(isinstance(text, Unexpanded) for text in (*written, cooling[0] or cooling[1])):
        return
    cause = schedule.refused_by(routes[index].cooldown, _ANY_TIME)
    if cause is not None:
        yield document.problem((*path, "cron"), cause)


def _grammar_warnings(document: Document, path: Path) -> Iterator[Problem]:
    texts = _at(document, path)
    for index, text in enumerate(texts if isinstance(texts, list) else []):
        if isinstance(text, str) and not isinstance(text, Unexpanded):
            try:
                _, warning = read_matchers(text)
            except MatcherError:
                continue
            if warning:
                yield document.problem((*path, index), warning)


def _mappings(document: Document, key: str) -> Iterator[tuple[Path, dict[str, JsonValue]]]:
    entries = _at(document, (key,))
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield (key, index), entry


def _at(document: Document, path: Path) -> JsonValue:
    value = document.value
    for part in path:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            return None
    return value
