"""The routes of metadata: take reports of pipeline components and records of spools, list, redrive, certify."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

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
    Report,
    TakenRecords,
    TakenReport,
)
from app.lineage.service import Services
from app.web.answers import json_answer, shows
from app.web.heavy import aside, is_heavy, values_of, while_there
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import CALLER, require
from app.web.tokens import Caller

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _OneOfTwo(APIRoute):
    """A route with two kinds of body. The place of an error in the body is given without the name of the kind. A heavy body
    is read aside."""

    takes_large = True

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                if request.method != "POST" or not is_heavy(raw := await request.body()):
                    return await handle(request)
                return await while_there(request, _take_heavy(request, raw, handle))
            except RequestValidationError as error:
                found = [{**fault, "loc": (*fault["loc"][:1], *fault["loc"][2:])} for fault in error.errors()]
                if found and len(error.errors()[0]["loc"]) > 1 and error.errors()[0]["loc"][1] in ("report", "records"):
                    raise RequestValidationError(found) from None
                raise

        return handler


_body: TypeAdapter[Report | HandOver] = TypeAdapter(Body)
_MOST_VALUES = 500_000  # commas and brackets of a body: a thousand records have fewer


async def _take_heavy(request: Request, raw: bytes, handle: Handler) -> Response:
    """Give FastAPI the model of a heavy body, so that it need not read it. Raises the errors of the model."""
    if (values := values_of(raw)) > _MOST_VALUES:
        detail = f"The body has {values} commas and brackets, and may have {_MOST_VALUES}: send fewer records at once."
        raise Problem(413, "too_large", detail, limit=_MOST_VALUES)
    try:
        request._json = await aside(request.scope[CALLER].name, _read, raw)  # Where `json()` keeps what it has read.
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in found]) from None
    except (ValueError, RecursionError):
        pass  # FastAPI reads it again, and names the place.
    return await handle(request)


def _read(raw: bytes) -> Report | HandOver:
    return _body.validate_python(json.loads(raw))


router = APIRouter(prefix="/api/v1", tags=["metadata"], route_class=_OneOfTwo, responses=responses(UNAVAILABLE))

Reporter = Annotated[Caller, Depends(require("metadata"))]
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
        Header(
            pattern="^[\\x21-\\x7e]{1,255}$", description="A second request with the same key gets the first answer."
        ),
    ] = None,
) -> Response:
    """202: the report is durable, and becomes a run in MLflow, now or when MLflow is back. Reports with the same trigger,
    component and `run` are one run. Without an `Idempotency-Key`, an identical report is the same report.

    A `run_id` that belongs to another trigger needs the scope `promote` as well: nobody rewrites the lineage of a run.

    With `records` the gateway takes over what mlflow-spool could not deliver itself. A record that moves an alias, deletes
    something or sets a tag of the gateway needs the scope `promote` as well: 403 names each such record, and none is
    taken."""
    await services.limiter.check(caller)
    if isinstance(body, HandOver):
        return _taken(await services.taking.hand_over(body, caller))
    return _taken(await services.taking.report(body, caller, idempotency_key))


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
    state: Annotated[
        Literal["pending", "aside"], Query(description="pending: waits; aside: MLflow refused it.")
    ] = "aside",
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$", description="`next` of the page before.")] = None,
) -> Response:
    """Each item is one write of MLflow's REST API. MLflow refused an `aside` item for good; its run went on without it."""
    after = int(cursor or 0)
    rows = await services.reader.read(lambda conn: store.list_records(conn, state, after, limit + 1))
    items = [{name: value for name, value in row.items() if name != "seq"} | {"state": state} for row in rows[:limit]]
    following = str(rows[limit - 1]["seq"]) if len(rows) > limit else None
    return json_answer({"items": items, "next": following})


Operator = Annotated[Caller, Depends(require("trigger"))]


@router.post(
    "/metadata/redrive",
    summary="Send again what MLflow refused",
    response_model=RedrivenOut,
    responses=shows({"records": 3}, "invalid", "rate_limited"),
)
async def redrive(
    services: Services,
    caller: Operator,
    stream: Annotated[
        str | None,
        Query(
            min_length=1, max_length=1000, pattern="^[^\x00]+$", description="As in the list; left out: every stream."
        ),
    ] = None,
) -> Response:
    """aside -> pending. Each record keeps its place in its run. Repair the cause first, or MLflow refuses it again."""
    await services.limiter.check(caller)
    return json_answer({"records": await services.taking.redrive(stream, caller.name)})


@router.get(
    "/metadata/{run}",
    summary="Certify that a run is complete",
    response_model=CertificateOut,
    responses=shows(examples.CERTIFICATE, "not_found"),
)
async def certify(services: Services, _: Watcher, run: RunName) -> Response:
    """Compares what was reported or handed over of a run with what MLflow shows now, and names each missing item."""
    found = await certificate(services.reader, services.mlflow(), services.core.clock, run)
    if found is None:
        raise Problem(404, "not_found", f"The gateway took no metadata of a run {run}.")
    return json_answer(found)


def _taken(value: dict[str, Any]) -> Response:
    return json_answer(value, 202)
