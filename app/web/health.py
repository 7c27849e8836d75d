"""Is the process alive, and is it ready? The status code is the answer: Kubernetes does not read the body."""

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
    """A newer policy file that the gateway refused: since when, and each of its errors."""

    at: datetime
    errors: list[str]


class PolicyHealth(BaseModel):
    """The policy in force, since when, and what is wrong with a newer file. null: there is no newer file, or it is good."""

    hash: str
    loaded_at: datetime
    refused: Refused | None


class Health(BaseModel):
    """`ok`, `degraded` (it serves, but something is missing) or `failing`. Only the scope `read` sees the checks."""

    status: str
    checks: dict[str, str] | None = None
    policy: PolicyHealth | None = None


def _answers(check: str, good: str, bad: str) -> dict[int | str, dict[str, Any]]:
    def shown(status: str, found: str) -> dict[str, Any]:
        return {"content": {"application/json": {"example": {"status": status, "checks": {check: found}}}}}

    return {200: shown("ok", good), 503: {"model": Health, "description": "Not well"} | shown("failing", bad)}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Services = Annotated[Services, Depends(_services)]


@router.get(
    "/livez", summary="Is the process alive?", response_model=Health, responses=_answers("waker", "ok", "stuck")
)
async def livez(services: _Services, caller: Annotated[Caller | None, Depends(identify)]) -> Response:
    """503 when a loop is stuck: then only a restart helps."""
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
    """503 when Postgres accepts no writes or is not migrated. 200 and `degraded` when Redis is away or the tokens
    file has a fault. With `?verbose` it says why a newer policy file was refused."""
    checks = {"postgres": await _postgres(services), "redis": await _redis(services)}
    checks["policy"] = services.core.policy.hash
    faults = services.tokens.faults
    if faults:
        checks["tokens"] = "; ".join(faults[:5])
    well = "ok" if checks["redis"] == "ok" and not faults else "degraded"
    status = well if checks["postgres"] == "ok" else "failing"
    # Read by hand, because a declared parameter with a bad value would be answered 422.
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
            usable = current == head or await migrate.is_newer(conn, current)
        return "ok" if usable else "not migrated: run `trigger-gateway migrate`"
    except Exception as error:  # A probe must answer, whatever the error is.
        log_a_bug(error)
        return f"unreachable ({type(error).__name__})"


def _answer(status: str, checks: dict[str, str], caller: Caller | None, more: Mapping[str, Any] = {}) -> Response:
    body: dict[str, Any] = {"status": status}
    if caller is not None and caller.can("read"):
        body |= {"checks": checks, **more}
    return Response(to_json(body), 503 if status == "failing" else 200, media_type="application/json")
