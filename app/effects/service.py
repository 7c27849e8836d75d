"""What the endpoints of effects need, in one value that bootstrap makes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.kit.replica import Reader
from app.policy.core import Core


@dataclass(frozen=True, slots=True)
class EffectServices:
    """They only read."""

    core: Core
    reader: Reader


async def _services(request: Request) -> EffectServices:
    services: EffectServices = request.app.state.services.effects
    return services


#: The parameter by which an endpoint gets them.
Services = Annotated[EffectServices, Depends(_services)]
