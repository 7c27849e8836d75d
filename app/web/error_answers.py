"""Every error of the application becomes an answer: a problem (app.web.problems) with its status."""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.kit.errors import NotDurable, OutOfFiles, Problem
from app.web.bodies import BodyRefused, ReadBodies
from app.web.manners import Manners, allow
from app.web.problems import CODE_OF_STATUS, KINDS, document_problems, problem_answer

log = logging.getLogger(__name__)

#: Seconds after which a sender should try again when Postgres did not take its alerts.
RETRY_AFTER = 5
_MOST_ERRORS = 100  # For a body with 10,000 bad labels the first hundred are enough.
_LONGEST_TEXT = 500  # Characters of a message or pointer that came from the sender.


def install(
    app: FastAPI, *, max_body: int | None = None, body_budget: int = 64 * 2**20, external_url: str | None = None
) -> None:
    """Make every error of `app` a problem, in its answers and in its OpenAPI document.

    What holds for every path comes with it: `app.web.manners`, and with `max_body` and `body_budget` (bytes) the limits
    of `app.web.bodies`. With `external_url` a problem names its page.
    """
    app.state.external_url = external_url
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(NotDurable, _on_not_durable)
    app.add_exception_handler(OutOfFiles, on_out_of_files)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(BodyRefused, _on_refused_body)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)
    if max_body is not None:
        # FastAPI's own max_body_size answers text/plain, not a problem, when the length is declared.
        app.add_middleware(ReadBodies, limit=max_body, budget=body_budget)
    app.add_middleware(Manners)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document_problems(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document.


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_answer(error, request.scope["path"], request.app.state.external_url)


async def _on_not_durable(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotDurable)
    cause = (str(error) or "Postgres did not take the alerts in time").removesuffix(".")
    detail = f"{cause}. Send them again."
    headers = {"Retry-After": str(error.retry_after or RETRY_AFTER)}
    return _answer(request, 503, "not_durable", detail, headers=headers)


async def on_out_of_files(request: Request, _: Exception) -> Response:
    """503: no file and no server is to blame."""
    detail = "The gateway may open no more files now. Raise its limit (ulimit -n), or try again later."
    log.warning("the gateway may open no more files", extra={"path": request.url.path})
    return _answer(request, 503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER)})


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        where = f"{found[0]['ctx']['error']} at character {found[0]['loc'][-1]}"
        return _answer(request, 400, "bad_request", f"The body is not JSON: {where}.")
    errors = [_pointed(each) for each in found[:_MOST_ERRORS]]
    count = f"{len(found)} errors" if len(found) != 1 else "1 error"
    return _answer(request, 422, "invalid", f"The request has {count}.", {"errors": errors})


async def _on_refused_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, BodyRefused)
    return problem_answer(error.problem, request.scope["path"])


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    code = CODE_OF_STATUS.get(error.status_code, f"http_{error.status_code}")
    detail = error.detail if isinstance(error.detail, str) else ""
    if detail in ("", _phrase(error.status_code)):
        detail = KINDS[code].detail if code in KINDS and error.status_code in (404, 405) else _phrase(error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # The framework names the methods of one route; a path can have several.
        headers["Allow"] = allow(request.scope)
    return _answer(request, error.status_code, code, detail, headers=headers)


async def _on_disconnect(request: Request, _: Exception) -> Response:
    return _answer(request, 400, "bad_request", "The sender closed the connection before its body was complete.")


async def _on_bug(request: Request, error: Exception) -> Response:
    error_id = secrets.token_hex(4)
    fields = {"error_id": error_id, "method": request.method, "path": request.scope["path"]}
    log.error("a request failed by a fault of ours", exc_info=error, extra=fields)
    return _answer(request, 500, "internal", KINDS["internal"].detail, {"error_id": error_id})


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return problem_answer(Problem(status, code, detail, headers=headers, **(members or {})), request.scope["path"])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _pointed(error: Mapping[str, Any]) -> dict[str, str]:
    """The place and the message of an error, as in the example of RFC 9457, section 3. The value may be a secret."""
    where, *path = error["loc"] or ("body",)
    pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return {"in": str(where), "pointer": pointer[:_LONGEST_TEXT], "message": str(error["msg"])[:_LONGEST_TEXT]}
