"""What the routes of the switches need, in one value that bootstrap makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.deadman.pings import Pings
from app.deadman.requests import SwitchRequests
from app.kit.clock import Clock
from app.kit.replica import Reader
from app.policy.schema import Policy
from app.web.tokens import Caller


@dataclass(frozen=True, slots=True)
class DeadmanServices:
    """`limit` raises the problem 429. What only shows reads through `reader`."""

    reader: Reader
    policy: Callable[[], Policy]
    clock: Clock
    limit: Callable[[Caller], Awaitable[None]]
    pings: Pings
    requests: SwitchRequests


async def _services(request: Request) -> DeadmanServices:
    services: DeadmanServices = request.app.state.services.deadman
    return services


#: How a route asks for them.
Services = Annotated[DeadmanServices, Depends(_services)]
