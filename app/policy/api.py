"""The API of the policy: which were in force, and POST /-/reload, which reads the file again now."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from app.kit.errors import Problem
from app.kit.replica import Reader
from app.policy.file.problems import PolicyError
from app.policy.in_force import list_in_force
from app.policy.reload import Reloader
from app.web.answers import json_answer, page_of, shows
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter()

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


_DIFF = "--- before\n+++ now\n@@ -6,2 +6,2 @@\n     group_by: [model]\n-    cooldown: 24h\n+    cooldown: 12h"
_KEPT = {
    "id": "019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d",
    "hash": "3f9c2a71d0e4",
    "replica": "gateway-0",
    "from": "2026-11-23T03:00:00Z",
    "until": "2026-11-30T09:00:00Z",
    "diff": _DIFF,
    "text": "version: 1\nairflow: ...\n",
}


class PolicyInForce(BaseModel):
    """A policy that was in force on a replica."""

    id: UUID
    hash: str
    replica: str = Field(description="The name of its host.")
    from_: datetime = Field(alias="from")
    until: datetime = Field(description="In force at least until then. A replica moves it on every hour.")
    diff: str = Field(description="Against the policy that the replica had before, as `diff -u` writes it.")
    text: str = Field(description="Literal secrets stand as ${MASKED}.")


class PolicyPage(BaseModel):
    """One page. Send `next` as `?cursor=` to get the page after it; it is null on the last page."""

    items: list[PolicyInForce]
    next: UUID | None


@router.get(
    "/api/v1/policies",
    tags=["history"],
    summary="List the policies that were in force, the newest first",
    response_model=PolicyPage,
    responses=shows(page_of(_KEPT), "invalid") | responses(UNAVAILABLE),
)
async def list_policies(
    request: Request,
    _: Annotated[Caller, Depends(require("read"))],
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page. Long texts make a page shorter.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Each policy with its text, from when until when it was in force, on which replica, and what it changed. Processes of
    one host share an item."""
    reader: Reader = request.app.state.services.foundation.reader
    items, following = await reader.read(lambda conn: list_in_force(conn, limit, cursor))
    return json_answer({"items": items, "next": following})


@router.post(
    "/-/reload",
    tags=["operate"],
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
