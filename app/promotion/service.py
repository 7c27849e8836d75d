"""What the routes of promotion need, in one value. Bootstrap makes it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.promotion.promote import Gate
from app.web.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class PromotionServices:
    """`reader` serves the routes that only read."""

    reader: Reader
    gate: Gate
    limiter: RateLimit


async def _services(request: Request) -> PromotionServices:
    services: PromotionServices = request.app.state.services.promotion
    return services


#: A route takes them as an argument of this type.
Services = Annotated[PromotionServices, Depends(_services)]
