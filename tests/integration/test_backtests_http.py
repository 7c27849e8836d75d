"""Backtests over HTTP: a question, a process of its own with bounds, and an answer that any replica gives."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.bootstrap.parts import Services
from app.replay.jobs import store
from app.replay.jobs.work import Backtests, Bounds
from app.replay.stored import pages_of
from tests.acceptance.lives import recorded
from tests.acceptance.world import World, policy
from tests.integration.api import opened, problem, token_of
from tests.integration.test_api_cli import ask as command
from tests.servers import TestServers

PATH = "/api/v1/backtests"
LONGER = {"policy": policy(cooldown="12h"), "compare": "live"}


@asynccontextmanager
async def lived(servers: TestServers, database: str, **more: Any) -> AsyncIterator[World]:
    """A gateway with a history of five hours: two alerts, and six runs of them."""
    async with World(servers, database, policy(cooldown="2h"), **more) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        await world.pass_by(hours=5, steps=5)
        await world.push(world.alert(model="churn"))
        yield world


def work(world: World, replica: int = 0, **bounds: Any) -> Backtests:
    """A worker of one replica with bounds of its own. Its process does not stand back: a busy machine would take minutes."""
    services: Services = world.services[replica]
    return Backtests(services.core, services.foundation.reader, [world.database], Bounds(**{"nice": 0} | bounds))


async def asked(world: World, **more: Any) -> str:
    answer = await world.post(PATH, LONGER | more)
    assert answer.status_code == 202, answer.text
    ident: str = answer.json()["id"]
    assert answer.headers["location"] == f"{PATH}/{ident}"
    return ident


async def answer_of(world: World, ident: str, *, to: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await world.get(f"{PATH}/{ident}", to=to)
    return found


def children() -> list[int]:
    """The processes of backtests that this process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            is_one = b"app.replay.jobs.child" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and is_one:
            found.append(int(entry.name))
    return found


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        while not (found := condition()):  # noqa: ASYNC110 (a process, not a task)
            await asyncio.sleep(0.01)
    return found


@asynccontextmanager
async def working(world: World, **bounds: Any) -> AsyncIterator[tuple[asyncio.Task[bool], Backtests, int]]:
    """A worker in the middle of a backtest, whose process stands still."""
    backtests = work(world, **bounds)
    step = asyncio.create_task(backtests.step())
    [child] = await until(children)
    os.kill(child, signal.SIGSTOP)
    yield step, backtests, child
    await until(lambda: not children())


async def test_the_answer_is_that_of_the_command_and_any_replica_gives_it(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    async with lived(servers, database, replicas=2) as world:
        ident = await asked(world)
        waiting = await answer_of(world, ident, to=1)
        assert (waiting["state"], waiting["result"], waiting["progress"]) == ("pending", None, None)
        assert await work(world, replica=1).step()
        assert not await work(world, replica=0).step()
        ended = await answer_of(world, ident)
        assert (ended["state"], ended["error"]) == ("succeeded", None)
        (tmp_path / "new.yaml").write_text(LONGER["policy"])
        printed = await command(world, "backtest", str(tmp_path / "new.yaml"), "--compare", "live", "--format", "json")
        assert ended["result"] == json.loads(printed)
        assert (ended["result"]["now"]["retrains"], ended["result"]["proposed"]["retrains"]) == (6, 2)
        chosen = {"since": "2h", "until": "2026-11-23T16:30:00Z", "route": "accuracy", "group": {"model": "churn"}}
        ident = await asked(world, compare=policy(cooldown="1h"), run="10m", **chosen)
        assert await work(world).step()
        ended = await answer_of(world, ident, to=1)
        assert ended["result"]["coverage"]["from"] == "2026-11-23T15:00:00Z", ended
        assert ended["result"]["now"]["retrains"] > ended["result"]["proposed"]["retrains"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"policy": policy(cooldown="soon")}, "policy_refused", "policy:9:15: routes.0.cooldown: "),
        ({"compare": policy("debouce: 1m")}, "policy_refused", "compare:12:5: routes.0.debouce: "),
        ({"policy": policy(cooldown="'${PATH}'")}, "policy_refused", "this one decides: write its value"),
        ({"since": "soon"}, "invalid", "write a duration such as 90d"),
        ({"since": "1h", "until": "2h"}, "invalid", "the window is empty"),
        ({"run": "1.5h"}, "invalid", "use whole numbers"),
        ({"compare": None, "route": "other"}, "invalid", "no policy here has this route"),
        ({"group": {"model": "a\x00b"}}, "invalid", "NUL"),
        ({"prometheus": "http://127.0.0.1:9090"}, "invalid", "#/prometheus"),
    ],
)
async def test_a_question_with_an_error_is_refused_at_once(
    servers: TestServers, database: str, more: dict[str, Any], code: str, words: str
) -> None:
    async with World(servers, database) as world:
        answer = problem(await world.post(PATH, LONGER | more), 422, code)
        assert words in str(answer["errors"])
        assert not await world.services[0].loop("backtests").step(), "nothing was kept"


async def test_secrets_of_the_policy_are_not_kept(servers: TestServers, database: str) -> None:
    secret = "a-very-good-password"
    async with World(servers, database) as world:
        await asked(world, policy=policy().replace("password: gateway", f"password: {secret}"))
        async with world.services[0].core.engine.connect() as conn:
            [kept] = (await conn.execute(text("SELECT asked FROM backtests"))).scalars()
    assert secret not in kept


async def test_a_token_has_one_open_backtest_and_others_have_theirs(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    ana, ben, admin = (token_of(tmp_path, scope) for scope in ("read", "read", "admin"))
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        client = world.clients[0]

        async def post(headers: dict[str, str]) -> httpx.Response:
            return await client.post(PATH, json=LONGER, headers=headers)

        first = (await post(ana)).json()
        refused = problem(await post(ana), 409, "backtest_open")
        assert refused["id"] == first["id"]
        assert first["id"] in refused["detail"]
        assert {answer.status_code for answer in await asyncio.gather(*(post(ben) for _ in range(5)))} == {202, 409}
        place = f"{PATH}/{first['id']}"
        assert (await client.get(place, headers=ben)).json()["state"] == "pending"
        problem(await client.delete(place, headers=ben), 403, "forbidden")
        assert (await client.delete(place, headers=ana)).json()["state"] == "cancelled"
        problem(await client.get(place, headers=ana), 404, "not_found")
        problem(await client.delete(place, headers=admin), 404, "not_found")
        second = (await post(ana)).json()
        assert (await client.delete(f"{PATH}/{second['id']}", headers=admin)).json()["state"] == "cancelled"


async def test_the_long_policies_of_one_token_do_not_hold_up_that_of_another(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    ana, ben = (token_of(tmp_path, "read") for _ in range(2))
    routes = (f"  - {{name: r{n}, match: [alertname=A{n}], dag: {{id: x}}, cooldown: soon}}\n" for n in range(300))
    long = LONGER | {"policy": policy() + "".join(routes)}
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        ended: list[str] = []

        async def post(name: str, body: dict[str, str], headers: dict[str, str], status: int) -> None:
            answer = await world.clients[0].post(PATH, json=body, headers=headers)
            assert answer.status_code == status, answer.text
            ended.append(name)

        sent = [asyncio.create_task(post("long", long, ana, 422)) for _ in range(6)]
        async with asyncio.timeout(30):
            while not ended:  # noqa: ASYNC110 (the others wait for their turns then)
                await asyncio.sleep(0.01)
        await asyncio.gather(*sent, post("short", LONGER, ben, 202))
        assert ended.index("short") <= 3, ended


BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"seconds": 0.0}, "It took more than 0 seconds: use `trigger-gateway backtest`"),
    ({"memory": 64 * 2**20}, "It needs more memory than the 64 MiB that it may take: "),
    ({"records": 3}, "The history has more than 3 records: "),
    ({"report": 100}, "The report has more than 0 MiB: name a route, "),
]
LONG_AGO = {"since": "2020-01-01T00:00Z", "until": "2020-02-01T00:00Z"}
#: What only the history shows to be wrong: the sentence names the key of the JSON.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"compare": "0123456789ab"}, "`compare` 0123456789ab: no policy of the history has this hash"),
    ({"route": "other"}, "`route` other: no policy here has this route"),
    (LONG_AGO, "choose another `since` or `until`."),
]


async def test_a_bound_or_what_the_replay_refuses_ends_it_with_a_sentence(servers: TestServers, database: str) -> None:
    async with lived(servers, database) as world:
        for bounds, error in BOUNDS:
            ident = await asked(world)
            assert await work(world, **bounds).step()
            ended = await answer_of(world, ident)
            assert (ended["state"], ended["result"]) == ("failed", None)
            assert ended["error"].startswith(error), ended["error"]
            assert children() == []
        for question, error in REFUSED:
            ident = await asked(world, **question)
            assert await work(world).step()
            assert error in (await answer_of(world, ident))["error"]


async def test_its_process_stands_back_for_others(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        await asked(world)
        step = asyncio.create_task(world.services[0].loop("backtests").step())
        [child] = await until(children)
        wanted = min(os.getpriority(os.PRIO_PROCESS, 0) + Bounds().nice, 19)
        await until(lambda: os.getpriority(os.PRIO_PROCESS, child) == wanted)
        os.kill(child, signal.SIGKILL)
        assert await step


async def test_a_process_that_dies_is_an_honest_end(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        ident = await asked(world)
        async with working(world) as (step, _, child):
            os.kill(child, signal.SIGKILL)
            assert await step
        assert "Its process ended without an answer (-9)" in (await answer_of(world, ident))["error"]


async def test_a_delete_ends_the_process_that_works_at_it(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        ident = await asked(world)
        async with working(world) as (step, _, _):
            assert (await answer_of(world, ident))["state"] == "running"
            answer = await world.clients[0].delete(f"{PATH}/{ident}")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
            assert await step


async def test_a_restart_begins_it_anew_and_ends_its_process(servers: TestServers, database: str) -> None:
    async with lived(servers, database, replicas=2) as world:
        ident = await asked(world)
        async with working(world) as (step, backtests, _):
            step.cancel()
            with pytest.raises(asyncio.CancelledError):
                await step
            await backtests.stop()
        assert (await answer_of(world, ident, to=1))["state"] == "pending"
        assert await work(world, replica=1).step()
        assert (await answer_of(world, ident))["state"] == "succeeded"


async def test_a_gateway_that_is_killed_leaves_it_to_another_one_twice_at_most(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        ident = await asked(world)
        engine = world.services[0].core.engine
        first = await store.claim(engine, world.clock.now())
        assert first is not None
        world.clock.pass_by(timedelta(seconds=29))
        assert await store.claim(engine, world.clock.now()) is None
        world.clock.pass_by(timedelta(seconds=2))
        second = await store.claim(engine, world.clock.now())
        assert second is not None
        await store.end(engine, first, world.clock.now(), error="It comes too late.")
        assert (await answer_of(world, ident))["state"] == "running"
        world.clock.pass_by(timedelta(seconds=31))
        assert await work(world).step()
        ended = await answer_of(world, ident)
        assert (ended["state"], ended["error"]) == (
            "failed",
            "The gateway ended 2 times while it worked at this backtest.",
        )


async def test_answers_are_kept_for_a_day_and_are_bounded_in_number_and_bytes(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        ident = await asked(world)
        assert await work(world, seconds=0.0).step()
        assert (await answer_of(world, ident))["expires_at"] == "2026-11-24T12:00:00Z"
        many = text("""
            INSERT INTO backtests (id, caller, asked, state, created_at, ended_at, attempts, done, total, size)
            SELECT gen_random_uuid(), :caller, '', 'succeeded', :now, :now, 1, 0, 0, :size
            FROM generate_series(1, :number)
        """)
        engine, now = world.services[0].core.engine, world.clock.now()

        async def left(caller: str, number: int, size: int) -> int:
            async with engine.begin() as conn:
                await conn.execute(many, {"caller": caller, "now": now, "size": size, "number": number})
            await store.trim(engine, now)
            async with engine.connect() as conn:
                counted = text("SELECT count(*) FROM backtests WHERE caller = :caller")
                return int((await conn.execute(counted, {"caller": caller})).scalar_one())

        assert await left("ana", 30, 1) == store.MOST_KEPT
        assert await left("ben", 20, store.MOST_BYTES // 4) <= 4
        world.clock.pass_by(timedelta(hours=25))
        assert not await work(world).step()
        answer = problem(await world.clients[0].get(f"{PATH}/{ident}"), 404, "not_found")
        assert "kept for a day" in answer["detail"]


async def test_the_pages_of_the_database_are_those_of_the_gateway_one_at_a_time(
    servers: TestServers, database: str
) -> None:
    async with lived(servers, database) as world:
        over_http = await recorded(world)

    def read() -> list[dict[str, Any]]:
        pages = pages_of(database, most=2)
        first = next(pages)
        assert len(first) <= 2
        found = first + [record for page in pages for record in page]
        next(pages_of(database, most=2))  # Whoever stops early leaves no connection behind.
        return found

    in_database = await asyncio.to_thread(read)
    assert [record["kind"] for record in in_database] == [record["kind"] for record in over_http]
    assert [record.get("id") for record in in_database] == [record.get("id") for record in over_http]
