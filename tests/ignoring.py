"""A plugin of pytest (`-p tests.ignoring`): with IGNORED_KEY=routes.mode in the environment, the gateway reads no policy's
`mode`. The test that tests/every_key.py names for the key must fail then.
"""

import os
import typing
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from app.policy.file import load
from app.policy.schema import Policy

#: What a key that must be there is read as, by its type.
_INSTEAD: dict[Any, Any] = {
    str: "http://ignored.test",
    SecretStr: SecretStr("ignored"),
    timedelta: timedelta(days=77),
    dict: {},
    tuple: (),
}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that the value of a field may be made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in typing.get_args(annotation):
            yield from models_in(part)


def pytest_configure() -> None:
    if key := os.environ.get("IGNORED_KEY"):
        _ignore(key)


def _ignore(key: str) -> None:
    if key == "defaults":
        _replace("read_defaults", lambda *_: {})
        return
    if key == "version":
        _replace("_version_problems", lambda *_: [])
        return
    *above, last = key.split(".")
    models: list[type[BaseModel]] = [Policy]
    for part in above:
        models = [
            inner for model in models for _, field in _named(model, part) for inner in models_in(field.annotation)
        ]
    found = [(model, *each) for model in models for each in _named(model, last)]
    if not found:
        raise pytest.UsageError(f"the policy has no key {key}")
    for model, name, field in found:
        # A property of the class is looked at before what an instance holds.
        setattr(model, name, property(lambda _, value=_without(field): value))  # type: ignore[misc]


def _replace(name: str, instead: Callable[..., Any]) -> None:
    if name not in vars(load):
        raise pytest.UsageError(f"app.policy.file.load has no {name} any more")
    vars(load)[name] = instead


def _named(model: type[BaseModel], key: str) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in model.model_fields.items() if (field.alias or name) == key]


def _without(field: FieldInfo) -> Any:
    """The value of a key that the file does not have, or one that no test would write."""
    if not field.is_required():
        return field.get_default(call_default_factory=True, validated_data={})
    return _INSTEAD.get(typing.get_origin(field.annotation) or field.annotation)
