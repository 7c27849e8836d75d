"""The OpenAPI document: every operation tells what it does, what it takes, and what each answer looks like."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.bootstrap.settings import read_settings
from app.deadman import schemas as switches
from app.effects import schemas as effects_schemas
from app.explain import examples, schemas, why_api
from app.groups import schedules_api
from app.intake.sources import alertmanager, cloudevents, grafana, mapped, native
from app.policy.file.load import load_policy
from app.promotion.schemas import PROMOTION, ROLLED_BACK, PromotionOut
from app.web.main import create_app

DOCUMENT: dict[str, Any] = create_app(read_settings(), None).openapi()  # type: ignore[arg-type]  # Never entered.

#: The part of the contract that is built. POST routes with a body take JSON.
PATHS = {
    "/livez": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/health/deadman": {"get"},
    "/health/orchestrator": {"get"},
    "/health/metadata": {"get"},
    "/ping/{switch}": {"get", "post"},
    "/ping/{switch}/{signal}": {"get", "post"},
    "/api/v1/deadman": {"get"},
    "/api/v1/deadman/{name}": {"get"},
    "/api/v1/deadman/{name}/pause": {"post"},
    "/api/v1/deadman/{name}/resume": {"post"},
    "/api/v1/deadman/{name}/forget": {"post"},
    "/api/v1/webhooks/alertmanager": {"post"},
    "/api/v1/webhooks/grafana": {"post"},
    "/api/v1/webhooks/cloudevents": {"post"},
    "/api/v1/webhooks/{source}": {"post"},
    "/api/v1/alerts": {"get", "post"},
    "/api/v1/alerts/{id}": {"get"},
    "/api/v1/triggers": {"get", "post"},
    "/api/v1/triggers/{id}": {"get"},
    "/api/v1/triggers/{id}/redrive": {"post"},
    "/api/v1/triggers/{id}/cancel": {"post"},
    "/api/v1/routes": {"get"},
    "/api/v1/routes/{name}/pause": {"post", "delete"},
    "/api/v1/routes/{name}/reset": {"post"},
    "/api/v1/routes/{name}/explain": {"get"},
    "/api/v1/schedules": {"get"},
    "/api/v1/effects": {"get"},
    "/api/v1/episodes": {"get"},
    "/api/v1/explain/{subject}": {"get"},
    "/api/v1/quarantine": {"get"},
    "/api/v1/notices": {"get"},
    "/api/v1/notices/{id}/resolve": {"post"},
    "/api/v1/notices/{id}/redrive": {"post"},
    "/api/v1/metadata/redrive": {"post"},
    "/api/v1/receivers/{name}/test": {"post"},
    "/api/v1/metadata": {"get", "post"},
    "/api/v1/metadata/{run}": {"get"},
    "/api/v1/lineage": {"get"},
    "/api/v1/lineage/orphans": {"get"},
    "/api/v1/webhooks/mlflow": {"post"},
    "/api/v1/promotions": {"get", "post"},
    "/api/v1/promotions/{id}": {"get"},
    "/api/v1/promotions/{id}/rollback": {"post"},
    "/api/v1/policies": {"get"},
    "/api/v1/history": {"get"},
    "/api/v1/backtests": {"post"},
    "/api/v1/backtests/{id}": {"get", "delete"},
    "/-/reload": {"post"},
}
OPERATIONS = [(method, path) for path, methods in PATHS.items() for method in sorted(methods)]
IDS = [f"{method.upper()} {path}" for method, path in OPERATIONS]
operations = pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=IDS)


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def examples_of(content: dict[str, Any]) -> list[Any]:
    """Every example of one media type."""
    many = [example["value"] for example in content.get("examples", {}).values()]
    return many + ([content["example"]] if "example" in content else [])


def test_the_document_has_every_path_of_the_contract_and_no_other() -> None:
    assert {path: set(item) for path, item in DOCUMENT["paths"].items()} == PATHS


@operations
def test_an_operation_says_what_it_is_for(method: str, path: str) -> None:
    described = operation(method, path)
    assert re.match(r"[A-Z].{10,60}[a-z?]$", described["summary"])
    assert len(described["description"]) > 40
    assert described["description"].rstrip().endswith((".", "?"))
    assert len(described["tags"]) == 1


@operations
def test_a_parameter_says_what_it_is(method: str, path: str) -> None:
    for parameter in operation(method, path).get("parameters", []):
        assert parameter.get("description"), parameter["name"]


@operations
def test_every_answer_has_an_example(method: str, path: str) -> None:
    for status, answer in operation(method, path)["responses"].items():
        for media_type, content in answer["content"].items():
            assert media_type == ("application/problem+json" if is_problem(status, path) else expected(path))
            assert examples_of(content), f"{status} {media_type}"


def is_open(path: str) -> bool:
    """A probe: open to anybody, and the status is the answer."""
    return path in ("/livez", "/readyz") or path.startswith("/health/")


def is_problem(status: str, path: str) -> bool:
    return status >= "400" and not is_open(path)


def expected(path: str) -> str:
    return "text/plain" if path == "/metrics" or path.startswith("/ping/") else "application/json"


@operations
def test_the_example_of_an_error_is_a_problem_of_that_status_with_a_sentence(method: str, path: str) -> None:
    for status, answer in operation(method, path)["responses"].items():
        for example in examples_of(answer["content"].get("application/problem+json", {})):
            assert example["status"] == int(status)
            assert example["type"] == f"urn:trigger-gateway:problem:{example['code']}"
            assert example["detail"].endswith(".")
            assert example["detail"][0].isupper()


@operations
def test_the_usual_errors_are_told(method: str, path: str) -> None:
    codes = set(operation(method, path)["responses"])
    if is_open(path):
        assert codes == {"200", "503"}
    elif path == "/metrics":
        assert codes == {"200", "401", "403"}
    else:
        assert codes >= {"401", "403", "503"}
    if method == "post" and "/webhooks/" not in path:
        assert "429" in codes
    if "/webhooks/" in path:
        assert "429" not in codes
        assert not {code for code in codes if code.startswith("3")}


@operations
def test_a_guarded_operation_names_its_scope(method: str, path: str) -> None:
    security = operation(method, path).get("security")
    if is_open(path):
        assert security is None
        return
    if path.startswith("/ping/"):
        assert security == [{"bearer": ["ping"]}]
        return
    if "/backtests" in path:  # It changes nothing but its own answer.
        assert security == [{"bearer": ["read"]}]
        return
    registry = path == "/api/v1/webhooks/mlflow"
    ingests = path == "/api/v1/alerts" or ("/webhooks/" in path and not registry)
    scope = "ingest" if method == "post" and ingests else "read"
    if path == "/api/v1/metadata" and method == "post":
        scope = "metadata"
    asks = "promote" if "/promotions" in path or registry else "trigger"
    assert security == [{"bearer": [asks if method in ("post", "delete") and scope == "read" else scope]}]


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        assert reference.startswith("#/components/"), reference
        for part in reference[2:].split("/"):
            place = place[part]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


FULL = load_policy(Path(__file__).parents[2] / "examples" / "policy-full.yaml", {}, require_env=False)
BINARY = {"content-type": "application/json", "ce-id": "1", "ce-source": "/a", "ce-type": "b", "ce-specversion": "1.0"}


@pytest.mark.parametrize(
    ("path", "media_type", "read"),
    [
        ("/api/v1/webhooks/alertmanager", "application/json", alertmanager.read),
        ("/api/v1/webhooks/grafana", "application/json", grafana.read),
        ("/api/v1/alerts", "application/json", native.read),
        *(
            ("/api/v1/webhooks/cloudevents", kind, partial(cloudevents.read, headers={"content-type": kind}))
            for kind in ("application/cloudevents+json", "application/cloudevents-batch+json")
        ),
        (
            "/api/v1/webhooks/{source}",
            "application/json",
            partial(mapped.read, source=FULL.sources[0]),
        ),
        (
            "/api/v1/webhooks/cloudevents",
            "application/json",
            partial(cloudevents.read, headers=BINARY | {"ce-time": "2026-11-23T03:00:00Z"}),
        ),
    ],
    ids=[
        "alertmanager",
        "grafana",
        "native",
        "a structured event",
        "a batch of events",
        "a mapped body",
        "a binary event",
    ],
)
def test_the_example_of_a_body_is_one_that_the_gateway_reads(path: str, media_type: str, read: Any) -> None:
    content = operation("post", path)["requestBody"]["content"]
    parsed = read(json.dumps(content[media_type]["example"]).encode(), 10)
    assert (len(parsed.alerts), parsed.bad) == (1, [])


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        (schemas.Accepted, examples.ACCEPTED),
        (schemas.DecisionOut, examples.DECISION),
        (schemas.AlertOut, examples.ALERT),
        (schemas.TriggerOut, examples.TRIGGER),
        (schemas.RouteOut, examples.ROUTE),
        (schemas.GroupOut, examples.GROUP),
        (schemas.QuarantineOut, examples.QUARANTINED),
        (schemas.Explanation, examples.EXPLANATION),
        (PromotionOut, PROMOTION),
        (PromotionOut, ROLLED_BACK),
        (schedules_api.ScheduleOut, schedules_api.ScheduleOut.model_config["json_schema_extra"]["example"]),  # type: ignore[index]
        (switches.SwitchOut, switches.SWITCH),
        (switches.SwitchDetail, switches.DETAIL),
        (switches.FlipOut, switches.FLIP),
        (switches.Forgotten, switches.FORGOTTEN),
        (effects_schemas.EffectsOut, effects_schemas.EFFECTS),
        (effects_schemas.EffectOut, effects_schemas.EFFECTS["items"][0]),
        (effects_schemas.EpisodeOut, effects_schemas.EPISODE),
        (effects_schemas.GroupSums, effects_schemas.EFFECTS["groups"][0]),
        (why_api.WhyOut, why_api.WhyOut.model_config["json_schema_extra"]["example"]),  # type: ignore[index]
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_example_has_the_shape_that_it_shows(shape: type[Any], example: dict[str, Any]) -> None:
    TypeAdapter(shape).validate_python(example)
    assert set(shape.model_fields) - set(example) <= {"quarantined"}
