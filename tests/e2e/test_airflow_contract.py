"""The real Airflow keeps the contract that the fake is held to in tests/unit/test_airflow_contract_fake.py."""

import asyncio
from typing import Protocol

import pytest

from app.kit.airflow.client import AirflowClient, DagRun
from app.kit.clock import SystemClock
from app.kit.http import open_http
from tests.e2e.airflow_contract import CHECKS, Check, Site

RUN_SECONDS = 120  # A run takes 2 s on an idle machine; this is for a busy one.
POLL_SECONDS = 0.25


class RealAirflow(Protocol):
    url: str
    username: str
    password: str


async def until_ended(client: AirflowClient, dag_id: str, run_id: str) -> DagRun:
    """Poll, as Airflow offers nothing better that is stable."""
    async with asyncio.timeout(RUN_SECONDS):
        while True:
            run = await client.run(dag_id, run_id)
            if run is not None and run.state in {"success", "failed"}:
                return run
            await asyncio.sleep(POLL_SECONDS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_real_airflow_keeps_the_contract(real_airflow: RealAirflow, check: Check) -> None:
    async with open_http(read=30.0) as http:
        await check(
            Site(
                http,
                real_airflow.url.rstrip("/"),
                real_airflow.username,
                real_airflow.password,
                SystemClock(),
                until_ended,
            )
        )
