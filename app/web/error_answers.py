"""Every error of the application becomes an answer: a problem (app.web.problems) with its status."""

import json
import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import NotDurable, OutOfFiles, Problem
from app.web.problems import CODE_OF_STATUS, KINDS, MEDIA_TYPE, document_problems, problem_body

log = logging.getLogger(__name__)

#: Seconds after which a sender should try again when Postgres did not take its alerts.
RETRY_AFTER = 5
_MOST_ERRORS = 100  # For a body with 10,000 bad labels the first hundred are enough.
_LONGEST_TEXT = 500  # Characters of a message or pointer that came from the sender.


def install(app: FastAPI, *, max_body: int | None = None) -> None:
    """Make every error of `app` a problem, in its answers and in its OpenAPI document.

    `max_body` is in bytes. A larger body is answered 413: before it is read if it declares its length, and as soon as it
    passes the limit if it is chunked.
    """
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(NotDurable, _on_not_durable)
    app.add_exception_handler(OutOfFiles, on_out_of_files)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(_TooLarge, _on_too_large)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)
    if max_body is not None:
        # FastAPI's own max_body_size answers text/plain, not a problem, when the length is declared.
        app.add_middleware(BodyLimit, limit=max_body)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document_problems(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document.


class BodyLimit:
    """ASGI middleware: 413 for a request body over `limit` bytes, declared or chunked."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:20]) > self._limit:
            return await _too_large(Request(scope), self._limit)(scope, receive, send)
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._limit:
                    raise _TooLarge(self._limit)
            return message

        return await self._app(scope, counted, send)


class _TooLarge(HTTPException):
    """An HTTPException, because FastAPI turns every other error that is raised while it reads a body into a 400."""

    def __init__(self, limit: int) -> None:
        super().__init__(413)
        self.limit = limit


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error.status, error.code, _sentence(error.detail), error.members, error.headers)


async def _on_not_durable(request: Request, error: Exception) -> Response:
    detail = f"{_sentence(str(error) or 'Postgres did not take the alerts in time')} Send them again."
    return _answer(request, 503, "not_durable", detail, headers={"Retry-After": str(RETRY_AFTER)})


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


async def _on_too_large(request: Request, error: Exception) -> Response:
    assert isinstance(error, _TooLarge)
    return _too_large(request, error.limit)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    code = CODE_OF_STATUS.get(error.status_code, f"http_{error.status_code}")
    detail = error.detail if isinstance(error.detail, str) else ""
    if detail in ("", _phrase(error.status_code)):
        detail = KINDS[code].detail if code in KINDS and error.status_code in (404, 405) else _phrase(error.status_code)
    return _answer(request, error.status_code, code, detail, headers=error.headers)


async def _on_disconnect(request: Request, _: Exception) -> Response:
    return _answer(request, 400, "bad_request", "The sender closed the connection before its body was complete.")


async def _on_bug(request: Request, error: Exception) -> Response:
    error_id = secrets.token_hex(4)
    fields = {"error_id": error_id, "method": request.method, "path": request.scope["path"]}
    log.error("a request failed by a fault of ours", exc_info=error, extra=fields)
    return _answer(request, 500, "internal", KINDS["internal"].detail, {"error_id": error_id})


def _too_large(request: Request, limit: int) -> Response:
    detail = f"The body is over {limit} bytes, the limit of GATEWAY_MAX_BODY."
    return _answer(request, 413, "too_large", detail, {"limit": limit})


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem_body(status, code, detail, quote(request.scope["path"], errors="replace"), members or {})
    # ASCII only: a key with a lone surrogate, echoed in a pointer, has no UTF-8 form.
    content = json.dumps(body, default=_plain)
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _sentence(clause: str) -> str:
    """Make a sentence of a clause, such as "its group has another open trigger": a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}" + ("" if clause.endswith((".", "?", "!")) else ".")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _pointed(error: Mapping[str, Any]) -> dict[str, str]:
    """The place and the message of an error, as in the example of RFC 9457, section 3. The value may be a secret."""
    where, *path = error["loc"] or ("body",)
    pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return {"in": str(where), "pointer": pointer[:_LONGEST_TEXT], "message": str(error["msg"])[:_LONGEST_TEXT]}
