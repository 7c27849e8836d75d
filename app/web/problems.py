"""Error answers, application/problem+json (RFC 9457): their kinds, their form, and their entries in the OpenAPI document.
For good answers see app.web.answers.

The members are `type` (`urn:trigger-gateway:problem:<code>`), `title` (fixed for a code), `status`, `detail` (one
sentence about this case), `instance` (the path) and `code`. Some problems add others: `errors`, `limit`, `until`, `page`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from app.kit.errors import Problem
from app.kit.links import whole

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """One kind of problem. Its `detail` and `members` are the example in the OpenAPI document."""

    code: str
    status: int
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # name to description


_RETRY = {"Retry-After": "Seconds to wait before the next try."}
_KINDS = (
    Kind("bad_request", 400, "The body is not JSON: Expecting value at character 0."),
    Kind("unauthorized", 401, "No token: send `Authorization: Bearer tg_...`.", headers={"WWW-Authenticate": "Bearer"}),
    Kind("forbidden", 403, "The token grafana lacks the scope trigger; it has ingest.", {"scope": "trigger"}),
    Kind("not_found", 404, "Nothing is here."),
    Kind("method_not_allowed", 405, "This path does not take this method.", headers={"Allow": "The methods it takes."}),
    Kind("too_large", 413, "The body is over 4194304 bytes, the limit of GATEWAY_MAX_BODY.", {"limit": 4194304}),
    Kind(
        "unsupported_encoding",
        415,
        "The gateway does not read the encoding 'br': send the body as it is, or as gzip or deflate.",
        headers={"Accept-Encoding": "The encodings that it reads."},
    ),
    Kind(
        "invalid",
        422,
        "The request has 1 error.",
        {"errors": [{"in": "body", "pointer": "#/severity", "message": "Field required"}]},
    ),
    Kind("rate_limited", 429, "The token ci made too many write requests; try again in 3 seconds.", headers=_RETRY),
    Kind("internal", 500, "The gateway failed here. Look for the error id in its log.", {"error_id": "3f9c2a71"}),
    Kind("not_durable", 503, "Postgres did not take the alerts within 8 seconds. Send them again.", headers=_RETRY),
)
#: Every route that reads from Postgres may answer this.
UNAVAILABLE = Kind("unavailable", 503, "Postgres does not answer now. Try again later.", headers=_RETRY)
#: For routes with signed requests. Not among KINDS, where 401 stands for the token.
BAD_SIGNATURE = Kind(
    "bad_signature",
    401,
    "The signature in X-Grafana-Alerting-Signature does not fit this body and the secret that is set here.",
    headers={"WWW-Authenticate": "HMAC-SHA256"},
)
KINDS: Mapping[str, Kind] = {kind.code: kind for kind in _KINDS}
CODE_OF_STATUS = {kind.status: kind.code for kind in _KINDS} | {503: "unavailable"}


def responses(*kinds: str | Kind) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for a route's `responses=`, with an example for each kind. A string names one of KINDS.

    `document_problems` adds the problems that every route may have: 401 and 403 behind a token, 400, 413, 415 and 422 for a
    body.
    Raises KeyError for a code that is not in KINDS.
    """
    entries: dict[int | str, dict[str, Any]] = {}
    for kind in (KINDS[kind] if isinstance(kind, str) else kind for kind in kinds):
        entry = entries.setdefault(
            kind.status,
            {
                "description": _title(kind.code),
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        example = problem_body(kind.status, kind.code, kind.detail, "/", kind.members)
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {"summary": _title(kind.code), "value": example}
        for name, description in kind.headers.items():
            entry.setdefault("headers", {})[name] = {"description": description, "schema": {"type": "string"}}
    return entries


def problem_answer(problem: Problem, path: str, external_url: str | None = None) -> Response:
    """The answer to a request for `path` that met `problem`. With `external_url` it names the page of the problem."""
    page = whole(external_url, problem.page)
    members = problem.members | ({"page": page} if page is not None else {})
    body = problem_body(problem.status, problem.code, sentence(problem.detail), quote(path, errors="replace"), members)
    # ASCII only: a key with a lone surrogate, echoed in a pointer, has no UTF-8 form.
    return Response(json.dumps(body, default=_plain), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def problem_body(status: int, code: str, detail: str, instance: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The document of one problem."""
    fixed = {
        "type": f"urn:trigger-gateway:problem:{code}",
        "title": _title(code),
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    }
    return fixed | {name: value for name, value in members.items() if name not in fixed}


def sentence(clause: str) -> str:
    """Make a sentence of a clause, such as "its group has another open trigger": a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}" + ("" if clause.endswith((".", "?", "!")) else ".")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "urn:trigger-gateway:problem:<code>"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence about this case."},
        "instance": {"type": "string", "description": "The path of the request."},
        "code": {"type": "string", "description": "Stable: let programs branch on this."},
        "page": {
            "type": "string",
            "format": "uri",
            "description": "The page that shows the group, trigger, switch or model. Only with GATEWAY_EXTERNAL_URL.",
        },
    },
}
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def document_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the problems that every route may have, in place of FastAPI's own errors."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _SCHEMA
    for path, item in document.get("paths", {}).items():
        for operation in (item[method] for method in _METHODS if method in item):
            _document_operation(path, operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _document_operation(path: str, operation: dict[str, Any]) -> None:
    answers: dict[str, Any] = operation.setdefault("responses", {})
    if "HTTPValidationError" in json.dumps(answers.get("422", {})):
        del answers["422"]
    codes = ["unauthorized", "forbidden"] if operation.get("security") else []
    if "requestBody" in operation:
        codes += ["bad_request", "too_large", "unsupported_encoding", "invalid"]
    elif operation.get("parameters"):
        codes += ["invalid"]
    for status, entry in responses(*codes).items():
        mine = answers.setdefault(str(status), entry)
        examples = mine.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
        for code, example in entry["content"][MEDIA_TYPE]["examples"].items():
            examples.setdefault(code, example)
    for response in answers.values():
        for example in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).values():
            example["value"] = example["value"] | {"instance": path}
