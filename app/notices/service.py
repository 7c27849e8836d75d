"""What the routes of notices need, in one value that bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.notices.requests import NoticeRequests
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class NoticeServices:
    """`reader` serves what only shows."""

    reader: Reader
    requests: NoticeRequests
    limiter: RateLimit


async def _services(request: Request) -> NoticeServices:
    services: NoticeServices = request.app.state.services.notices
    return services


#: How a route asks for them.
Services = Annotated[NoticeServices, Depends(_services)]
