"""The routes GET /api/v1/lineage and /lineage/orphans."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import StringConstraints

from app.explain.schemas import ListOf
from app.kit.errors import Problem
from app.lineage import schemas, store
from app.lineage.chain import Subject
from app.lineage.rules import Kind
from app.lineage.service import Services
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE
from app.web.problems import Kind as ProblemKind
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1/lineage", tags=["lineage"])

_MANY = "Name exactly one subject: trigger, alert, dag_run, run, or model with version."
_INVALID = ProblemKind(
    "invalid", 422, _MANY, {"errors": [{"in": "query", "pointer": "#/version", "message": "needs model as well"}]}
)


Caller_ = Annotated[Caller, Depends(require("read"))]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


@router.get(
    "",
    summary="Show where a model comes from, or what an alert led to",
    response_model=schemas.LineageOut,
    responses=shows(schemas.LINEAGE, "not_found", _INVALID, UNAVAILABLE),
)
async def get_lineage(
    services: Services,
    _: Caller_,
    trigger: Annotated[UUID | None, Query(description="Id of a trigger.")] = None,
    alert: Annotated[UUID | None, Query(description="Id of an alert.")] = None,
    dag_run: Annotated[_Name | None, Query(description="Airflow's dag_run_id.")] = None,
    run: Annotated[_Name | None, Query(description="MLflow's run id.")] = None,
    model: Annotated[_Name | None, Query(description="A registered model; needs `version`.")] = None,
    version: Annotated[_Name | None, Query(description="The version of the model.")] = None,
) -> Response:
    """The chain alert -> decision -> trigger -> DAG run -> MLflow runs -> model versions, from any end. MLflow is asked
    first. While it is away, the answer has its side as it was last seen, and `missing` and `mlflow` say so."""
    subject = Subject(trigger, alert, dag_run, run, model, version)
    if (model is None) != (version is None) or len(subject.shown().keys() - {"version"}) != 1:
        errors = [{"in": "query", "pointer": "#", "message": _MANY}]
        raise Problem(422, "invalid", _MANY, errors=errors)
    found = await services.lineage.find(subject)
    if found is None:
        named = ", ".join(f"{name} {value}" for name, value in subject.shown().items())
        raise Problem(404, "not_found", f"Neither the gateway nor MLflow knows {named}.")
    return json_answer(found)


@router.get(
    "/orphans",
    summary="List what lacks its lineage",
    response_model=ListOf[schemas.OrphanOut],
    responses=shows({"items": [schemas.ORPHAN], "next": None}, "invalid", UNAVAILABLE),
)
async def list_orphans(
    services: Services,
    _: Caller_,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    kind: Annotated[Kind | None, Query(description="Only of this kind.")] = None,
    cursor: Annotated[_Name | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """The result of the newest walk through MLflow. A walk begins every `lineage.every` of the policy. What is younger than
    `lineage.grace` is not judged yet: training code that spools delivers late."""
    rows = await services.reader.read(lambda conn: store.list_orphans(conn, kind, cursor, limit + 1))
    more, rows = len(rows) > limit, rows[:limit]
    page = {"items": rows, "next": rows[-1]["key"] if more else None}
    return json_answer(page)
