"""`confirm:` of a route: a question to Prometheus before it fires."""

from typing import Annotated, Literal

from pydantic import Field

from app.policy.values import ServerWithLogin, Url, choice


class Confirm(ServerWithLogin):
    """A question to Prometheus before a route fires."""

    prometheus: Url
    """The address of Prometheus, without `/api`."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """An instant query. Any series in the answer says yes. It may hold `{{group.label}}` inside quotes."""
    on_error: Annotated[Literal["fire", "suppress"], choice("fire", "suppress")] = "fire"
    """What counts when Prometheus gives no answer: `fire` or `suppress`."""
