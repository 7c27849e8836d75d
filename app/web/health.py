"""Is the process alive, is it ready, and what are its numbers. The status code is the answer; Kubernetes reads no body."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import text

from app.bootstrap.parts import Services
from app.kit.db import log_a_bug
from app.tables import migrate
from app.web.security import identify
from app.web.tokens import Caller

router = APIRouter(tags=["health"])

_PATIENCE = 3.0  # seconds that a probe waits for Postgres


class Refused(BaseModel):
    """A newer policy file that was not taken: since when, and every error line of it."""

    at: datetime
    errors: list[str]


class PolicyHealth(BaseModel):
    """The policy in force, since when, and what is wrong with the newer file; null: nothing is."""

    hash: str
    loaded_at: datetime
    refused: Refused | None


class Health(BaseModel):
    """`ok`, `degraded` (serving, but something is missing) or `failing`; the checks need the scope `read`."""

    status: str
    checks: dict[str, str] | None = None
    policy: PolicyHealth | None = None


def _answers(check: str, good: str, bad: str) -> dict[int | str, dict[str, Any]]:
    def shown(status: str, told: str) -> dict[str, Any]:
        return {"content": {"application/json": {"example": {"status": status, "checks": {check: told}}}}}

    return {200: shown("ok", good), 503: {"model": Health, "description": "Not well"} | shown("failing", bad)}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Services = Annotated[Services, Depends(_services)]


@router.get(
    "/livez", summary="Is the process alive?", response_model=Health, responses=_answers("waker", "ok", "stuck")
)
async def livez(services: _Services, caller: Annotated[Caller | None, Depends(identify)]) -> Response:
    """503 when a loop is stuck: a restart is what helps."""
    checks = {loop.name: "stuck" if loop.stuck() else "ok" for loop in services.running}
    checks["intake"] = "stuck" if services.intake.batcher.stuck() else "ok"
    return _answer("failing" if "stuck" in checks.values() else "ok", checks, caller)


@router.get(
    "/readyz",
    summary="Can it take alerts?",
    response_model=Health,
    responses=_answers("postgres", "ok", "unreachable (ConnectionRefusedError)"),
)
async def readyz(
    services: _Services, caller: Annotated[Caller | None, Depends(identify)], request: Request
) -> Response:
    """503 when Postgres cannot be written to or is not migrated. Redis away: 200, degraded. With `?verbose` also why a newer
    policy file was refused."""
    checks = {"postgres": await _postgres(services), "redis": await _redis(services)}
    checks["policy"] = services.core.policy.hash
    well = "ok" if checks["redis"] == "ok" else "degraded"
    status = well if checks["postgres"] == "ok" else "failing"
    # Not a declared parameter: a probe is never answered 422, whatever it asks.
    shown = request.query_params.get("verbose", "false").lower() not in ("0", "false")
    return _answer(status, checks, caller, {"policy": _policy(services)} if shown else {})


def _policy(services: Services) -> PolicyHealth:
    held = services.core.policies
    refused = Refused(at=held.refusal.at, errors=list(held.refusal.errors)) if held.refusal else None
    return PolicyHealth(hash=held.current().hash, loaded_at=held.loaded_at, refused=refused)


async def _redis(services: Services) -> str:
    fault = await services.foundation.redis.fault()
    return "ok" if fault is None else f"away ({services.foundation.redis.url.kind}: {fault})"


async def _postgres(services: Services) -> str:
    try:
        async with asyncio.timeout(_PATIENCE), services.core.engine.connect() as conn:
            if (await conn.execute(text("SELECT pg_is_in_recovery()"))).scalar_one():
                return "read-only: a standby, or a failover is under way"
            current, head = await migrate.current_and_head(conn)
        return "ok" if current == head else "not migrated: run `trigger-gateway migrate`"
    except Exception as error:  # Whatever it is: a probe answers, it does not break.
        log_a_bug(error)
        return f"unreachable ({type(error).__name__})"


def _answer(status: str, checks: dict[str, str], caller: Caller | None, more: Mapping[str, Any] = {}) -> Response:
    body: dict[str, Any] = {"status": status}
    if caller is not None and caller.can("read"):
        body |= {"checks": checks, **more}
    return Response(to_json(body), 503 if status == "failing" else 200, media_type="application/json")
