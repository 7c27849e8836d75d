"""What the routes of promotion need, in one value that bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.promotion.promote import Gate
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class PromotionServices:
    """`reader` serves what only shows."""

    reader: Reader
    gate: Gate
    limiter: RateLimit


async def _services(request: Request) -> PromotionServices:
    services: PromotionServices = request.app.state.services.promotion
    return services


#: How a route asks for them.
Services = Annotated[PromotionServices, Depends(_services)]
