"""POST /api/v1/metadata: what components of a pipeline did, in any language, on its durable way to MLflow."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from app.kit.errors import Problem
from app.lineage import record_store as store
from app.lineage import report_examples as examples
from app.lineage.certify import certificate
from app.lineage.report_schemas import (
    Body,
    CertificateOut,
    HandOver,
    RecordsOut,
    RedrivenOut,
    TakenRecords,
    TakenReport,
)
from app.lineage.service import Services
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import require
from app.web.tokens import Caller


class _OneOfTwo(APIRoute):
    """An error's place in the body is told without the name of the kind of body that it was read as."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                found = [{**one, "loc": (*one["loc"][:1], *one["loc"][2:])} for one in error.errors()]
                if found and len(error.errors()[0]["loc"]) > 1 and error.errors()[0]["loc"][1] in ("report", "records"):
                    raise RequestValidationError(found) from None
                raise

        return handler


router = APIRouter(prefix="/api/v1", tags=["metadata"], route_class=_OneOfTwo, responses=responses(UNAVAILABLE))

Reporter = Annotated[Caller, Depends(require("ingest"))]
_TAKEN: dict[int | str, dict[str, Any]] = {202: {"content": {"application/json": {"example": examples.TAKEN}}}}
_MISMATCH = Kind("idempotency_mismatch", 422, "This Idempotency-Key was used with another report.")


@router.post(
    "/metadata",
    summary="Report what a component did",
    status_code=202,
    response_model=TakenReport | TakenRecords,
    responses=_TAKEN | responses("invalid", _MISMATCH, "rate_limited"),
)
async def report(
    services: Services,
    caller: Reporter,
    body: Body,
    idempotency_key: Annotated[
        str | None,
        Header(pattern="^[\\x21-\\x7e]{1,255}$", description="The same key is answered as the first time."),
    ] = None,
) -> Response:
    """202: durable, and delivered to MLflow as a run, now or when it is back. Reports of one trigger and component (and
    `run`) are one run. Without an `Idempotency-Key` a report that comes again in the same words is the same report.

    With `records` it takes over what mlflow-spool could not deliver itself. What moves a mark of the registry, deletes from
    it or sets a tag of the gate needs the scope `promote` as well: 403 names each such record, and nothing was taken."""
    await services.limiter.check(caller)
    if isinstance(body, HandOver):
        return _taken(await services.taking.hand_over(body, caller))
    return _taken(await services.taking.report(body, caller.name, idempotency_key))


Watcher = Annotated[Caller, Depends(require("read"))]
RunName = Annotated[str, Path(pattern="^(spool-)?[0-9a-f]{32}$", description="A run's id, local or MLflow's.")]


@router.get(
    "/metadata",
    summary="List what waits for MLflow, or was refused",
    response_model=RecordsOut,
    responses=shows({"items": [examples.ASIDE], "next": None}, "invalid"),
)
async def list_records(
    services: Services,
    _: Watcher,
    state: Annotated[Literal["pending", "aside"], Query(description="pending waits, aside was refused.")] = "aside",
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$", description="`next` of the page before.")] = None,
) -> Response:
    """Each is one write of MLflow's REST API. Set aside is what MLflow refused for good; the rest of its run went on."""
    after = int(cursor or 0)
    rows = await services.reader.read(lambda conn: store.list_records(conn, state, after, limit + 1))
    items = [{name: value for name, value in row.items() if name != "seq"} | {"state": state} for row in rows[:limit]]
    following = str(rows[limit - 1]["seq"]) if len(rows) > limit else None
    return json_answer({"items": items, "next": following})


Operator = Annotated[Caller, Depends(require("trigger"))]


@router.post(
    "/metadata/redrive",
    summary="Let what MLflow refused wait again",
    response_model=RedrivenOut,
    responses=shows({"records": 3}, "invalid", "rate_limited"),
)
async def redrive(
    services: Services,
    caller: Operator,
    stream: Annotated[
        str | None,
        Query(min_length=1, max_length=1000, pattern="^[^\x00]+$", description="As listed; without it, everything."),
    ] = None,
) -> Response:
    """aside -> pending, each in its old place in its run. Mend the reason first, or it is refused again."""
    await services.limiter.check(caller)
    return json_answer({"records": await services.taking.redrive(stream, caller.name)})


@router.get(
    "/metadata/{run}",
    summary="Certify that a run is complete",
    response_model=CertificateOut,
    responses=shows(examples.CERTIFICATE, "not_found"),
)
async def certify(services: Services, _: Watcher, run: RunName) -> Response:
    """Compares what was told of a run, or handed over, with what MLflow shows at this moment: each missing thing by name."""
    found = await certificate(services.reader, services.mlflow(), services.core.clock, run)
    if found is None:
        raise Problem(404, "not_found", f"Nothing of a run {run} came through here.")
    return json_answer(found)


def _taken(value: dict[str, Any]) -> Response:
    return json_answer(value, 202)
