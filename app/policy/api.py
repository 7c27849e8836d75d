"""POST /-/reload: read the policy file again now."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from app.kit.errors import Problem
from app.policy.file.problems import PolicyError
from app.policy.reload import Reloader
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(tags=["operate"])

_LINE = "policy.yaml:7:5: routes.0.cooldown: must be a duration such as 10m or 1d12h"
_REFUSED = Kind(
    "policy_refused", 422, "The policy file has 1 error; the old policy stays in force.", {"errors": [_LINE]}
)
_TAKEN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"policy": "3f9c2a71d0e4", "changed": True, "warnings": []}}}}
}


class Reloaded(BaseModel):
    """`policy` is the hash of the policy in force. `changed`: it was another policy before."""

    policy: str
    changed: bool
    warnings: list[str]


@router.post(
    "/-/reload",
    summary="Read the policy file again",
    responses=_TAKEN | responses(_REFUSED, "rate_limited", UNAVAILABLE),
)
async def reload(request: Request, caller: Annotated[Caller, Depends(require("trigger"))]) -> Reloaded:
    """The process that answers reads the file at once. Every other process follows by itself within a few seconds."""
    services = request.app.state.services
    await services.foundation.limiter.check(caller)
    reloader: Reloader = services.reloader
    before = services.core.policy.hash
    try:
        policy = await reloader.reload()
    except PolicyError as error:
        errors = [str(problem) for problem in error.problems]
        count = f"{len(errors)} errors" if len(errors) != 1 else "1 error"
        detail = f"The policy file has {count}; the old policy stays in force."
        raise Problem(422, "policy_refused", detail, errors=errors) from error
    warnings = [str(problem) for problem in policy.warnings]
    return Reloaded(policy=policy.hash, changed=policy.hash != before, warnings=warnings)
