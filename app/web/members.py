"""Bodies of requests: `null` is the same as a member that is left out, for every member that may be left out.

Many languages and libraries write a member without a value as null. Entries of a map, such as a param, are members too.
A map of any JSON, such as `conf`, belongs to the sender and stays as it is. A label must be text: without it an alert
would be of another group, so null there is an error.

Parts are counted before they are looked at: a member with a hundred thousand faults is one fault.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BaseModel, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_MOST_UNKNOWN = 100  # members without a meaning; each of them is named as an error


class Body(BaseModel):
    """A body, or a part of one, that shows in the OpenAPI document what may be null. `present` takes the nulls out, and
    counts."""

    @classmethod
    def present(cls, value: Any) -> Any:
        """The value without the members that are null and may be left out. Raises ValueError for too many parts."""
        if not isinstance(value, Mapping):
            return value
        if cls.model_config.get("extra") == "forbid" and len(value) > len(cls.model_fields) + _MOST_UNKNOWN:
            raise ValueError(f"it has {len(value)} members, and may have {len(cls.model_fields)}")
        for name, most in _most_parts(cls):
            parts = value.get(name)
            if isinstance(parts, dict | list) and len(parts) > most:
                raise ValueError(f"`{name}` has {len(parts)} entries, and may have {most}")
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        return {
            name: _inside(name, fields[name], inner) if name in fields else inner
            for name, inner in value.items()
            if inner is not None or name not in fields or fields[name].is_required()
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        for name, shown in resolved.get("properties", {}).items():
            if _is_map(name, fields[name]) and "additionalProperties" in shown:
                shown["additionalProperties"] = _or_null(shown["additionalProperties"])
            if not fields[name].is_required():
                resolved["properties"][name] = _or_null(shown)
        return schema


class RequestBody(Body):
    """The body of a request to the gateway's own API."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return cls.present(value)


@cache
def _most_parts(model: type[Body]) -> list[tuple[str, int]]:
    """The members of `model` whose entries are limited, each with its limit."""
    return [
        (field.alias or name, rule.max_length)
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) in (dict, list)
        for rule in field.metadata
        if isinstance(rule, MaxLen)
    ]


def _inside(name: str, field: FieldInfo, value: Any) -> Any:
    """The value of a member, without the nulls in it."""
    if not isinstance(value, Mapping):
        return value
    if _is_map(name, field):
        return {key: inner for key, inner in value.items() if inner is not None}
    parts = (field.annotation, *get_args(field.annotation))
    inner = next((part for part in parts if isinstance(part, type) and issubclass(part, Body)), None)
    return inner.present(value) if inner is not None else value


def _is_map(name: str, field: FieldInfo) -> bool:
    is_map = get_origin(field.annotation) is dict and get_args(field.annotation)[1] is not Any
    return is_map and name not in ("labels", "group")


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    choices: list[Any] = schema.get("anyOf", [])
    if {"type": "null"} in choices:
        return schema
    words: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    kind = {key: value for key, value in schema.items() if key not in words}
    return {"anyOf": [*(choices or [kind]), {"type": "null"}]} | words
