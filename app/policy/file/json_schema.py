"""The JSON Schema of the policy file, for editors: `trigger-gateway schema` prints it, `init` writes it beside the policy.

It knows keys, types, defaults and meanings. It takes every file that `check` takes; `check` finds more, such as a name that
nothing has. Draft 7 is what every editor reads.
"""

import json
import types
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from app.policy.file import describe
from app.policy.schema import Defaults, Policy
from app.policy.values import key_of

TITLE: Final = "Policy of the Trigger Gateway"


def schema_text() -> str:
    """The schema as JSON text."""
    return json.dumps(policy_schema(), indent=1) + "\n"


def policy_schema() -> dict[str, Any]:
    """The schema of a whole policy file."""
    schema = _mapping(Policy)
    keys = schema["properties"]
    keys["defaults"] = {
        **_mapping(Defaults),
        "description": "What a route may leave out. The top-level `defaults:` changes these values. Default: none.",
    }
    schema["properties"] = {name: keys[name] for name in ("version", *describe.sections())}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": TITLE, **schema}


def _mapping(model: describe.Model) -> dict[str, Any]:
    keys = describe.hints(model)
    return {
        "description": describe.intro(model),
        "type": "object",
        "properties": {key_of(model, name): _key(model, name, hint) for name, hint in keys.items()},
        "required": [key_of(model, name) for name in keys if describe.is_required(model, name)],
        "additionalProperties": False,
    }


def _key(model: describe.Model, name: str, hint: Any) -> dict[str, Any]:
    kind = describe.kind_of_field(model, name)
    in_words, default = describe.default_in_words(model, name), describe.default_value(model, name)
    last = "Required." if describe.is_required(model, name) else f"Default: {in_words}."
    described: dict[str, Any] = {"description": f"{describe.text_of(model, name)} {last}"}
    if default is not None:
        described["default"] = default
    return {**(dict(kind.shape) if kind else _shape(hint)), **described}


def _shape(hint: Any) -> dict[str, Any]:
    kind, number = describe.kind_of(hint), describe.bounds(hint)
    if kind is not None:
        return dict(kind.shape)
    if number is not None:
        return {"type": "integer", "minimum": number[0], "maximum": number[1]}
    if isinstance(hint, type):
        return _mapping(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _shape(inner[0])
    if origin is Literal:
        return _choice(inner)
    if origin is tuple:
        return {"type": "array", "items": _shape(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _shape(inner[1])}
    if origin in (Union, types.UnionType):
        branches = [_shape(branch) for branch in inner if branch is not type(None)]
        return branches[0] if len(branches) == 1 else {"anyOf": branches}
    raise TypeError(f"no JSON Schema is known for the type {hint!r}")


def _choice(choices: tuple[Any, ...]) -> dict[str, Any]:
    """Some values. A variable may stand in for a text."""
    known = {"enum": list(choices)}
    if not all(isinstance(choice, str) for choice in choices):
        return known
    return {"anyOf": [known, {"type": "string", "pattern": describe.VARIABLE}]}
