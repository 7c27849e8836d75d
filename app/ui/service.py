"""What the pages need, in one value that bootstrap makes: mostly the services of the rooms that they show."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.deadman.service import DeadmanServices
from app.groups.service import GroupServices
from app.kit.replica import Reader
from app.notices.service import NoticeServices
from app.policy.core import Core
from app.promotion.service import PromotionServices
from app.ui.sessions import Sessions
from app.web.ratelimit import RateLimit
from app.web.tokens import Tokens


@dataclass(frozen=True, slots=True)
class UiServices:
    """`name` is the gateway's name, as its notices have it."""

    name: str
    core: Core
    reader: Reader
    tokens: Tokens
    limiter: RateLimit
    sessions: Sessions
    groups: GroupServices
    deadman: DeadmanServices
    notices: NoticeServices
    promotion: PromotionServices


def services_of(request: Request) -> UiServices:
    """The services, for code that has only the request."""
    services: UiServices = request.app.state.services.ui
    return services


async def _services(request: Request) -> UiServices:
    return services_of(request)


#: How a request handler gets them.
Services = Annotated[UiServices, Depends(_services)]
