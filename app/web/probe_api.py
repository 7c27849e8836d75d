"""Probes for PagerDuty and uptime monitors. The status code is the answer. Answers are cached, so that many probes cost
little."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.bootstrap.parts import Services
from app.web.security import identify
from app.web.tokens import Caller

router = APIRouter(prefix="/health", tags=["health"])


class Probe(BaseModel):
    """`ok` or `failing`. Only the scope `read` sees the checks, by name."""

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
    "/orchestrator",
    summary="Would Airflow run the DAGs of the policy?",
    response_model=Probe,
    responses=_answers({"default scheduler": "ok"}, {"default dag retrain_model": "paused: unpause it in Airflow"}),
)
async def orchestrator(services: _Services, caller: _Caller) -> Response:
    """503 when an Airflow of the policy does not answer, is not healthy (its own status code is always 200) or refuses the
    login. 503 too when a DAG of the policy is missing, broken or paused, or has a run that is queued for longer than
    `GATEWAY_QUEUED_LIMIT`. 503 too while a trigger waits after three failed attempts. The checks name each fault."""
    return _answer(await services.probes.orchestrator(), caller)


@router.get(
    "/metadata",
    summary="Does MLflow take our metadata?",
    response_model=Probe,
    responses=_answers({"mlflow": "ok", "backlog": "ok"}, {"mlflow": "cannot connect to mlflow.example:5000"}),
)
async def metadata(services: _Services, caller: _Caller) -> Response:
    """503 when the MLflow of the policy does not answer or refuses the login, and when metadata has waited for it for longer
    than `GATEWAY_BACKLOG_LIMIT`, or after three failed attempts."""
    return _answer(await services.probes.metadata(), caller)


@router.get(
    "/deadman",
    summary="Is every dead man's switch up?",
    response_model=Probe,
    responses=_answers({"watch": "ok"}, {"watch": "ok", "retrained-churn": "down since 2026-11-23T15:00:02Z"}),
)
async def deadman(services: _Services, caller: _Caller) -> Response:
    """503 while a switch is down, and while no process watches the switches. The checks name each fault."""
    return _answer(await services.probes.deadman(), caller)


def _answer(found: dict[str, str], caller: Caller | None) -> Response:
    failing = any(state != "ok" for state in found.values())
    body: dict[str, Any] = {"status": "failing" if failing else "ok"}
    if caller is not None and caller.can("read"):
        body["checks"] = found
    return Response(to_json(body), 503 if failing else 200, media_type="application/json")
