"""The HTTP application: routers, error handlers, lifespan."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app import __version__, docs, health, problems
from app.bootstrap import Services
from app.security import require
from app.settings import Settings
from app.triggers import api
from app.worker import running

DESCRIPTION = """The decision point of continuous training: alerts come in, exactly one Airflow DAG run goes out, and
every decision is kept with its reason. Start with `POST /api/v1/alerts`, then ask `GET /api/v1/explain/{subject}`."""

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]


def create_app(settings: Settings, open_services: OpenServices, *, worker: bool = True) -> FastAPI:
    """The application. `open_services` is entered when it starts and left when it has drained."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services() as services:
            app.state.services = services
            writing = asyncio.create_task(services.batcher.run(), name="batcher")
            try:
                async with running(services.loops if worker else ()):
                    yield
            finally:
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing

    app = FastAPI(
        title="Trigger Gateway",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,  # A sender of webhooks must never be answered 3xx.
    )
    problems.install(app, max_body=settings.max_body)
    docs.install(app, None if settings.open_docs else require("read"))
    app.include_router(health.router)
    app.include_router(api.router)
    guard = [] if settings.open_metrics else [Depends(require("read"))]

    @app.get("/metrics", tags=["health"], summary="Metrics for Prometheus", dependencies=guard, response_class=Response)
    async def metrics(request: Request) -> Response:
        services: Services = request.app.state.services
        return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return app
