"""What the routes of triggers, groups and history need, in one value that bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.groups.pauses import Pauses
from app.groups.requests import Requests
from app.kit.replica import Reader
from app.policy.core import Core
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class GroupServices:
    """`reader` serves what only shows; what a request just wrote is read from the database of `core`."""

    core: Core
    reader: Reader
    limiter: RateLimit
    requests: Requests
    pauses: Pauses


async def _services(request: Request) -> GroupServices:
    services: GroupServices = request.app.state.services.groups
    return services


#: How a route asks for them.
Services = Annotated[GroupServices, Depends(_services)]
