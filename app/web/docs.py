"""The API's documentation without any network: Swagger UI comes from the installed package.

The scripts and styles are the files that fastapi-offline ships. The page's own script is a file as well, so that the
Content-Security-Policy can forbid inline scripts and everything from other hosts.
"""

import json
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from app.kit.errors import Problem

#: The groups of routes, in the order of the main job. `create_app` gives them to FastAPI.
TAGS: Final = (
    {"name": "intake", "description": "Alerts come in, and the heartbeats of switches. Start here."},
    {"name": "history", "description": "What happened and why: alerts, triggers, routes, switches and notices."},
    {"name": "operate", "description": "Ask for a run, redrive, cancel, reset, pause: what people and scripts change."},
    {"name": "health", "description": "For probes and for Prometheus: the status code tells."},
    {"name": "metadata", "description": "Reports of components, on their durable way to MLflow."},
    {"name": "lineage", "description": "From an alert to the model version and back, and the links that are missing."},
    {"name": "promotion", "description": "A version gets an alias only with all metadata read and every rule passed."},
)
_METHODS: Final = ("get", "put", "post", "delete", "patch", "head", "options")

# Swagger UI draws its icons from data: URLs.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
# Every address is relative to /docs, so that the page also works below a proxy's path prefix.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_START = """"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


def install(app: FastAPI, dependency: Callable[..., Any] | None) -> None:
    """Serve `/docs` and `/openapi.json`. `/` leads a browser to the pages below `/ui`, and everybody else to `/docs`.

    `dependency` guards everything but the redirect; None opens it to everybody. Raises RuntimeError when `app` also serves
    a document of its own (make it with `openapi_url=None`), or when the installed package lacks a file.
    """
    if app.openapi_url is not None:
        raise RuntimeError("make the app with openapi_url=None: FastAPI's own /openapi.json is open to everybody")
    _order(app)
    folder = Path(str(files("fastapi_offline"))) / "static"
    if missing := [name for name in _ASSETS if not (folder / name).is_file()]:
        raise RuntimeError(f"fastapi-offline lacks {', '.join(missing)} in {folder}")
    page = _PAGE.format(title=escape(app.title))
    router = APIRouter(include_in_schema=False, dependencies=[Depends(dependency)] if dependency else [])

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        browser = "text/html" in request.headers.get("accept", "")
        return RedirectResponse("ui" if browser else "docs", headers={"Vary": "Accept"})

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    @router.get("/docs/assets/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    @router.get("/docs/assets/{name}")
    async def asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise Problem(404, "not_found", "The documentation has no such file.")
        return FileResponse(folder / name, media_type=_ASSETS[name], headers=_HEADERS)

    @router.get("/openapi.json")
    async def document(request: Request) -> Response:
        prefix = request.scope.get("root_path", "").rstrip("/")
        shown = app.openapi() | ({"servers": [{"url": prefix}]} if prefix else {})
        return Response(json.dumps(shown), media_type="application/json", headers=_HEADERS)

    app.include_router(router)


def _order(app: FastAPI) -> None:
    """Bring the paths of the document into the order of TAGS, for programs that do not sort by them."""
    plain, names = app.openapi, [tag["name"] for tag in TAGS]

    def place(item: tuple[str, dict[str, Any]]) -> int:
        tags = [tag for method, found in item[1].items() if method in _METHODS for tag in found.get("tags", ())]
        return min((names.index(tag) for tag in tags if tag in names), default=len(names))

    def openapi() -> dict[str, Any]:
        document = plain()
        document["paths"] = dict(sorted(document.get("paths", {}).items(), key=place))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document.
