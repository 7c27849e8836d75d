"""The fake Airflow answers what the recorded Airflow 3.3.2 answered, and goes wrong exactly as told."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, answer, busy, drop, limbo, meanwhile, page, redirect, refuse, timeout

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "airflow_3.3.2_rest.json").read_text())
NOT_FAKED = {"task_instances", "xcom_registration"}
DAG = "retrain_pipeline"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fake(clock: ManualClock) -> FakeAirflow:
    fake = FakeAirflow(clock)
    fake.users |= {"gw": "gwpw", "ro": "ropw"}
    fake.viewers.add("ro")
    fake.add_dag(DAG)
    return fake


async def ask(fake: FakeAirflow, method: str, path: str, body: Any = None, token: str | None = None) -> httpx.Response:
    """One request, as a plain HTTP client would make it."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    content = body if isinstance(body, str) or body is None else json.dumps(body)
    async with httpx.AsyncClient(transport=fake.transport(), base_url=fake.url) as http:
        return await http.request(method, path, content=content, headers=headers)


async def post(fake: FakeAirflow, run_id: str, dag_id: str = DAG) -> httpx.Response:
    body: dict[str, Any] = {"dag_run_id": run_id, "logical_date": None, "conf": {}}
    return await ask(fake, "POST", f"/api/v2/dags/{dag_id}/dagRuns", body, fake.mint())


def shape(value: Any, depth: int = 2) -> Any:
    """The keys of an object, two levels deep; its values differ by their nature."""
    if isinstance(value, Mapping) and depth:
        return {key: shape(inner, depth - 1) for key, inner in value.items() if key != "ctx"}
    return type(value).__name__ if isinstance(value, dict | list) else "value"


def token_for(fake: FakeAirflow, case: str, authorization: str | None) -> str | None:
    if authorization is None:
        return None
    match case:
        case "garbage_token":
            return "abc"
        case "expired_token":
            return fake.mint("gw", timedelta(0))
        case "viewer_role":
            return fake.mint("ro")
    return fake.mint("gw")


async def test_a_replay_of_the_recording_brings_the_recorded_statuses_and_shapes(
    fake: FakeAirflow, clock: ManualClock
) -> None:
    for pair in RECORDED:
        case, request, expected = pair["case"], pair["request"], pair["response"]
        if case in NOT_FAKED:
            continue
        if case == "get_run":
            fake.start_run("gw__fraud__01HX")
            clock.pass_by(timedelta(seconds=4))
            fake.finish("gw__fraud__01HX")
        token = token_for(fake, case, request["authorization"])
        got = await ask(fake, request["method"], request["path"], request["body"], token)
        assert (case, got.status_code) == (case, expected["status"])
        if case in {"pause", "unpause"}:
            assert got.json().keys() <= expected["body"].keys()
            assert got.json()["is_paused"] is expected["body"]["is_paused"]
        elif isinstance(expected["body"], dict) and isinstance(expected["body"].get("detail"), str):
            start = expected["body"]["detail"][:60]
            assert (case, got.json()["detail"][:60]) == (case, start)
        else:
            assert (case, shape(got.json())) == (case, shape(expected["body"]))


async def test_what_was_not_recorded_is_not_pretended(fake: FakeAirflow) -> None:
    for pair in (pair for pair in RECORDED if pair["case"] in NOT_FAKED):
        got = await ask(fake, "GET", pair["request"]["path"], None, fake.mint())
        assert got.status_code == 404
        assert got.json() == {"error": "API route not found"}


async def test_an_address_outside_the_api_brings_the_web_page(fake: FakeAirflow) -> None:
    got = await ask(fake, "GET", "/base/api/v2/dags/x")
    assert (got.status_code, got.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_nothing_moves_until_it_is_told(fake: FakeAirflow, clock: ManualClock) -> None:
    await post(fake, "a")
    clock.pass_by(timedelta(days=1))
    await ask(fake, "GET", f"/api/v2/dags/{DAG}/dagRuns/a", None, fake.mint())
    assert fake.run("a").state == "queued"
    fake.advance()
    assert fake.run("a").state == "running"
    fake.finish("a", "failed")
    assert (fake.run("a").state, fake.run("a").ended_at) == ("failed", clock.now())


async def test_with_auto_finish_runs_end_by_the_clock(fake: FakeAirflow, clock: ManualClock) -> None:
    fake.auto_finish = timedelta(minutes=5)
    fake.outcome = lambda run: "failed" if run.dag_run_id == "b" else "success"
    begun = clock.now()
    states = []
    await post(fake, "a")
    await post(fake, "b")
    for _ in range(3):
        got = [await ask(fake, "GET", f"/api/v2/dags/{DAG}/dagRuns/{run}", None, fake.mint()) for run in "ab"]
        states.append([answer.json()["state"] for answer in got])
        clock.pass_by(timedelta(minutes=4))
    assert states == [["running", "running"], ["running", "running"], ["success", "failed"]]
    assert fake.run("a").ended_at == begun + timedelta(minutes=5)
    assert fake.most_open == 2


@pytest.mark.parametrize(
    ("stop", "start"),
    [
        pytest.param(lambda f: f.pause(DAG), lambda f: f.unpause(DAG), id="a paused DAG"),
        pytest.param(
            lambda f: f.components.update(scheduler="unhealthy"),
            lambda f: f.components.update(scheduler="healthy"),
            id="a dead scheduler",
        ),
    ],
)
async def test_runs_stay_queued_while_they_may_not_start(
    fake: FakeAirflow, clock: ManualClock, stop: Any, start: Any
) -> None:
    fake.auto_finish = timedelta(minutes=5)
    stop(fake)
    assert (await post(fake, "a")).status_code == 200
    clock.pass_by(timedelta(hours=1))
    fake.advance()
    assert fake.run("a").state == "queued"
    start(fake)
    fake.advance()
    assert fake.run("a").state != "queued"


FAULTS: list[Any] = [
    pytest.param(refuse(), httpx.ConnectError, 0, id="refuse"),
    pytest.param(timeout(), httpx.ReadTimeout, 0, id="timeout before the commit"),
    pytest.param(timeout(after_commit=True), httpx.ReadTimeout, 1, id="timeout after it"),
    pytest.param(limbo(), httpx.ReadTimeout, 0, id="limbo"),
    pytest.param(drop(), httpx.RemoteProtocolError, 0, id="drop before the commit"),
    pytest.param(drop(after_commit=True), httpx.RemoteProtocolError, 1, id="drop after it"),
    pytest.param(answer(500), 500, 0, id="500 before the commit"),
    pytest.param(answer(503, after_commit=True), 503, 1, id="503 after it"),
    pytest.param(busy(), 429, 0, id="429"),
    pytest.param(page(), 200, 0, id="page"),
    pytest.param(redirect("http://sso.test/"), 302, 0, id="redirect"),
    pytest.param(meanwhile(lambda: None), 200, 1, id="meanwhile"),
]


@pytest.mark.parametrize(("fault", "seen", "runs"), FAULTS)
async def test_each_fault_does_what_it_says_once(fake: FakeAirflow, fault: Fault, seen: Any, runs: int) -> None:
    fake.disturb(fault, on="trigger")
    if isinstance(seen, int):
        assert (await post(fake, "a")).status_code == seen
    else:
        with pytest.raises(seen):
            await post(fake, "a")
    assert (len(fake.posts), len(fake.runs), fake.faults_pending) == (runs, runs, 0)
    assert [call.status for call in fake.calls("trigger")] == [200 if runs else None]
    assert (await post(fake, "b")).status_code == 200


async def test_what_is_in_limbo_takes_effect_when_it_lands(fake: FakeAirflow) -> None:
    fake.disturb(limbo(), on="trigger")
    with pytest.raises(httpx.ReadTimeout):
        await post(fake, "a")
    assert fake.runs == {}
    fake.land()
    fake.land()
    assert list(fake.runs) == [(DAG, "a")]


async def test_faults_are_used_in_order_by_those_that_they_are_for(fake: FakeAirflow) -> None:
    fake.disturb(answer(500), on=lambda call: call.body["dag_run_id"] == "b")
    fake.disturb(answer(503), on="trigger", times=2)
    fake.disturb(refuse(), on="health", times=None)
    assert [(await post(fake, run)).status_code for run in "abac"] == [503, 500, 503, 200]
    for _ in range(3):
        with pytest.raises(httpx.ConnectError):
            await ask(fake, "GET", "/api/v2/monitor/health")
    fake.calm()
    assert (await ask(fake, "GET", "/api/v2/monitor/health")).status_code == 200


async def test_a_fake_that_is_down_takes_nothing(fake: FakeAirflow) -> None:
    fake.down = True
    with pytest.raises(httpx.ConnectError):
        await post(fake, "a")
    assert fake.posts == []
    fake.calm()
    assert (await post(fake, "a")).status_code == 200


async def over_asgi(fake: FakeAirflow, *, leave: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """One trigger through the ASGI door; what the server was told to send."""
    body = json.dumps({"dag_run_id": "a", "logical_date": None}).encode()
    incoming: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": body[:5], "more_body": True}, {"type": "http.request", "body": body[5:]}]
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in incoming:
            return message
        if leave is not None:
            leave.set()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/api/v2/dags/{DAG}/dagRuns",
        "query_string": b"",
        "headers": [(b"Authorization", f"Bearer {fake.mint()}".encode())],
    }
    await fake(scope, receive, send)
    return sent


async def test_the_fake_can_stand_behind_a_real_server(fake: FakeAirflow) -> None:
    start, body = await over_asgi(fake)
    assert start["status"] == 200
    assert (b"content-type", b"application/json") in start["headers"]
    assert json.loads(body["body"])["dag_run_id"] == "a"


@pytest.mark.parametrize("fault", [refuse(), drop(after_commit=True)], ids=["refused", "dropped"])
async def test_behind_a_real_server_a_lost_answer_is_a_502(fake: FakeAirflow, fault: Fault) -> None:
    fake.disturb(fault, on="trigger")
    assert (await over_asgi(fake))[0]["status"] == 502


async def test_behind_a_real_server_a_timeout_hangs_until_the_client_leaves(fake: FakeAirflow) -> None:
    fake.disturb(timeout(after_commit=True), on="trigger")
    left = asyncio.Event()
    assert await over_asgi(fake, leave=left) == []
    assert left.is_set()
    assert len(fake.runs) == 1
