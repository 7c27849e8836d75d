"""The real Airflow 2 keeps the contract that the fake is held to in tests/unit/test_airflow_contract_fake.py."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.clock import SystemClock
from app.kit.embedded import Postgres
from app.kit.http import open_http
from demo.environment import repository
from demo.processes import ServerError
from tests.e2e.airflow2 import AIRFLOW_2, Airflow2
from tests.e2e.airflow_contract import CHECKS_V1, Check, Site
from tests.e2e.processes import lacking
from tests.e2e.test_airflow_contract import until_ended

DAGS = ("quick_dag", "always_fails", "paused_dag")


@pytest.fixture(scope="module")
def real_airflow2(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow2]:
    """Airflow 2 with the DAGs of tests/e2e/dags, as its own imports spell them."""
    base = tmp_path_factory.mktemp("airflow2")
    dags = base / "dags"
    dags.mkdir()
    for name in (*DAGS, "broken_dag"):
        text = Path(__file__).with_name("dags").joinpath(f"{name}.py").read_text()
        (dags / f"{name}.py").write_text(text.replace("airflow.sdk", "airflow.decorators"))
    try:
        environment = asyncio.run(AIRFLOW_2.install(repository(), print))
    except ServerError as error:
        lacking(f"Airflow 2 cannot be installed: {error}")
    airflow = Airflow2(
        environment=environment,
        home=base / "home",
        dags_folder=dags,
        database_url=postgres.create_database("airflow2"),
    )
    try:
        asyncio.run(airflow.start(*DAGS))
        yield airflow
    finally:
        asyncio.run(airflow.stop())


@pytest.mark.parametrize("check", CHECKS_V1, ids=lambda check: check.__name__)
async def test_the_real_airflow_2_keeps_the_contract(real_airflow2: Airflow2, check: Check) -> None:
    async with open_http(read=30.0) as http:
        who = (real_airflow2.username, real_airflow2.password)
        await check(Site(http, real_airflow2.url, *who, SystemClock(), until_ended, "v1"))
