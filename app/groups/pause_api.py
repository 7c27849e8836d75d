"""Pause a route, and lift the pause, over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from app.decide.rules import Pause
from app.explain import examples
from app.explain.schemas import PauseOut
from app.groups.bodies import PauseBody
from app.groups.service import Services
from app.policy.values import ROUTE_NAME
from app.web.problems import UNAVAILABLE, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["operate"], responses=responses(UNAVAILABLE))

_SHOWN: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": examples.PAUSE}}}}
Operator = Annotated[Caller, Depends(require("trigger"))]
Name = Annotated[str, Path(pattern=f"^(-|{ROUTE_NAME.pattern})$", description="Name of a route; `-` is every route.")]


@router.post(
    "/routes/{name}/pause",
    summary="Mute a route at once",
    response_model=PauseOut,
    responses=_SHOWN | responses("not_found", "invalid", "rate_limited"),
)
async def pause(services: Services, caller: Operator, name: Name, body: PauseBody) -> Pause:
    """After the answer the route fires nothing more, on any replica. What would have fired is decided when the pause ends.
    Triggers that have fired go on, and people can still ask for a run."""
    await services.limiter.check(caller)
    return await services.pauses.pause(name, body.until, body.reason, caller.name)


@router.delete(
    "/routes/{name}/pause",
    summary="Lift the pause of a route",
    response_model=PauseOut,
    responses=_SHOWN | responses("not_found", "invalid", "rate_limited"),
)
async def lift(services: Services, caller: Operator, name: Name) -> Pause:
    """The alerts that still fire are decided again at once. To lift a pause of every route, use `-`."""
    await services.limiter.check(caller)
    return await services.pauses.lift(name, caller.name)
