"""What the routes of promotion need, in one value that bootstrap makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from app.kit.replica import Reader
from app.promotion.promote import Gate
from app.web.tokens import Caller


@dataclass(frozen=True, slots=True)
class PromotionServices:
    """`limit` raises the problem 429."""

    engine: AsyncEngine
    reader: Reader
    gate: Gate
    limit: Callable[[Caller], Awaitable[None]]


async def _services(request: Request) -> PromotionServices:
    services: PromotionServices = request.app.state.services.promotion
    return services


#: How a route asks for them.
Services = Annotated[PromotionServices, Depends(_services)]
