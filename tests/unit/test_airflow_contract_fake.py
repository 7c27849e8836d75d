"""The fake Airflow keeps the contract that the real one keeps in tests/e2e/test_airflow_contract.py."""

from datetime import timedelta
from typing import Literal

import pytest

from app.kit.airflow.client import AirflowClient, DagRun
from app.kit.http import open_http
from tests.e2e import airflow_contract
from tests.e2e.airflow_contract import CHECKS, CHECKS_V1, Check, Site
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.proxies import PAGES, WORDINGS, Proxy


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_fake_keeps_the_contract(check: Check) -> None:
    await keep(check, "v2")


@pytest.mark.parametrize("check", CHECKS_V1, ids=lambda check: check.__name__)
async def test_the_fake_keeps_the_contract_as_an_airflow_2(check: Check) -> None:
    await keep(check, "v1")


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.parametrize("proxy", (WORDINGS | PAGES).values(), ids=(WORDINGS | PAGES).keys())
async def test_the_contract_does_not_depend_on_the_words_of_an_error(proxy: Proxy, api: Literal["v1", "v2"]) -> None:
    for check in CHECKS if api == "v2" else CHECKS_V1:
        try:
            await keep(check, api, proxy)
        except BaseException as error:
            error.add_note(check.__name__)
            raise


async def keep(check: Check, api: Literal["v1", "v2"], proxy: Proxy | None = None) -> None:
    clock = ManualClock()
    fake = FakeAirflow(
        clock,
        api=api,
        auto_finish=timedelta(seconds=2),
        outcome=lambda run: "failed" if run.dag_id == "always_fails" else "success",
    )
    fake.proxy = proxy or fake.proxy
    for dag_id in ("quick_dag", "always_fails"):
        fake.add_dag(dag_id)
    fake.add_dag("paused_dag", paused=True)
    fake.add_broken_file("broken_dag.py")

    async def until_ended(client: AirflowClient, dag_id: str, run_id: str) -> DagRun:
        clock.pass_by(timedelta(seconds=2))
        run = await client.run(dag_id, run_id)
        assert run is not None
        return run

    async with open_http(transport=fake.transport()) as http:
        await check(Site(http, fake.url, fake.username, fake.password, clock, until_ended, api))


def test_every_check_of_the_contract_is_in_its_table() -> None:
    defined = [
        value
        for name, value in vars(airflow_contract).items()
        if callable(value) and getattr(value, "__module__", "") == airflow_contract.__name__ and name.islower()
    ]
    assert [check for check in defined if check.__name__ != "new_run"] == CHECKS
