"""Probes for PagerDuty and uptime monitors: the status code is the answer. Cached, so that a storm of them costs nothing."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.bootstrap import Services
from app.security import identify
from app.tokens import Caller

router = APIRouter(prefix="/health", tags=["health"])


class Probe(BaseModel):
    """`ok` or `failing`; what was found, by name, needs the scope `read`."""

    status: str
    checks: dict[str, str] | None = None


def _answers(good: dict[str, str], bad: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    def shown(status: str, checks: dict[str, str]) -> dict[str, Any]:
        return {"content": {"application/json": {"example": {"status": status, "checks": checks}}}}

    return {200: shown("ok", good), 503: {"model": Probe, "description": "Not well"} | shown("failing", bad)}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Services = Annotated[Services, Depends(_services)]
_Caller = Annotated[Caller | None, Depends(identify)]


@router.get(
    "/deadman",
    summary="Is every dead man's switch well?",
    response_model=Probe,
    responses=_answers({"watch": "ok"}, {"watch": "ok", "retrained-churn": "down since 2026-11-23T15:00:02Z"}),
)
async def deadman(services: _Services, caller: _Caller) -> Response:
    """503 while a switch is down, and while nobody watches them. The details name each."""
    return _answer(await services.probes.deadman(), caller)


def _answer(found: dict[str, str], caller: Caller | None) -> Response:
    failing = any(told != "ok" for told in found.values())
    body: dict[str, Any] = {"status": "failing" if failing else "ok"}
    if caller is not None and caller.can("read"):
        body["checks"] = found
    return Response(to_json(body), 503 if failing else 200, media_type="application/json")
