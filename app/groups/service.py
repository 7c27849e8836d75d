"""What the endpoints of triggers, groups and history need, in one value that bootstrap makes."""

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
    """`reader` is for endpoints that only read. A request reads what it wrote from the database of `core`."""

    core: Core
    reader: Reader
    limiter: RateLimit
    requests: Requests
    pauses: Pauses


async def _services(request: Request) -> GroupServices:
    services: GroupServices = request.app.state.services.groups
    return services


#: The parameter by which an endpoint gets them.
Services = Annotated[GroupServices, Depends(_services)]
