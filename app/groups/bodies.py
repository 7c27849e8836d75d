"""The shapes of the bodies that people and scripts send, for the OpenAPI document and the clients generated from it."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, field_validator

from app.decide.alert import Labels, no_nul
from app.explain import examples
from app.web.heavy import within_depth
from app.web.members import RequestBody


class PauseBody(RequestBody):
    """Until when, and why."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"until": examples.PAUSE["until"], "reason": examples.PAUSE["reason"]}},
    )

    until: AwareDatetime | None = Field(
        None, description="RFC 3339. Without it the pause lasts until somebody lifts it."
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        description="Why, for the people who read it later."
    )

    @field_validator("reason")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return no_nul(value)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


class TriggerBody(RequestBody):
    """A request of a person or a script for one DAG run of a group."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"route": "accuracy", "group": {"model": "churn"}, "reason": "new labels", "requested_by": "ana"}
        },
    )

    route: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    group: Labels = Field({})
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        description="Why, for the people who read it later."
    )
    requested_by: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Who asks. Default: the name of the token."
    )
    force: bool = Field(False, description="Overrides cooldown and limit, but never a run in flight. It is audited.")
    conf: dict[str, Any] = Field({}, description="Its keys replace those of the route's `conf`.")

    @field_validator("reason", "requested_by", "group")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return no_nul(value)

    @field_validator("conf")
    @classmethod
    def _storable_conf(cls, value: dict[str, Any]) -> dict[str, Any]:
        within_depth(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # ValueError for NaN and lone surrogates
        for text in _texts(value):
            no_nul(text)
        return value


class ResetBody(RequestBody):
    """The group to reset: exactly the labels of the route's `group_by`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"group": {"model": "churn"}}})

    group: Labels = Field({})
