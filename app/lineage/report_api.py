"""POST /api/v1/metadata: what components of a pipeline did, in any language, on its durable way to MLflow."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import to_json

from app.lineage import report_examples as examples
from app.lineage.report_schemas import Body, HandOver, TakenRecords, TakenReport
from app.lineage.service import Services
from app.problems import UNAVAILABLE, Kind, responses
from app.security import require
from app.tokens import Caller


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

    With `records` it takes over what mlflow-spool could not deliver itself."""
    await services.limit(caller)
    if isinstance(body, HandOver):
        return _taken(await services.taking.hand_over(body))
    return _taken(await services.taking.report(body, caller.name, idempotency_key))


def _taken(value: dict[str, Any]) -> Response:
    return Response(to_json(value), 202, media_type="application/json")
