"""Each call to Airflow, and each way in which it can go wrong, has one meaning for the relay."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.kit.airflow.client import AirflowClient, PasswordAuth, run_is_ours
from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import open_http
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, Reply, answer, busy, drop, limbo, page, redirect, refuse, timeout
from tests.fakes.proxies import WORDINGS, Proxy, rewording

RUN = "gateway__accuracy__0198"
CONF = {"gateway": {"trigger_id": "0198", "route": "accuracy"}, "dataset": "s3://x"}
Call = Callable[[AirflowClient], Awaitable[Any]]


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


def trigger(client: AirflowClient) -> Awaitable[Any]:
    return client.trigger("retrain_model", RUN, CONF, "why")


def read(client: AirflowClient) -> Awaitable[Any]:
    return client.run("retrain_model", RUN)


def end(client: AirflowClient) -> Awaitable[Any]:
    return client.fail_run("retrain_model", RUN)


async def test_a_trigger_is_one_post_with_a_null_logical_date(client: AirflowClient, fake: FakeAirflow) -> None:
    run = await client.trigger("retrain_model", RUN, CONF, "why")
    assert fake.posts == [{"dag_run_id": RUN, "logical_date": None, "conf": CONF, "note": "why"}]
    assert (run.dag_id, run.dag_run_id, run.state, run.conf) == ("retrain_model", RUN, "queued", CONF)
    assert (run.queued_at, run.started_at, run.ended_at) == (fake.clock.now(), None, None)
    assert run_is_ours(run, "0198")


async def test_a_second_trigger_of_the_same_id_is_a_conflict_to_be_read_back(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    await trigger(client)
    with pytest.raises(Ambiguous) as raised:
        await trigger(client)
    assert raised.value.code == "conflict"
    assert len(fake.posts) == len(fake.runs) == 1
    assert (await client.run("retrain_model", RUN)) is not None


TEXT = {"content-type": "text/plain"}
# What a fault means: for the trigger, for the reading of a run, for the failing of one; and the code of all three.
FAULTS = [
    pytest.param(refuse(), Unreachable, Unreachable, Unreachable, "connect", id="refused"),
    pytest.param(timeout(), Ambiguous, Unreachable, Ambiguous, "timeout", id="timeout before the commit"),
    pytest.param(timeout(after_commit=True), Ambiguous, Unreachable, Ambiguous, "timeout", id="timeout after it"),
    pytest.param(limbo(), Ambiguous, Unreachable, Ambiguous, "timeout", id="timeout long before it"),
    pytest.param(drop(), Ambiguous, Unreachable, Ambiguous, "disconnected", id="dropped before the commit"),
    pytest.param(drop(after_commit=True), Ambiguous, Unreachable, Ambiguous, "disconnected", id="dropped after it"),
    pytest.param(answer(500), Ambiguous, Unreachable, Ambiguous, "server_error", id="500"),
    pytest.param(answer(500, after_commit=True), Ambiguous, Unreachable, Ambiguous, "server_error", id="500 after it"),
    pytest.param(answer(503, "busy"), Ambiguous, Unreachable, Ambiguous, "server_error", id="503 of a proxy"),
    pytest.param(busy(), Unreachable, Unreachable, Unreachable, "busy", id="429"),
    pytest.param(page(), Ambiguous, Refused, Ambiguous, "not_airflow", id="a page"),
    pytest.param(page(404), Refused, None, Refused, "not_airflow", id="one page with 404"),
    pytest.param(answer(404, "", headers=TEXT), Refused, None, Refused, "not_airflow", id="one empty 404"),
    pytest.param(redirect("http://sso.test/"), Refused, Refused, Refused, "not_airflow", id="a redirect"),
    pytest.param(
        answer(404, {"detail": "Not Found"}), Refused, None, Refused, "not_airflow", id="one 404 of a framework"
    ),
    pytest.param(answer(404, {"error": "no"}), Refused, None, Refused, "not_airflow", id="one unknown route"),
    pytest.param(page(409), Ambiguous, Refused, Ambiguous, "", id="a page with 409"),
    pytest.param(answer(403, {"detail": "Forbidden"}), Refused, Refused, Refused, "forbidden", id="403"),
    pytest.param(answer(401, {"detail": "Token Expired"}), None, None, None, "", id="one 401 is got over"),
    pytest.param(answer(422, {"detail": []}), Rejected, Rejected, Rejected, "bad_request", id="422"),
]


@pytest.mark.parametrize(("fault", "on_trigger", "on_read", "on_end", "code"), FAULTS)
async def test_what_goes_wrong_has_one_meaning_for_each_call(
    client: AirflowClient,
    fake: FakeAirflow,
    fault: Fault,
    on_trigger: type[TargetError] | None,
    on_read: type[TargetError] | None,
    on_end: type[TargetError] | None,
    code: str,
) -> None:
    calls: list[tuple[str, Call, type[TargetError] | None]] = [
        ("trigger", trigger, on_trigger),
        ("run", read, on_read),
        ("fail_run", end, on_end),
    ]
    for op, call, kind in calls:
        fake.disturb(fault, on=op)
        if kind is None:
            assert (await call(client)).dag_run_id == RUN
            continue
        with pytest.raises(TargetError) as raised:
            await call(client)
        assert (op, type(raised.value), raised.value.code) == (op, kind, code or raised.value.code)
        if ("retrain_model", RUN) not in fake.runs:
            await trigger(client)
    assert fake.faults_pending == 0
    assert len(fake.runs) == len(fake.posts) == 1


@pytest.mark.parametrize(
    ("fault", "there"),
    [
        pytest.param(timeout(), False, id="a timeout before the commit"),
        pytest.param(timeout(after_commit=True), True, id="a timeout after it"),
        pytest.param(drop(after_commit=True), True, id="a broken connection after it"),
        pytest.param(answer(500, after_commit=True), True, id="500 after it"),
        pytest.param(answer(503), False, id="503 before it"),
    ],
)
async def test_reading_back_settles_an_ambiguous_trigger(
    client: AirflowClient, fake: FakeAirflow, fault: Fault, there: bool
) -> None:
    fake.disturb(fault, on="trigger")
    with pytest.raises(Ambiguous):
        await trigger(client)
    assert (await client.run("retrain_model", RUN) is not None) is there


async def test_a_trigger_that_lands_late_is_met_by_the_conflict_of_the_next(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    fake.disturb(limbo(), on="trigger")
    with pytest.raises(Ambiguous):
        await trigger(client)
    assert await client.run("retrain_model", RUN) is None
    fake.land()
    with pytest.raises(Ambiguous) as raised:
        await trigger(client)
    assert raised.value.code == "conflict"
    assert len(fake.runs) == 1


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("7", 7.0), ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0), ("soon", None)]
)
async def test_the_wait_that_airflow_asks_for_is_handed_on(
    client: AirflowClient, fake: FakeAirflow, retry_after: str, seconds: float | None
) -> None:
    fake.disturb(busy(retry_after), on="trigger")
    with pytest.raises(Unreachable) as raised:
        await trigger(client)
    assert raised.value.retry_after == seconds


async def test_an_airflow_that_is_down_got_nothing_and_takes_all_when_it_is_back(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    fake.down = True
    calls: list[Call] = [trigger, read, end, AirflowClient.health, AirflowClient.import_errors]
    for call in calls:
        with pytest.raises(Unreachable):
            await call(client)
    assert fake.posts == []
    fake.down = False
    assert (await trigger(client)).state == "queued"


async def test_a_run_is_read_in_each_state(client: AirflowClient, fake: FakeAirflow) -> None:
    assert await client.run("retrain_model", RUN) is None
    await trigger(client)
    fake.start_run(RUN)
    running = await client.run("retrain_model", RUN)
    assert running is not None
    assert (running.state, running.started_at) == ("running", fake.clock.now())
    for state in ("success", "failed"):
        fake.finish(RUN, state)
        ended = await client.run("retrain_model", RUN)
        assert ended is not None
        assert (ended.state, ended.ended_at) == (state, fake.clock.now())


NOBODYS = (
    WORDINGS | {name: rewording(page, 404) for name, page in (("a page", "<html>"), ("an empty body", ""))}
).items()


@pytest.mark.parametrize("proxy", [pytest.param(proxy, id=name) for name, proxy in NOBODYS])
class TestWhatIsThereDecidesWhateverTheWordsOfA404:
    """`proxy` words every error."""

    async def test_no_such_run(self, client: AirflowClient, fake: FakeAirflow, proxy: Proxy) -> None:
        fake.proxy = proxy
        assert await read(client) is None
        with pytest.raises(Refused) as raised:
            await end(client)
        assert raised.value.code == "run_missing"

    async def test_no_such_dag_and_so_no_such_run(self, client: AirflowClient, fake: FakeAirflow, proxy: Proxy) -> None:
        del fake.dags["retrain_model"]
        fake.proxy = proxy
        assert await read(client) is None
        calls: list[Call] = [
            trigger,
            lambda asked: asked.dag("retrain_model"),
            lambda asked: asked.ended_runs("retrain_model", fake.clock.now(), 10),
        ]
        for call in calls:
            with pytest.raises(Refused) as raised:
                await call(client)
            assert raised.value.code == "dag_missing"

    async def test_a_dag_that_went_stale(self, client: AirflowClient, fake: FakeAirflow, proxy: Proxy) -> None:
        fake.proxy = proxy
        fake.break_dag("retrain_model")
        with pytest.raises(Refused) as raised:
            await trigger(client)
        assert raised.value.code == "dag_broken"
        assert await read(client) is None

    async def test_not_airflow(self, client: AirflowClient, fake: FakeAirflow, proxy: Proxy) -> None:
        """Somebody else answers 404 to everything."""
        await trigger(client)
        fake.proxy = lambda call, _reply: proxy(call, Reply(404))
        calls: list[Call] = [trigger, read, end, lambda asked: asked.dag("retrain_model")]
        for call in calls:
            with pytest.raises(Refused) as raised:
                await call(client)
            assert raised.value.code == "not_airflow"


async def test_a_404_while_airflow_restarts_is_read_again(client: AirflowClient, fake: FakeAirflow) -> None:
    await trigger(client)
    fake.disturb(answer(404, {"message": "no Route matched with those values"}), on="run")
    assert (await read(client)).dag_run_id == RUN
    assert [seen.call.op for seen in fake.seen[-3:]] == ["run", "dag", "run"]


@pytest.mark.parametrize("op", ["dag", "list_dags"])
async def test_while_it_cannot_be_asked_what_is_there_a_404_means_nothing(
    client: AirflowClient, fake: FakeAirflow, op: str
) -> None:
    del fake.dags["retrain_model"]
    fake.disturb(answer(503), on=op)
    with pytest.raises(Unreachable) as raised:
        await read(client)
    assert raised.value.code == "server_error"


async def test_a_404_to_a_trigger_of_a_dag_that_is_there_names_what_stands_in_between(
    client: AirflowClient, fake: FakeAirflow
) -> None:
    fake.disturb(answer(404, {"detail": "Dag not found"}), on="trigger")
    with pytest.raises(Refused, match="what stands in between") as raised:
        await trigger(client)
    assert raised.value.code == "not_airflow"
    assert fake.posts == []


@pytest.mark.parametrize("words", ["Dag has import errors", "El DAG no se puede importar", ""])
@pytest.mark.parametrize(
    ("broken", "kind", "code"),
    [(True, Refused, "dag_broken"), (False, Rejected, "bad_request")],
    ids=["broken", "fine"],
)
async def test_a_400_to_a_trigger_is_for_good_only_when_the_dag_is_fine(
    client: AirflowClient, fake: FakeAirflow, words: str, broken: bool, kind: type[TargetError], code: str
) -> None:
    if broken:
        fake.break_dag("retrain_model")
    fake.disturb(answer(400, {"detail": words}), on="trigger")
    with pytest.raises(kind) as raised:
        await trigger(client)
    assert raised.value.code == code


@pytest.mark.parametrize(("status", "code"), [(400, "bad_request"), (404, "dag_missing")])
@pytest.mark.parametrize("fault", [timeout(), answer(500), answer(400)], ids=["timeout", "500", "400"])
async def test_a_trigger_whose_refusal_cannot_be_explained_is_tried_again(
    client: AirflowClient, fake: FakeAirflow, status: int, code: str, fault: Fault
) -> None:
    fake.disturb(answer(status, {"detail": "no"}), on="trigger")
    fake.disturb(fault, on="dag")
    with pytest.raises(Refused) as raised:
        await trigger(client)
    assert raised.value.code == code


ANOTHER_RUN = {"dag_id": "retrain_model", "dag_run_id": "another", "state": "queued"}


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        pytest.param(trigger, Ambiguous, id="trigger"),
        pytest.param(read, Refused, id="run"),
        pytest.param(end, Ambiguous, id="fail_run"),
    ],
)
async def test_an_answer_about_another_run_is_not_taken_for_ours(
    client: AirflowClient, fake: FakeAirflow, call: Call, kind: type[TargetError]
) -> None:
    fake.disturb(answer(200, ANOTHER_RUN), on=lambda seen: seen.op != "login")
    with pytest.raises(kind):
        await call(client)


async def test_a_queued_run_is_set_to_failed(client: AirflowClient, fake: FakeAirflow) -> None:
    await trigger(client)
    run = await client.fail_run("retrain_model", RUN)
    assert (run.state, run.ended_at) == ("failed", fake.clock.now())
    (seen,) = fake.calls("fail_run")
    assert (seen.call.body, seen.call.query) == ({"state": "failed"}, {"update_mask": "state"})


async def test_a_run_that_is_not_there_cannot_be_failed(client: AirflowClient) -> None:
    with pytest.raises(Refused) as raised:
        await client.fail_run("retrain_model", RUN)
    assert raised.value.code == "run_missing"


@pytest.mark.parametrize("status", ["unhealthy", None])
@pytest.mark.parametrize("component", ["metadatabase", "scheduler", "dag_processor", "triggerer"])
async def test_health_is_read_from_the_body_since_airflow_answers_200_with_a_dead_scheduler(
    client: AirflowClient, fake: FakeAirflow, component: str, status: str | None
) -> None:
    fake.components[component] = status
    health = await client.health()
    assert getattr(health, component) == status
    assert health.can_run is (component not in {"metadatabase", "scheduler"})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(page(), Refused), (answer(200, {"status": "ok"}), Refused), (answer(503), Unreachable), (timeout(), Unreachable)],
    ids=["a page", "another JSON", "503", "timeout"],
)
@pytest.mark.parametrize("op", ["health", "import_errors", "dag"])
async def test_a_question_that_is_not_answered_says_so(
    client: AirflowClient, fake: FakeAirflow, op: str, fault: Fault, kind: type[TargetError]
) -> None:
    ask: dict[str, Call] = {
        "health": AirflowClient.health,
        "import_errors": AirflowClient.import_errors,
        "dag": lambda asked: asked.dag("retrain_model"),
    }
    fake.disturb(fault, on=op)
    with pytest.raises(kind):
        await ask[op](client)


async def test_import_errors_are_bounded_and_the_newest_first(client: AirflowClient, fake: FakeAirflow) -> None:
    for n in range(150):
        fake.add_broken_file(f"broken_{n}.py")
    assert len(await client.import_errors()) == 100
    assert fake.calls("import_errors")[0].call.query == {"limit": "100", "order_by": "-timestamp"}
