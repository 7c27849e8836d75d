"""The HTTP application: routers, error handlers, lifespan."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from fastapi import Depends, FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import __version__
from app.bootstrap.parts import Services
from app.bootstrap.settings import Settings
from app.deadman import api as deadman_api
from app.deadman import ping_api
from app.effects import api as effects_api
from app.explain import api, why_api
from app.groups import pause_api, requests_api, schedules_api
from app.intake import receive
from app.kit.db import CONNECTING, DATA_ERRORS, sqlstate
from app.kit.errors import OUT_OF_FILES, Problem
from app.kit.loop import running
from app.lineage import api as lineage_api
from app.lineage import report_api
from app.notices import api as notices_api
from app.policy import api as policy_api
from app.promotion import api as promotion_api
from app.replay.jobs import api as backtests_api
from app.ui import actions_api, backtest_api, house_api, login_api
from app.ui import api as pages
from app.web import docs, error_answers, health
from app.web import probe_api as probes
from app.web.problems import UNAVAILABLE
from app.web.security import require

log = logging.getLogger(__name__)

DESCRIPTION = """The decision point of continuous training. It takes alerts, starts exactly one Airflow DAG run, and keeps
every decision with its reason. Start with `POST /api/v1/alerts`, then call `GET /api/v1/explain/{subject}`."""

# The errors of a Postgres that cannot be reached. SQLAlchemy does not wrap the error of a connection that fails.
_DATABASE_AWAY = (DBAPIError, PoolTimeout, OSError, *CONNECTING)

METRICS = """# HELP gateway_alerts_total Alerts acknowledged as durable.
# TYPE gateway_alerts_total counter
gateway_alerts_total{source="alertmanager"} 12.0
"""

# Spans of requests, if a tracer is set (app.kit.telemetry). Prometheus has the numbers, and the log has the errors.
TRACED: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"] in {"/livez", "/readyz", "/metrics"},
}

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]


def create_app(settings: Settings, open_services: OpenServices, *, worker: bool = True) -> FastAPI:
    """The application. It enters `open_services` when it starts, and leaves it when every request has ended."""
    app = FastAPI(
        title="Trigger Gateway",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(open_services, worker=worker),
        openapi_url=None,
        openapi_tags=[dict(tag) for tag in docs.TAGS],
        telemetry=TRACED,
        redirect_slashes=False,  # A sender of webhooks must never be answered 3xx.
    )
    error_answers.install(
        app, max_body=settings.max_body, body_budget=settings.body_budget, external_url=settings.external_url
    )
    for kind in _DATABASE_AWAY:
        app.add_exception_handler(kind, _on_database_away)
    # First, and in the application's own list: the search in an included router would double the time of a webhook here.
    app.router.routes.extend([*promotion_api.webhook.routes, *receive.router.routes])
    docs.install(app, None if settings.open_docs else require("read"))
    parts = (health, probes, api, why_api, schedules_api, lineage_api, policy_api, report_api, promotion_api)
    for part in (
        *parts,
        requests_api,
        pause_api,
        deadman_api,
        ping_api,
        notices_api,
        effects_api,
        backtests_api,
        login_api,
        actions_api,
        backtest_api,
        house_api,
        pages,
    ):
        app.include_router(part.router)
    app.get(
        "/metrics",
        tags=["health"],
        summary="Metrics for Prometheus",
        dependencies=[] if settings.open_metrics else [Depends(require("read"))],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": METRICS}}}},
    )(metrics)
    return app


def _lifespan(open_services: OpenServices, *, worker: bool) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services() as services:
            app.state.services = services
            writing = asyncio.create_task(services.intake.batcher.run(), name="batcher")
            try:
                async with running((*services.constant, *(services.loops if worker else ()))):
                    yield
            finally:
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing

    return lifespan


async def metrics(request: Request) -> Response:
    """In Prometheus' text format. docs/reference/metrics.md says what each metric means and when to act."""
    services: Services = request.app.state.services
    return Response(services.core.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _on_database_away(request: Request, error: Exception) -> Response:
    """503 while Postgres is at fault. An error about our statement or its data is a bug, and is raised again."""
    if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        return await error_answers.on_out_of_files(request, error)
    if (sqlstate(error) or "").startswith((*DATA_ERRORS, "42")):
        raise error
    log.warning("postgres does not answer", extra={"path": request.url.path, "error": type(error).__name__})
    headers = {"Retry-After": str(error_answers.RETRY_AFTER)}
    away = Problem(503, UNAVAILABLE.code, UNAVAILABLE.detail, headers=headers)
    answer: Response = await request.app.exception_handlers[Problem](request, away)
    return answer
