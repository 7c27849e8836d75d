"""A DAG that cannot run is named with its reason, and no id can lead a call astray."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from app.kit.airflow.client import AirflowClient, DagInfo, PasswordAuth
from app.kit.errors import Refused, Rejected
from app.kit.http import open_http
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer, meanwhile, timeout

RUN = "gateway__accuracy__0198"
CONF = {"gateway": {"trigger_id": "0198"}}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fake(clock: ManualClock) -> FakeAirflow:
    fake = FakeAirflow(clock)
    fake.add_dag("retrain_model")
    return fake


@pytest.fixture
def client(fake: FakeAirflow, clock: ManualClock) -> AirflowClient:
    http = open_http(transport=fake.transport())
    return AirflowClient(http, f"{fake.url}/", PasswordAuth(fake.username, fake.password), clock)


async def test_a_dag_is_shown_with_what_matters_for_a_trigger(client: AirflowClient, fake: FakeAirflow) -> None:
    schedule = "Never, external triggers only"
    assert await client.dag("retrain_model") == DagInfo("retrain_model", False, schedule, "retrain_model.py")
    fake.pause("retrain_model")
    assert (await client.dag("retrain_model")).is_paused


def missing(_: FakeAirflow) -> None:
    """The DAG was never there."""


def broken_from_the_start(fake: FakeAirflow) -> None:
    fake.add_broken_file("teams/churn.py", "ModuleNotFoundError: No module named 'pandas'")


def broken_later(fake: FakeAirflow) -> None:
    fake.add_dag("churn", file="pipelines.py")
    fake.add_broken_file("other.py")
    fake.break_dag("churn")


def removed(fake: FakeAirflow) -> None:
    fake.add_dag("churn", file="pipelines.py")
    fake.remove_dag("churn")


def missing_among_broken(fake: FakeAirflow) -> None:
    fake.add_broken_file("other.py")
    fake.add_broken_file("churn_v2.py")


def broken_and_forbidden(fake: FakeAirflow) -> None:
    broken_from_the_start(fake)
    fake.disturb(answer(403, {"detail": "Forbidden"}), on="import_errors", times=None)


def broken_and_slow(fake: FakeAirflow) -> None:
    broken_from_the_start(fake)
    fake.disturb(timeout(), on="import_errors", times=None)


GONE = [
    pytest.param(missing, "dag_missing", ["'churn'", "dag.id"], id="missing"),
    pytest.param(missing_among_broken, "dag_missing", ["'churn'", "2 DAG files"], id="missing, others are broken"),
    pytest.param(removed, "dag_missing", ["'churn'", "dag.id"], id="its file was removed"),
    pytest.param(broken_from_the_start, "dag_broken", ["teams/churn.py", "No module named"], id="broken at once"),
    pytest.param(broken_later, "dag_broken", ["pipelines.py", "No module named"], id="broken later, in another file"),
    pytest.param(broken_and_forbidden, "dag_missing", ["'churn'"], id="broken, but we may not see why"),
    pytest.param(broken_and_slow, "dag_missing", ["'churn'"], id="broken, but the why does not come"),
]


@pytest.mark.parametrize(("prepare", "code", "words"), GONE)
@pytest.mark.parametrize("how", ["asked for", "triggered"])
async def test_a_dag_that_cannot_run_is_named_with_its_reason(
    client: AirflowClient,
    fake: FakeAirflow,
    how: str,
    prepare: Callable[[FakeAirflow], None],
    code: str,
    words: list[str],
) -> None:
    prepare(fake)
    with pytest.raises(Refused) as raised:
        await (client.dag("churn") if how == "asked for" else client.trigger("churn", RUN, CONF, None))
    assert raised.value.code == code
    assert not [word for word in words if word not in raised.value.detail]
    assert fake.posts == []
    assert await client.run("churn", RUN) is None


async def test_a_dag_that_is_back_before_its_404_is_explained_is_still_refused(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    fake.remove_dag("retrain_model")
    fake.disturb(meanwhile(lambda: fake.repair_dag("retrain_model")), on="dag")
    with pytest.raises(Refused) as raised:
        await client.trigger("retrain_model", RUN, CONF, None)
    assert "may have come back" in raised.value.detail
    assert (await client.trigger("retrain_model", RUN, CONF, None)).state == "queued"


async def test_a_trigger_that_may_not_read_dags_is_named_for_its_404_and_not_for_that(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    fake.disturb(answer(403, {"detail": "Forbidden"}), on="dag")
    with pytest.raises(Refused) as raised:
        await client.trigger("churn", RUN, CONF, None)
    assert raised.value.code == "dag_missing"


@pytest.mark.parametrize("dag_id", ["", "../x", "a/b", "a b", "a?b=c", "a%2Fb", "x\n", 251 * "a", 65_000 * "a"])
async def test_an_id_that_no_dag_can_have_is_not_sent(client: AirflowClient, fake: FakeAirflow, dag_id: str) -> None:
    for call in (client.dag(dag_id), client.trigger(dag_id, RUN, CONF, None)):
        with pytest.raises(Rejected) as raised:
            await call
        assert raised.value.code == "dag_impossible"
        assert len(raised.value.detail) < 600
    assert await client.run(dag_id, RUN) is None
    assert fake.seen == []


@pytest.mark.parametrize(
    ("dag_id", "run_id", "path"),
    [
        pytest.param("d", "a+b:c~d", "/api/v2/dags/d/dagRuns/a%2Bb%3Ac~d", id="what ids may hold"),
        pytest.param("d", "a/b?c#d%", "/api/v2/dags/d/dagRuns/a%2Fb%3Fc%23d%25", id="what ends a path"),
        pytest.param("d", "../../x", "/api/v2/dags/d/dagRuns/..%2F..%2Fx", id="a path of its own"),
        pytest.param("..", "..", "/api/v2/dags/%2E%2E/dagRuns/%2E%2E", id="dots"),
        pytest.param(".", ".", "/api/v2/dags/%2E/dagRuns/%2E", id="a dot"),
        pytest.param("modèle", "é", "/api/v2/dags/mod%C3%A8le/dagRuns/%C3%A9", id="letters beyond ASCII"),
        pytest.param("d", "\ud800", "/api/v2/dags/d/dagRuns/%3F", id="a lone surrogate"),
    ],
)
async def test_ids_are_one_segment_of_the_path_each(dag_id: str, run_id: str, path: str, clock: ManualClock) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        if "/dagRuns/" in asked[-1]:
            return httpx.Response(404, json={"detail": "no"})
        return httpx.Response(200, json={"is_paused": False})

    async with open_http(transport=httpx.MockTransport(handle)) as http:
        assert await AirflowClient(http, "http://airflow.test", None, clock).run(dag_id, run_id) is None
    assert asked == [path, path.partition("/dagRuns/")[0], path]


async def test_a_url_with_a_path_of_its_own_is_kept(clock: ManualClock) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(201, json={"access_token": "t"})

    async with open_http(transport=httpx.MockTransport(handle)) as http:
        client = AirflowClient(http, "http://proxy.test/airflow/", PasswordAuth("u", "p"), clock)
        with pytest.raises(Refused):
            await client.dag("d")
    assert asked == ["/airflow/auth/token", "/airflow/api/v2/dags/d"]


async def test_the_naming_of_a_missing_dag_does_not_wait_for_ever(clock: ManualClock) -> None:
    class Stuck(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                await asyncio.Event().wait()
            return httpx.Response(404, json={"detail": "Dag with dag_id: 'x' not found"}, request=request)

    async with open_http(transport=Stuck()) as http:
        http.longest = 0.02
        with pytest.raises(Refused) as raised:
            await AirflowClient(http, "http://airflow.test", None, clock).trigger("x", RUN, CONF, None)
    assert raised.value.code == "dag_missing"
