"""`confirm:` of a route: a question to Prometheus before it fires."""

from typing import Annotated, Literal

from pydantic import Field

from app.policy.values import Frozen, Url, choice


class Confirm(Frozen):
    """Fires only when the instant query has an answer that says yes; `on_error` is what counts when there is none."""

    prometheus: Url
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    on_error: Annotated[Literal["fire", "suppress"], choice("fire", "suppress")] = "fire"
