"""What the routes of notices need, in one value that bootstrap makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.notices.requests import NoticeRequests
from app.web.tokens import Caller


@dataclass(frozen=True, slots=True)
class NoticeServices:
    """`limit` raises the problem 429."""

    reader: Reader
    requests: NoticeRequests
    limit: Callable[[Caller], Awaitable[None]]


async def _services(request: Request) -> NoticeServices:
    services: NoticeServices = request.app.state.services.notices
    return services


#: How a route asks for them.
Services = Annotated[NoticeServices, Depends(_services)]
