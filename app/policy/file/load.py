"""Load the policy file: a Policy, or every error of the file at once."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import JsonValue

from app.kit.errors import unless_out_of_files
from app.policy.deadman import Switch
from app.policy.file.checks import airflow_for, cross_problems, route_names, warnings
from app.policy.file.deadman_checks import deadman_problems
from app.policy.file.document import MAX_BYTES, Document, read_document
from app.policy.file.entries import read_airflow, read_deadman, read_defaults, read_list, read_routes, read_section
from app.policy.file.keys import key_problems
from app.policy.file.masked import masked, open_variables
from app.policy.file.problems import PolicyError, Problem, in_file_order
from app.policy.file.promotion_checks import promotion_problems, promotion_warnings, read_promotions
from app.policy.intervals import TimeInterval
from app.policy.lineage import Lineage
from app.policy.mlflow import Mlflow
from app.policy.receivers import NEWS, NO_EFFECT, PROBATION_FAILED, Notify, Receiver
from app.policy.schedules import Schedule
from app.policy.schema import Airflow, EffectTerms, OnNoEffect, Policy, Route
from app.policy.sources import Source

__all__ = ["Policy", "PolicyError", "Problem", "load_policy", "parse_policy", "parse_sent_policy"]

VERSION: Final = 1


def load_policy(path: FilePath, env: Mapping[str, str] | None = None, *, require_env: bool = True) -> Policy:
    """Read a policy file. `env` has the values of its `${NAME}`; None is the environment of the process.

    Raises PolicyError with every problem of the file, also when the file cannot be read at all, and OutOfFiles.
    """
    return parse_policy(read_text(path), str(path), os.environ if env is None else env, require_env=require_env)


def read_text(path: FilePath) -> str:
    """The text of a policy file, or a little more than may be. Raises PolicyError when it cannot be read, and OutOfFiles."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        unless_out_of_files(error)
        raise PolicyError([_whole_file(path, f"cannot be read: {error.strerror or error}")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8-sig", "replace")) + 1
        raise PolicyError([Problem(str(path), line, column, "policy", "the file is not UTF-8 text")]) from None


def parse_policy(text: str, filename: str, env: Mapping[str, str], *, require_env: bool = True) -> Policy:
    """Read a policy from its text. Problems show `filename`.

    Without `require_env` an unset `${NAME}` is no error. The policy then holds it as written (a duration is 1h), so it is
    only for checking. Raises PolicyError with every problem, in the order of the file.
    """
    document = read_document(text, filename, env, require_env=require_env)
    problems = [*document.problems, *_shape_problems(document)]
    if not isinstance(document.value, dict):
        raise PolicyError(problems)
    defaults = read_defaults(document, problems)
    airflow = read_airflow(document, problems)
    routes = read_routes(document, defaults, problems)
    receivers = read_list(Receiver, "receivers", document, problems)
    schedules = read_list(Schedule, "schedules", document, problems)
    deadman = read_deadman(document, problems)
    others = _read_others(document, problems)
    problems += [*cross_problems(document, defaults), *promotion_problems(document)]
    problems += deadman_problems(document, deadman, routes, route_names(document))
    if problems:
        raise PolicyError(problems)
    routes = tuple(_with_airflow(route, airflow) for route in routes)
    policy = Policy(
        version=VERSION,
        airflow=airflow,
        routes=routes,
        receivers=receivers,
        schedules=schedules,
        deadman=tuple(_with_receivers(switch, receivers) for switch in deadman.values()),
        hash="",
        warnings=in_file_order(
            [*warnings(document, routes, schedules), *promotion_warnings(document, others["promotions"])]
        ),
        **others,
    )
    meant = _meant(policy)
    return policy.model_copy(update={"hash": _hash(document, meant), "text": masked(text, document, meant)})


def parse_sent_policy(text: str, filename: str) -> Policy:
    """Read a policy that somebody sent, to replay it. Variables have no values: those of this process are not the sender's.
    Where one would decide, that is a problem. Raises PolicyError as `parse_policy`."""
    policy = parse_policy(text, filename, {}, require_env=False)
    document = read_document(text, filename, {}, require_env=False)
    if found := open_variables(document):
        what = "a variable has no value here, and this one decides: write its value"
        raise PolicyError([document.problem(path, what) for path in found])
    return policy


def _read_others(document: Document, problems: list[Problem]) -> dict[str, Any]:
    """The other sections, by the name of their field. They need no change after reading."""
    return {
        "mlflow": read_section(Mlflow, "mlflow", document, problems),
        "time_intervals": read_list(TimeInterval, "time_intervals", document, problems),
        "promotions": read_promotions(document, problems),
        "notify": read_section(Notify, "notify", document, problems),
        "lineage": read_section(Lineage, "lineage", document, problems) or Lineage(),
        "sources": read_list(Source, "sources", document, problems),
    }


def _with_receivers(switch: Switch, receivers: tuple[Receiver, ...]) -> Switch:
    """A switch without `receivers` gets every receiver, as an event without `notify` does. `[]` stays empty."""
    if "receivers" in switch.model_fields_set:
        return switch
    return switch.model_copy(update={"receivers": tuple(receiver.name for receiver in receivers)})


def _shape_problems(document: Document) -> list[Problem]:
    if not isinstance(document.value, dict):
        return [document.problem((), f"must be a mapping that begins with `version: {VERSION}`")]
    return [*key_problems(document), *_version_problems(document, document.value.get("version"))]


def _version_problems(document: Document, version: Any) -> list[Problem]:
    if version is None:
        return [document.problem(("version",), f"required; write `version: {VERSION}`")]
    if version is True or version != VERSION:
        return [document.problem(("version",), f"must be {VERSION}, the version that this gateway reads")]
    return []


def _with_airflow(route: Route, airflow: tuple[Airflow, ...]) -> Route:
    name = airflow_for(
        route.dag.airflow if "airflow" in route.dag.model_fields_set else None, [a.name for a in airflow]
    )
    return route.model_copy(update={"dag": route.dag.model_copy(update={"airflow": name})})


def _meant(policy: Policy) -> dict[str, Any]:
    """The policy as JSON. A key that is younger than the hashes that are kept counts only when it is set."""
    meant = policy.model_dump(mode="json", exclude={"hash", "warnings", "text"})
    for route, shown in zip(policy.routes, meant["routes"], strict=True):
        if route.effect == EffectTerms():
            del shown["effect"]
        if route.on_no_effect == OnNoEffect():
            del shown["on_no_effect"]
    for entry, shown in zip(policy.promotions, meant["promotions"], strict=True):
        if entry.probation is None:
            del shown["probation"]
    for notify in filter(None, [meant["notify"], *(route["notify"] for route in meant["routes"])]):
        for event in (NO_EFFECT, PROBATION_FAILED, *NEWS):
            if notify.get(event) is None:
                notify.pop(event, None)
    return meant


def _hash(document: Document, meant: dict[str, JsonValue]) -> str:
    """12 hex characters from the meaning of the file. Layout, comments and written defaults do not change them.

    Variables count as written, and literal secrets do not count. So nobody can guess a secret from the hash.
    """
    raw = document.raw if isinstance(document.raw, dict) else {}
    raw_defaults = _mapping(raw.get("defaults"))
    written: JsonValue = {**raw, "routes": [{**raw_defaults, **_mapping(route)} for route in _list(raw.get("routes"))]}
    # A section that is left out must not count. Otherwise a new version of the gateway would change the hash of every file.
    effective = _as_written({key: value for key, value in meant.items() if value not in (None, [])}, written)
    text = json.dumps(effective, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_written(value: JsonValue, raw: JsonValue) -> JsonValue:
    """The effective value, but with each string that holds a variable as it is in the file."""
    if isinstance(raw, str):
        return raw if "${" in raw else value
    if isinstance(value, dict) and isinstance(raw, dict):
        return {key: _as_written(inner, raw.get(key)) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(raw, list):
        if len(value) != len(raw):  # One string of `match` may hold several matchers.
            return raw if "${" in json.dumps(raw) else value
        return [_as_written(inner, written) for inner, written in zip(value, raw, strict=True)]
    return value


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _whole_file(path: FilePath, message: str) -> Problem:
    return Problem(str(path), 1, 1, "policy", message)
