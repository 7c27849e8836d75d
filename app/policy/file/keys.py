"""Which keys a policy file may hold."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import JsonValue

from app.policy.confirm import Confirm
from app.policy.deadman import Retrain, Switch
from app.policy.file.document import Document
from app.policy.file.problems import Path, Problem
from app.policy.intervals import Interval, TimeInterval, TimeRange
from app.policy.lineage import Lineage
from app.policy.mlflow import Mlflow
from app.policy.promotions import Probation, Promotion, Require
from app.policy.receivers import KINDS as RECEIVER_KINDS
from app.policy.receivers import Notify, Receiver, RouteNotify
from app.policy.schedules import Schedule
from app.policy.schema import Airflow, Dag, Defaults, EffectTerms, Limit, OnNoEffect, Route
from app.policy.sources import Source
from app.policy.values import Frozen, PasswordAuth, ServerWithLogin, TokenAuth, TokenFileAuth, fields_of, key_of


def _fields(*models: type[Frozen]) -> tuple[str, ...]:
    return tuple(key_of(model, name) for model in models for name in fields_of(model))


_AUTH: Final = _fields(PasswordAuth, TokenAuth, TokenFileAuth)

# Paths without list indexes. The keys below dag.conf belong to the operator.
_KNOWN: Final[Mapping[Path, tuple[str, ...]]] = {
    (): (
        "version",
        "airflow",
        "routes",
        "defaults",
        "mlflow",
        "promotions",
        "time_intervals",
        "receivers",
        "notify",
        "lineage",
        "schedules",
        "sources",
        "deadman",
    ),
    ("airflow",): _fields(Airflow),
    ("sources",): _fields(Source),
    ("airflow", "auth"): _AUTH,
    ("defaults",): _fields(Defaults),
    ("routes",): _fields(Route),
    ("routes", "dag"): _fields(Dag),
    ("routes", "limit"): _fields(Limit),
    ("defaults", "limit"): _fields(Limit),
    ("routes", "effect"): _fields(EffectTerms),
    ("defaults", "effect"): _fields(EffectTerms),
    ("routes", "on_no_effect"): _fields(OnNoEffect),
    ("defaults", "on_no_effect"): _fields(OnNoEffect),
    ("routes", "confirm"): _fields(Confirm),
    ("defaults", "confirm"): _fields(Confirm),
    ("routes", "confirm", "auth"): _AUTH,
    ("defaults", "confirm", "auth"): _AUTH,
    ("schedules",): _fields(Schedule),
    ("deadman",): _fields(Switch),
    ("deadman", "expect"): _fields(Retrain),
    ("mlflow",): _fields(Mlflow),
    ("mlflow", "auth"): _AUTH,
    ("mlflow", "logins"): _AUTH,
    ("time_intervals",): _fields(TimeInterval),
    ("time_intervals", "time_intervals"): _fields(Interval),
    ("time_intervals", "time_intervals", "times"): _fields(TimeRange),
    ("promotions",): _fields(Promotion),
    ("promotions", "require"): _fields(Require),
    ("promotions", "probation"): _fields(Probation),
    ("receivers",): _fields(Receiver),
    **{("receivers", kind): _fields(model) for kind, model in RECEIVER_KINDS.items()},
    **{
        ("receivers", kind, "auth"): _AUTH
        for kind, model in RECEIVER_KINDS.items()
        if issubclass(model, ServerWithLogin)
    },
    ("notify",): _fields(Notify),
    ("routes", "notify"): _fields(RouteNotify),
    ("defaults", "notify"): _fields(RouteNotify),
    ("lineage",): _fields(Lineage),
}


def key_problems(document: Document) -> Iterator[Problem]:
    """Every key that this version does not know, with the key that was probably meant."""
    yield from _visit(document, document.value, ())


def is_known_key(path: Path) -> bool:
    """Whether the mapping of a path may hold its last key."""
    return path[-1] in _KNOWN.get(_shape(path[:-1]), ())


def has_known_keys(path: Path) -> bool:
    """Whether the mapping at this path has keys of the policy, not of the operator."""
    return _shape(path) in _KNOWN


def _visit(document: Document, value: JsonValue, path: Path) -> Iterator[Problem]:
    shape = _shape(path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _visit(document, item, (*path, index))
    elif isinstance(value, dict) and shape in _KNOWN:
        for key, inner in value.items():
            if key not in _KNOWN[shape]:
                yield document.problem((*path, key), _unknown(key, shape), key=True)
            else:
                yield from _visit(document, inner, (*path, key))


def _unknown(key: str, shape: Path) -> str:
    close = difflib.get_close_matches(key, _KNOWN[shape], n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; the keys here are {_listed(shape)}"


def _listed(shape: Path) -> str:
    return ", ".join(_KNOWN[shape])


def _shape(path: Path) -> Path:
    return tuple(part for part in path if isinstance(part, str))
