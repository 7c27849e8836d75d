"""Is the process alive, is it ready, and what are its numbers. The status code is the answer; Kubernetes reads no body."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import text

from app import migrate
from app.bootstrap import Services
from app.security import identify
from app.tokens import Caller

router = APIRouter(tags=["health"])

_PATIENCE = 3.0  # seconds that a probe waits for Postgres


class Health(BaseModel):
    """`ok`, `degraded` (serving, but something is missing) or `failing`; the checks need the scope `read`."""

    status: str
    checks: dict[str, str] | None = None


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
    running = services.loops if services.running else ()
    checks = {loop.name: "stuck" if loop.stuck() else "ok" for loop in running}
    checks["intake"] = "stuck" if services.batcher.stuck() else "ok"
    return _answer("failing" if "stuck" in checks.values() else "ok", checks, caller)


@router.get(
    "/readyz",
    summary="Can it take alerts?",
    response_model=Health,
    responses=_answers("postgres", "ok", "unreachable (ConnectionRefusedError)"),
)
async def readyz(services: _Services, caller: Annotated[Caller | None, Depends(identify)]) -> Response:
    """503 when Postgres cannot be written to or is not migrated. Redis away: 200, degraded."""
    checks = {"postgres": await _postgres(services), "redis": "ok" if await services.memory.ping() else "away"}
    checks["policy"] = services.policy.hash
    if checks["postgres"] != "ok":
        return _answer("failing", checks, caller)
    return _answer("ok" if checks["redis"] == "ok" else "degraded", checks, caller)


async def _postgres(services: Services) -> str:
    try:
        async with asyncio.timeout(_PATIENCE), services.engine.connect() as conn:
            if (await conn.execute(text("SELECT pg_is_in_recovery()"))).scalar_one():
                return "read-only: a standby, or a failover is under way"
            current, head = await migrate.current_and_head(conn)
        return "ok" if current == head else "not migrated: run `trigger-gateway migrate`"
    except Exception as error:  # Whatever it is: a probe answers, it does not break.
        return f"unreachable ({type(error).__name__})"


def _answer(status: str, checks: dict[str, str], caller: Caller | None) -> Response:
    body: dict[str, Any] = {"status": status}
    if caller is not None and caller.can("read"):
        body["checks"] = checks
    return Response(to_json(body), 503 if status == "failing" else 200, media_type="application/json")
