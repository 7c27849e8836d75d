"""Good answers of the API: JSON, and its entry in the OpenAPI document. For errors see app.web.problems."""

from typing import Any

from fastapi import Response
from pydantic_core import to_json

from app.web.problems import Kind, responses


def json_answer(value: Any, status: int = 200) -> Response:
    """Any value that pydantic can write. It is not validated again."""
    return Response(to_json(value), status, media_type="application/json")


def shows(example: Any, *problems: str | Kind, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """A route's `responses=`: an example of its good answer, and the problems that only this route has."""
    return {status: {"content": {"application/json": {"example": example}}}} | responses(*problems)


def page_of(example: Any) -> dict[str, Any]:
    """The example of a page of a list."""
    return {"items": [example], "next": None}
