"""One Airflow as the doctor sees it: each fault is named with what to do, and nothing is ever started."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from app.cli.doctor.airflow import Patient, examine_airflow
from app.cli.doctor.finding import Finding
from app.kit.airflow.client import AirflowClient, PasswordAuth
from app.kit.http import open_http
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer, page, timeout
from tests.unit.builders import policy

DAG = "DAG retrain"


async def examined(
    fake: FakeAirflow, clock: ManualClock, *routes: dict[str, Any], **options: Any
) -> list[tuple[str, Finding]]:
    """What is found, by what was looked at."""
    given = policy(*(routes or ({"name": "accuracy", "match": []},)))
    http = open_http(transport=fake.transport())
    login = PasswordAuth(fake.username, options.pop("password", fake.password))
    patient = Patient(
        airflow=given.airflow[0],
        client=AirflowClient(http, fake.url, login, clock, api=options.pop("api", "v2")),
        routes=given.routes,
        groups=options.pop("groups", {}),
        has_login=options.pop("has_login", True),
    )
    findings = await examine_airflow(patient, http, clock)
    assert fake.posts == [], "the doctor starts nothing"
    return [(finding.check.removeprefix("airflow default "), finding) for finding in findings]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fake(clock: ManualClock) -> FakeAirflow:
    fake = FakeAirflow(clock)
    fake.add_dag("retrain")
    date = clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    fake.disturb(answer(200, "<title>Airflow", headers={"date": date}), on="unknown", times=None)
    return fake


def levels(found: list[tuple[str, Finding]]) -> dict[str, str]:
    return {check: finding.level for check, finding in found}


async def test_a_healthy_airflow_is_told_line_by_line(fake: FakeAirflow, clock: ManualClock) -> None:
    found = levels(await examined(fake, clock))
    assert list(found) == ["reachable", "scheduler", "clock", "login", DAG]
    assert set(found.values()) == {"ok"}


async def test_an_airflow_2_is_examined_by_its_own_api(clock: ManualClock) -> None:
    fake = FakeAirflow(clock, api="v1")
    fake.add_dag("retrain")
    date = clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    fake.disturb(answer(200, "<title>Airflow", headers={"date": date}), on="unknown", times=None)
    found = levels(await examined(fake, clock, api="v1"))
    assert list(found) == ["reachable", "scheduler", "clock", "login", DAG], "its DAG processor is in the scheduler"
    assert set(found.values()) == {"ok"}
    fake.viewers.add(fake.username)
    [finding] = [f for check, f in await examined(fake, clock, api="v1") if check == DAG]
    assert (finding.level, finding.detail) == ("fail", "the gateway's user may not start runs of it")
    for api, other in (("v1", FakeAirflow(clock)), ("v2", fake)):
        [finding] = [finding for _, finding in await examined(other, clock, api=api)]
        assert finding.level == "fail"
        assert f"which is not Airflow's API {api}: check airflow.url and airflow.api" in finding.detail


def down(fake: FakeAirflow) -> None:
    fake.down = True


def scheduler_away(fake: FakeAirflow) -> None:
    fake.components["scheduler"] = "unhealthy"


def processor_away(fake: FakeAirflow) -> None:
    fake.components["dag_processor"] = None


def read_only(fake: FakeAirflow) -> None:
    fake.viewers.add(fake.username)


def no_import_errors(fake: FakeAirflow) -> None:
    fake.disturb(answer(403, {"detail": "Forbidden"}), on="import_errors")


def unclear(fake: FakeAirflow) -> None:
    fake.disturb(answer(400, {"detail": "Bad Request"}), on="trigger")


FAULTS: list[Any] = [
    pytest.param(down, "reachable", "fail", "Start Airflow", id="nobody-listens"),
    pytest.param(lambda f: f.disturb(timeout(), on="health"), "reachable", "fail", "url", id="no-answer-in-time"),
    pytest.param(lambda f: f.disturb(page(), on="health"), "reachable", "fail", "`url`", id="a-page-is-not-airflow"),
    pytest.param(scheduler_away, "scheduler", "fail", "airflow scheduler", id="no-scheduler"),
    pytest.param(processor_away, "DAG processor", "warn", "airflow dag-processor", id="no-dag-processor"),
    pytest.param(no_import_errors, "login", "warn", "may read import errors", id="import-errors-are-not-shown"),
    pytest.param(lambda f: f.dags.clear(), DAG, "fail", "Deploy the DAG retrain", id="the-dag-is-missing"),
    pytest.param(lambda f: f.break_dag("retrain"), DAG, "fail", "Repair the import error", id="the-dag-is-broken"),
    pytest.param(lambda f: f.pause("retrain"), DAG, "fail", "airflow dags unpause retrain", id="the-dag-is-paused"),
    pytest.param(read_only, DAG, "fail", "role that may read and trigger", id="the-user-may-only-read"),
    pytest.param(unclear, DAG, "warn", "role that may trigger", id="a-permission-that-cannot-be-told"),
    pytest.param(lambda f: f.disturb(answer(500), on="dag"), DAG, "fail", "log", id="a-fault-of-airflow"),
]


@pytest.mark.parametrize(("fault", "check", "level", "step"), FAULTS)
async def test_a_fault_is_named_alone_and_says_what_to_do(
    fake: FakeAirflow, clock: ManualClock, fault: Callable[[FakeAirflow], None], check: str, level: str, step: str
) -> None:
    fault(fake)
    found = await examined(fake, clock)
    assert {c: f for c, f in levels(found).items() if f != "ok"} == {check: level}
    (finding,) = (finding for c, finding in found if c == check)
    assert step in finding.next_step
    assert "then starts by itself" not in finding.next_step, "that is said of a trigger, and there is none"


async def test_a_wrong_password_is_told_once_and_not_repeated(fake: FakeAirflow, clock: ManualClock) -> None:
    found = await examined(fake, clock, password="not-this-one")
    assert levels(found)["login"] == "fail"
    assert DAG not in levels(found), "what the login forbids is not asked for"
    assert "Correct `auth`" in found[-1][1].next_step
    assert "not-this-one" not in str(found)
    assert len(fake.calls("login")) == 1


async def test_without_the_values_of_the_policy_nobody_logs_in(fake: FakeAirflow, clock: ManualClock) -> None:
    found = await examined(fake, clock, has_login=False)
    assert levels(found)["airflow default"] == "warn"
    assert fake.calls("login") == []


@pytest.mark.parametrize(
    ("apart", "level", "words"),
    [(0, "ok", "agrees"), (29, "ok", "agrees"), (45, "warn", "45 s ahead"), (-3600, "warn", "3600 s behind")],
)
async def test_a_clock_that_is_apart_is_told(clock: ManualClock, apart: int, level: str, words: str) -> None:
    fake = FakeAirflow(clock)
    fake.add_dag("retrain")
    date = (clock.now() + timedelta(seconds=apart)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    fake.disturb(answer(200, "", headers={"date": date}), on="unknown")
    (finding,) = (finding for check, finding in await examined(fake, clock) if check == "clock")
    assert finding.level == level
    assert words in finding.detail


@pytest.mark.parametrize("headers", [{}, {"date": "yesterday"}], ids=["none", "no-date"])
async def test_a_clock_that_is_not_told_is_a_warning(clock: ManualClock, headers: dict[str, str]) -> None:
    fake = FakeAirflow(clock)
    fake.add_dag("retrain")
    fake.disturb(answer(200, "", headers=headers), on="unknown")
    assert levels(await examined(fake, clock))["clock"] == "warn"


TEMPLATE = {"name": "each", "match": [], "group_by": ["model"], "dag": {"id": "retrain_{{group.model}}"}}


async def test_a_dag_with_placeholders_is_looked_at_for_each_group_seen(fake: FakeAirflow, clock: ManualClock) -> None:
    fake.add_dag("retrain_churn")
    groups = {"each": [{"model": "churn"}, {"model": "fraud"}]}
    found = levels(await examined(fake, clock, TEMPLATE, groups=groups))
    assert (found["DAG retrain_churn"], found["DAG retrain_fraud"]) == ("ok", "fail")


async def test_a_dag_with_placeholders_and_no_group_is_said_to_be_unknown(
    fake: FakeAirflow, clock: ManualClock
) -> None:
    found = await examined(fake, clock, TEMPLATE)
    assert found[-1][0] == "DAG retrain_{{group.model}}"
    assert found[-1][1].level == "warn"
    assert "no group was seen yet" in found[-1][1].detail


async def test_a_dag_of_two_routes_is_looked_at_once(fake: FakeAirflow, clock: ManualClock) -> None:
    both = ({"name": "accuracy", "match": []}, {"name": "drift", "match": []})
    assert [check for check, _ in await examined(fake, clock, *both)].count(DAG) == 1
    assert len(fake.calls("dag")) == 1


@pytest.mark.parametrize(
    ("spoil", "may"),
    [
        pytest.param(lambda f: None, True, id="a-user"),
        pytest.param(lambda f: f.viewers.add(f.username), False, id="a-viewer"),
        pytest.param(lambda f: f.disturb(answer(400, {}), on="trigger"), None, id="an-answer-that-says-nothing"),
    ],
)
async def test_whether_runs_may_be_started_is_found_out_without_starting_one(
    fake: FakeAirflow, clock: ManualClock, spoil: Callable[[FakeAirflow], None], may: bool | None
) -> None:
    spoil(fake)
    http = open_http(transport=fake.transport())
    client = AirflowClient(http, fake.url, PasswordAuth(fake.username, fake.password), clock)
    assert await client.may_trigger("retrain") is may
    assert fake.runs == {}
