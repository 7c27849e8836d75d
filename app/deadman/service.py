"""What the API of the switches needs, in one value that app.bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.deadman.pings import Pings
from app.deadman.requests import SwitchRequests
from app.kit.replica import Reader
from app.policy.core import Core
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class DeadmanServices:
    """`reader` serves requests that only read."""

    core: Core
    reader: Reader
    limiter: RateLimit
    pings: Pings
    requests: SwitchRequests


async def _services(request: Request) -> DeadmanServices:
    services: DeadmanServices = request.app.state.services.deadman
    return services


#: How a request handler gets them.
Services = Annotated[DeadmanServices, Depends(_services)]
