"""What the API of notices needs, in one value that app.bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.notices.requests import NoticeRequests
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class NoticeServices:
    """`reader` serves requests that only read."""

    reader: Reader
    requests: NoticeRequests
    limiter: RateLimit


async def _services(request: Request) -> NoticeServices:
    services: NoticeServices = request.app.state.services.notices
    return services


#: How a request handler gets them.
Services = Annotated[NoticeServices, Depends(_services)]
