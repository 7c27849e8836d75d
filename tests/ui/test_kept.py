"""While alerts wait to be written, a page is made once a second for the same person. At any other time it is made anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from app.decide.state import group_key
from app.kit.clock import SystemClock, monotonic
from app.web.tokens import create_token
from tests.acceptance.world import POLICY, World
from tests.servers import TestServers

SWITCHES = """
deadman:
  - {name: nightly, expect: heartbeat, every: 1d, grace: 1h, receivers: []}
"""
GROUP = f"/ui/groups/{group_key('accuracy', 'live', {'model': 'churn'})}"
WAITS = b'[{"alert_id": "ModelAccuracyLow", "severity": "critical", "timestamp": "2026-01-01T00:00:00Z"}]'


@dataclass
class Office:
    """A gateway with one trigger, and people with tokens."""

    world: World
    tokens: dict[str, str]

    async def page(self, name: str, path: str = GROUP) -> str:
        headers = {"Accept": "text/html", "Authorization": f"Bearer {self.tokens[name]}"}
        answer = await self.world.clients[0].get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def post(self, path: str, **more: object) -> int:
        headers = {"Authorization": f"Bearer {self.tokens['boss']}"}
        answer = await self.world.clients[0].post(path, headers=headers, **more)  # type: ignore[arg-type]
        return answer.status_code

    async def happens(self, what: str) -> None:
        """Something that the pages show."""
        async with self.world.services[0].core.engine.begin() as conn:
            await conn.execute(text("UPDATE triggers SET detail = :what"), {"what": what})

    @asynccontextmanager
    async def alerts_waiting(self) -> AsyncIterator[None]:
        """An alert cannot be written meanwhile."""
        holder = await asyncpg.connect(self.world.database)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE alerts IN EXCLUSIVE MODE")
                sent = asyncio.create_task(self.post("/api/v1/alerts", content=WAITS))
                async with asyncio.timeout(20):
                    while not self.world.services[0].intake.batcher.at_work:  # noqa: ASYNC110 (It rings no bell.)
                        await asyncio.sleep(0.01)
                yield
            assert await sent in (202, 503)
        finally:
            await holder.close()


@pytest.fixture
async def office(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[Office]:
    file, now = tmp_path / "tokens", SystemClock().now()
    scopes = {"ana": ["read", "trigger"], "bo": ["read"], "boss": ["admin"]}
    tokens = {name: create_token(file, mine, name, now) for name, mine in scopes.items()}
    async with World(servers, database, POLICY + SWITCHES, tokens_file=file) as world:
        world.airflow.add_dag("retrain_model")
        world.clients[0].headers["Authorization"] = f"Bearer {tokens['boss']}"
        await world.push(world.alert(model="churn"))
        await world.settle()
        del world.clients[0].headers["Authorization"]
        yield Office(world, tokens)


async def test_without_alerts_that_wait_each_page_is_made_anew(office: Office) -> None:
    for what in ("one thing", "another"):
        await office.happens(what)
        assert what in await office.page("ana")


async def test_while_alerts_wait_the_same_person_sees_the_same_page_for_a_second(office: Office) -> None:
    async with office.alerts_waiting():
        began = monotonic()
        first = await office.page("ana")
        await office.happens("it went on")
        second = await office.page("ana")
        assert first == second or monotonic() - began > 1
        assert "it went on" in await office.page("ana", f"{GROUP}?days=7"), "another address is another page"
        async with asyncio.timeout(20):
            while "it went on" not in await office.page("ana"):  # noqa: ASYNC110 (Time passes.)
                await asyncio.sleep(0.05)
        assert monotonic() - began > 1
    await office.happens("it ended")
    assert "it ended" in await office.page("ana"), "no alert waits"


async def test_nobody_sees_the_page_of_somebody_else(office: Office) -> None:
    async with office.alerts_waiting():
        for _ in range(2):
            pages = {name: await office.page(name) for name in office.tokens}
            assert {name for name, page in pages.items() if "Start a run" in page} == {"ana", "boss"}
            assert all(f"<span>{name}</span>" in page for name, page in pages.items())


async def test_who_acts_on_a_page_sees_what_has_changed(office: Office) -> None:
    async with office.alerts_waiting():
        await office.page("boss")
        await office.happens("it was forgotten")
        assert await office.post("/ui/actions/forget", data={"switch": "nightly"}) == 303
        assert "it was forgotten" in await office.page("boss")


async def test_a_lane_of_the_fleet_shows_what_has_changed(office: Office) -> None:
    """Also one in which nothing goes on, which is drawn once for a while."""
    await office.world.pass_by(hours=2)
    office.world.clients[0].headers["Authorization"] = f"Bearer {office.tokens['boss']}"
    began = office.world.clock.now()
    await office.world.push(office.world.alert(model="churn", ago=timedelta(hours=2)).resolved(began))
    del office.world.clients[0].headers["Authorization"]
    first = await office.page("ana", "/ui?label=churn")
    assert 'data-word="succeeded"' in first
    for what in ("it was looked at", "it was looked at again"):
        await office.happens(what)
        assert f"succeeded: {what}" in await office.page("ana", "/ui?label=churn")
    office.world.clock.pass_by(timedelta(days=31))
    later = await office.page("ana", "/ui?label=churn")
    assert 'data-kind="run"' not in later, "it lies before the lane"


async def test_many_people_at_once_get_one_page_that_is_made_once(office: Office) -> None:
    async with office.alerts_waiting():
        pages = await asyncio.gather(*(office.page("ana") for _ in range(10)))
        assert len(set(pages)) == 1
