"""What the answer to a notification promises: its keys, its order, its codes."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from tests.acceptance.world import World
from tests.integration.api import (
    ALERTMANAGER,
    DECISION_KEYS,
    NATIVE,
    native_alert,
    notification,
    opened,
    problem,
    webhook_alert,
    word,
)
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """One gateway for all of them."""
    async with opened(servers, servers.fresh_database(template)) as opened_world:
        yield opened_world


async def decisions(world: World, path: str, body: Any) -> list[dict[str, Any]]:
    answer = await world.post(path, body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: list[dict[str, Any]] = answer.json()["decisions"]
    return found


async def test_a_decision_has_exactly_the_keys_of_the_contract(world: World) -> None:
    model = word()
    first, second = await decisions(
        world, ALERTMANAGER, notification(webhook_alert(model=model), webhook_alert("Nobody", model=model))
    )
    assert list(first) == list(second) == DECISION_KEYS
    assert (first["alert_id"], first["status"], first["route"]) == ("ModelAccuracyLow", "firing", "accuracy")
    assert (first["group"], first["action"], first["reason"]) == ({"model": model}, "fire", "new_alert")
    assert str(UUID(first["trigger_id"])) == first["trigger_id"]
    assert (second["route"], second["group"], second["action"]) == (None, {}, "ignore")
    assert (second["reason"], second["trigger_id"], second["until"]) == ("no_route", None, None)


async def test_decisions_stand_in_the_order_of_the_body_whatever_becomes_of_each(world: World) -> None:
    held, known = word(), word()
    await decisions(world, ALERTMANAGER, notification(webhook_alert(model=known)))
    resolved = webhook_alert(model=word()) | {"status": "resolved", "endsAt": world.clock.now().isoformat()}
    alerts = [
        webhook_alert("Nobody"),
        webhook_alert("Drift", model=held),
        webhook_alert(model=known),
        webhook_alert("Drift", model=held),
        resolved,
        webhook_alert(model=word()),
    ]
    found = await decisions(world, ALERTMANAGER, notification(*alerts))
    assert [d["fingerprint"] for d in found] == [a["fingerprint"] for a in alerts]
    assert [d["reason"] for d in found] == ["no_route", "debouncing", "in_flight", "joined", "resolved", "new_alert"]
    assert [d["status"] for d in found] == ["firing"] * 4 + ["resolved", "firing"]
    due = (world.clock.now() + timedelta(minutes=10)).isoformat().replace("+00:00", "Z")
    assert [d["until"] for d in found] == [None, due, None, due, None, None]
    assert found[1]["trigger_id"] == found[3]["trigger_id"]


async def test_a_repeat_answered_from_memory_looks_like_one_answered_from_the_books(world: World) -> None:
    body = notification(webhook_alert(model=word()))
    first, *repeats = [(await decisions(world, ALERTMANAGER, body))[0] for _ in range(4)]
    assert first["action"] == "fire"
    assert repeats[0] == repeats[1] == repeats[2]
    assert (repeats[0]["reason"], repeats[0]["trigger_id"]) == ("duplicate", first["trigger_id"])
    assert list(repeats[0]) == DECISION_KEYS


async def test_alert_id_severity_and_timestamp_are_enough(world: World) -> None:
    alert_id = f"drift-{word()}"
    [decision] = await decisions(world, NATIVE, native_alert(alert_id))
    assert (decision["alert_id"], decision["reason"]) == (alert_id, "no_route")
    [alert] = (await world.get("/api/v1/alerts", label=f"alertname={alert_id}"))["items"]
    assert alert["labels"] == {"alertname": alert_id, "severity": "critical"}
    assert (alert["source"], alert["count"], alert["status"]) == ("native", 1, "firing")


async def test_a_native_list_is_answered_in_its_order(world: World) -> None:
    ids = [f"n-{word()}" for _ in range(20)]
    found = await decisions(world, NATIVE, [native_alert(i) for i in ids])
    assert [d["alert_id"] for d in found] == ids


async def test_several_bad_alerts_are_listed_by_their_place(world: World) -> None:
    bad = webhook_alert("Broken") | {"startsAt": "never"}
    answer = (await world.post(ALERTMANAGER, notification(bad, webhook_alert("Nobody"), bad, 5))).json()
    assert [(q["index"], q["id"]) for q in answer["quarantined"]] == [(0, "Broken"), (2, "Broken"), (3, None)]
    assert len(answer["decisions"]) == 1
    assert all(q["error"] for q in answer["quarantined"])


async def test_a_body_without_a_bad_alert_says_nothing_of_quarantine(world: World) -> None:
    answer = await world.post(ALERTMANAGER, notification(webhook_alert("Nobody")))
    assert list(answer.json()) == ["decisions"]


async def test_a_refused_body_says_where_it_is_wrong_and_not_what_it_held(world: World) -> None:
    answer = await world.post(NATIVE, {"alert_id": "a", "severity": "my secret" * 20, "timestamp": "now"})
    refused = problem(answer, 422, "invalid")
    assert {e["pointer"] for e in refused["errors"]} == {"/0/severity", "/0/timestamp"}
    assert "my secret" not in answer.text


async def test_unknown_members_of_alertmanager_are_tolerated(world: World) -> None:
    body = notification(webhook_alert("Nobody") | {"kind": "new"}) | {"notificationReason": "FirstNotification"}
    assert (await decisions(world, ALERTMANAGER, body))[0]["reason"] == "no_route"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_the_body_is_read_whatever_it_is_called(world: World, content_type: str) -> None:
    content = json.dumps(native_alert(f"n-{word()}")).encode()
    answer = await world.clients[0].post(NATIVE, content=content, headers={"Content-Type": content_type})
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("path", [f"{ALERTMANAGER}/", f"{NATIVE}/", "/api/v1/webhooks/nobody", "//api/v1/alerts"])
async def test_a_wrong_path_is_a_problem_and_never_a_redirect(world: World, path: str) -> None:
    problem(await world.post(path, native_alert()), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_a_wrong_method_is_a_problem_that_names_the_right_one(world: World, method: str) -> None:
    answer = await world.clients[0].request(method, ALERTMANAGER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
