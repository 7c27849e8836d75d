"""The OpenAPI document tells of every problem, and of nothing else that is an error."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from app.web.problems import KINDS, Kind, responses
from tests.unit.test_error_answers import make_app


def problem_examples(entry: dict[str, Any]) -> dict[str, Any]:
    assert list(entry["content"]) == ["application/problem+json"]
    found: dict[str, Any] = entry["content"]["application/problem+json"]["examples"]
    return found


def test_every_kind_has_an_example_that_is_a_problem() -> None:
    for code, kind in KINDS.items():
        (entry,) = responses(code).values()
        value = problem_examples(entry)[code]["value"]
        assert (value["code"], value["status"]) == (code, kind.status)
        assert {"type", "title", "detail", "instance"} <= set(value)


def test_kinds_of_one_status_share_its_entry() -> None:
    entries = responses(Kind("cooldown", 409, "Cooling."), Kind("in_flight", 409, "A run is open."), "not_durable")
    assert list(entries) == [409, 503]
    assert list(problem_examples(entries[409])) == ["cooldown", "in_flight"]
    assert list(entries[503]["headers"]) == ["Retry-After"]


def test_a_code_that_nobody_declared_is_not_documented() -> None:
    with pytest.raises(KeyError):
        responses("no_such_code")


def references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_document_tells_of_problems_alone_and_holds_together() -> None:
    app = make_app()
    document = app.openapi()
    alerts = document["paths"]["/alerts"]["post"]["responses"]
    assert sorted(alerts) == ["200", "400", "413", "415", "422", "503"]
    for status in ("400", "413", "415", "422", "503"):
        for example in problem_examples(alerts[status]).values():
            assert example["value"]["instance"] == "/alerts"
            assert example["value"]["status"] == int(status)
    assert sorted(document["paths"]["/raise/{what}"]["get"]["responses"]) == ["200", "409", "422"]
    assert list(document["paths"]["/fine"]["get"]["responses"]) == ["200"]
    assert "HTTPValidationError" not in json.dumps(document)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    assert app.openapi() is document
