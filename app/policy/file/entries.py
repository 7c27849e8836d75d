"""Reads each entry of a policy file by itself: from plain values to models, each error with its place."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from app.policy.deadman import Switch
from app.policy.file.document import Document
from app.policy.file.keys import has_known_keys, is_known_key
from app.policy.file.problems import Path, Problem
from app.policy.language.matchers import Matcher, MatcherError, parse_matchers
from app.policy.language.variables import Unexpanded
from app.policy.schema import Airflow, Defaults, Route

Model = TypeVar("Model", bound=BaseModel)

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "required",
    "string_type": "must be text; put a number or true in quotes if it is meant as text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "greater_than_equal": "must be at least 1",
    "less_than_equal": "must be at most 100000",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "extra_forbidden": "auth is either username and password, or token, or token_file",
}


def read_defaults(document: Document, problems: list[Problem]) -> dict[str, JsonValue]:
    """The valid keys of `defaults:`, as plain values. Each route takes those that it leaves out."""
    value = _top(document).get("defaults", {})
    if not isinstance(value, dict):
        problems.append(document.problem(("defaults",), "must be a mapping"))
        return {}
    found: list[Problem] = []
    known = _without_unknown(value, ("defaults",))
    _validate(Defaults, known, document, ("defaults",), found)
    problems += found
    wrong = {problem.path.split(".")[1] for problem in found if "." in problem.path}
    return {key: inner for key, inner in known.items() if key not in wrong}


def read_airflow(document: Document, problems: list[Problem]) -> tuple[Airflow, ...]:
    """Every entry of `airflow:` that is valid."""
    if _top(document).get("airflow") == []:
        problems.append(document.problem(("airflow",), "must name at least one Airflow"))
    return read_list(Airflow, "airflow", document, problems, required=True)


def read_list(
    model: type[Model],
    key: str,
    document: Document,
    problems: list[Problem],
    *,
    required: bool = False,
    prepare: Callable[[Path, Mapping[str, JsonValue]], Mapping[str, object]] = lambda _path, entry: entry,
) -> tuple[Model, ...]:
    """Every valid entry of a top-level list whose entries are mappings; none when the key is left out.

    `prepare` changes an entry before the model reads it, where the model takes more than plain values.
    """
    if not required and key not in _top(document):
        return ()
    entries = _entries(document, key, problems)
    known = ((path, prepare(path, _without_unknown(entry, path))) for path, entry in entries.items())
    read = (_validate(model, entry, document, path, problems) for path, entry in known)
    return tuple(entry for entry in read if entry is not None)


def read_section(model: type[Model], key: str, document: Document, problems: list[Problem]) -> Model | None:
    """A top-level mapping, if it is valid; None also when the key is left out."""
    top = _top(document)
    if key not in top:
        return None
    value = top[key]
    if not isinstance(value, dict):
        problems.append(document.problem((key,), "must be a mapping"))
        return None
    return _validate(model, _without_unknown(value, (key,)), document, (key,), problems)


def read_routes(document: Document, defaults: dict[str, JsonValue], problems: list[Problem]) -> tuple[Route, ...]:
    """Every valid entry of `routes:`, with `defaults`. A route without a name gets one that is made from `dag.id`."""
    routes = []
    for path, entry in _entries(document, "routes", problems).items():
        known: dict[str, object] = {**defaults, **_without_unknown(entry, path)}
        if "name" not in known:
            known["name"] = derived_name(entry) or "unnamed"  # app.policy.file.checks asks for a name
        if "match" in known:
            known["match"] = read_match(document, (*path, "match"), entry["match"], problems)
        route = _validate(Route, known, document, path, problems)
        if route is not None:
            routes.append(route)
    return tuple(routes)


def read_deadman(document: Document, problems: list[Problem]) -> dict[Path, Switch]:
    """Every entry of `deadman:` that is valid, by its path."""
    if "deadman" not in _top(document):
        return {}
    switches = {}
    for path, entry in _entries(document, "deadman", problems).items():
        known: dict[str, object] = dict(_without_unknown(entry, path))
        if "match" in known:
            known["match"] = read_match(document, (*path, "match"), entry["match"], problems)
            if entry["match"] == []:
                problems.append(document.problem((*path, "match"), "is empty; leave it out for a heartbeat by ping"))
        switch = _validate(Switch, known, document, path, problems)
        if switch is not None:
            switches[path] = switch
    return switches


def derived_name(route: Mapping[str, JsonValue]) -> str | None:
    """A name for a route without one, made from its `dag.id`; None when no name can be made from it."""
    dag = route.get("dag")
    dag_id = dag.get("id") if isinstance(dag, dict) else None
    if not isinstance(dag_id, str) or isinstance(dag_id, Unexpanded) or "{{" in dag_id:
        return None
    return re.sub(r"[^a-z0-9_]+", "-", dag_id.lower()).strip("_-")[:63] or None


def read_match(document: Document, path: Path, value: JsonValue, problems: list[Problem]) -> list[Matcher]:
    """The matchers of a list of texts. Each text that is none is a problem."""
    if not isinstance(value, list):
        problems.append(document.problem(path, """must be a list of matchers, such as ['alertname="Drift"']"""))
        return []
    matchers: list[Matcher] = []
    for index, text in enumerate(value):
        if not isinstance(text, str):
            problems.append(document.problem((*path, index), """must be text, such as 'alertname="Drift"'"""))
        elif not text.strip():
            # An empty variable must not turn the route of one model into a route for every model.
            problems.append(
                document.problem((*path, index), "is empty; write match: [] for a route that takes every alert")
            )
        elif not isinstance(text, Unexpanded):
            try:
                matchers += parse_matchers(text)
            except MatcherError as error:
                problems.append(document.problem((*path, index), error.message, offset=error.offset))
    return matchers


def _top(document: Document) -> dict[str, JsonValue]:
    return document.value if isinstance(document.value, dict) else {}


def _entries(document: Document, key: str, problems: list[Problem]) -> dict[Path, dict[str, JsonValue]]:
    """The mappings in a top-level list, by path. An entry that is not a mapping is a problem."""
    value = _top(document).get(key)
    if not isinstance(value, list):
        problems.append(document.problem((key,), "must be a list" if key in _top(document) else "required"))
        return {}
    problems += [
        document.problem((key, index), "must be a mapping") for index, v in enumerate(value) if not isinstance(v, dict)
    ]
    return {(key, index): entry for index, entry in enumerate(value) if isinstance(entry, dict)}


def _without_unknown(value: dict[str, JsonValue], path: Path) -> dict[str, JsonValue]:
    """A copy without the unknown keys, which app.policy.file.keys reports."""
    kept: dict[str, JsonValue] = {}
    for key, inner in value.items():
        below = (*path, key)
        if is_known_key(below):
            kept[key] = _with_known(inner, below)
    return kept


def _with_known(value: JsonValue, path: Path) -> JsonValue:
    if isinstance(value, dict) and has_known_keys(path):
        return _without_unknown(value, path)
    if isinstance(value, list) and has_known_keys(path):
        return [_with_known(item, (*path, index)) for index, item in enumerate(value)]
    return value


def _validate(
    model: type[Model], value: Mapping[str, object], document: Document, path: Path, problems: list[Problem]
) -> Model | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems += problems_of(error.errors(include_url=False), document, path)
        return None


def problems_of(errors: Iterable[ErrorDetails], document: Document, path: Path) -> list[Problem]:
    """What a model at `path` does not take, in the words of the policy file."""
    problems = []
    for error in errors:
        # Pydantic puts the branch of a union into the path, and "[key]" for an error of a key. Our branches are in "<>".
        where = (*path, *(part for part in error["loc"] if not str(part).startswith("<") and part != "[key]"))
        empty = error["input"] is None and error["type"] != "missing"
        problems.append(
            document.problem(where, "is empty; give it a value or leave the key out" if empty else _message(error))
        )
    return problems


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '')}"
    if error["type"] == "value_error":
        return str(context["error"])
    return _MESSAGES.get(error["type"], error["msg"])
