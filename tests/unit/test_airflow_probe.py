"""The probe of an Airflow ends with everything that it began."""

import asyncio
from datetime import timedelta

import pytest

from app.kit.airflow.probe import look
from tests.fakes.faults import meanwhile
from tests.unit.airflow_site import Site


async def test_a_bug_in_one_read_leaves_no_task_behind() -> None:
    site = Site()
    dags = ["d", *(f"d{number}" for number in range(9))]

    def bug() -> None:
        raise ValueError("a bug")

    site.fake.disturb(meanwhile(bug), on=lambda call: call.path.endswith("/dags/d"))
    before = asyncio.all_tasks()
    with pytest.raises(ExceptionGroup):
        await look("a", site.client, dags, site.clock.now(), timedelta(hours=1))
    assert asyncio.all_tasks() == before
