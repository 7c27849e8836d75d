"""Intake on a real Postgres: exact counts, conflicts tried again, culprits isolated."""

import asyncio
import random
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from app.bootstrap.parts import Services
from app.decide.alert import Alert
from app.kit.errors import NotDurable
from tests.acceptance.world import World, reasons
from tests.integration.submitting import counts, direct, metric, model, run, scalar, submit
from tests.servers import TestServers
from tests.sizes import seed, size

# Counts.


async def test_eight_replicas_at_once_count_every_notification_once_and_fire_each_group_once(
    servers: TestServers, database: str
) -> None:
    chance = random.Random(seed())
    number, mark = size(300, 6000), model()
    async with World(servers, database, replicas=8) as world:
        alerts = [direct(world, f"{mark}-{i}", model=f"{mark}-{i % 4}", instance=f"{i}") for i in range(12)]
        sent: Counter[str] = Counter()

        async def sender(services: Services) -> None:
            for _ in range(number // 8):
                some = chance.choices(alerts, k=chance.randrange(1, 6))
                moved = [_moved(a, chance) for a in some]
                answers = await submit(services, *moved)
                assert [a.alert.fingerprint for a in answers] == [a.fingerprint for a in some]
                sent.update(a.fingerprint for a in some)

        await asyncio.gather(*(sender(s) for s in world.services for _ in range(2)))
        assert await counts(world.services[0]) == dict(sent)
        assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == 4
        assert await scalar(world.services[0], "SELECT count(DISTINCT group_key) FROM triggers") == 4
        assert await scalar(world.services[0], "SELECT sum(decision_count) FROM alerts") <= sum(sent.values())


async def test_a_batch_that_waits_to_count_a_repeat_keeps_nobody_else_waiting(
    servers: TestServers, database: str
) -> None:
    """It has locked nothing else yet. Two that had, each what the other wants, would wait until Postgres ends one."""
    mark = model()
    async with World(servers, database) as world:
        services = world.services[0]
        repeated, changed = (direct(world, f"{mark}-{n}", model=f"{mark}-{n}") for n in "ab")
        await submit(services, repeated, changed)
        await submit(services, repeated)  # Now memory knows it.
        holder, other = await asyncpg.connect(database), await asyncpg.connect(database)
        async with holder.transaction():
            await holder.execute("SELECT FROM alerts WHERE fingerprint = $1 FOR UPDATE", repeated.fingerprint)
            both = asyncio.create_task(submit(services, repeated, replace(changed, severity="warning")))
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 (Postgres tells nobody.)
                await asyncio.sleep(0.01)
            await other.execute("SELECT FROM groups FOR UPDATE NOWAIT")
            await other.execute("SELECT FROM alerts WHERE fingerprint = $1 FOR UPDATE NOWAIT", changed.fingerprint)
        assert [a.decision.reason for a in await both] == ["duplicate", "duplicate"]
        assert await counts(services) == {repeated.fingerprint: 3, changed.fingerprint: 2}
        assert metric(services, "gateway_batch_retries_total") == 0
        await holder.close()
        await other.close()


def _moved(alert: Alert, chance: random.Random) -> Alert:
    """As another Prometheus replica tells it: seconds apart (inside of the reorder window it is one episode)."""
    shift = timedelta(seconds=chance.choice((0, 0, 0, -15, 30)))
    return Alert(
        alert.alert_id,
        alert.fingerprint,
        True,
        alert.severity,
        alert.starts_at + shift,
        None,
        alert.labels,
        {},
        alert.source,
    )


async def test_equal_notifications_in_one_body_are_one_row_with_their_number(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        alert = direct(world, "f", model=model())
        answers = await submit(world.services[0], *[alert] * 500)
        assert Counter((a.decision.action, a.decision.reason) for a in answers) == {
            ("fire", "new_alert"): 1,
            ("suppress", "duplicate"): 499,
        }
        assert await counts(world.services[0]) == {"f": 500}
        assert await scalar(world.services[0], "SELECT count(*) FROM decisions") == 2


# What Postgres refuses.


@pytest.mark.parametrize("culprits", [(0,), (99,), (41, 42), (0, 50, 99)], ids=str)
async def test_an_alert_that_postgres_cannot_store_is_quarantined_alone(
    servers: TestServers, database: str, culprits: tuple[int, ...]
) -> None:
    mark = model()
    async with World(servers, database) as world:
        alerts = [direct(world, f"{mark}-{i}", model=f"{mark}-{i % 3}", place=f"{i}") for i in range(100)]
        for at in culprits:
            alerts[at] = direct(world, f"{mark}-{at}", model="nul\x00", place=f"{at}")
        answers = await submit(world.services[0], *alerts)
        assert [a.alert.fingerprint for a in answers] == [a.fingerprint for a in alerts]
        invalid = [i for i, a in enumerate(answers) if (a.decision.action, a.decision.reason) == ("ignore", "invalid")]
        assert tuple(invalid) == culprits
        assert await counts(world.services[0]) == {f"{mark}-{i}": 1 for i in range(100) if i not in culprits}
        kept = (await world.get("/api/v1/quarantine"))["items"]
        assert len(kept) == len(culprits)
        assert all(item["source"] == "test" for item in kept)
        sent = {b64decode(item["body_base64"]) for item in kept}
        assert sent == {f"sent {mark}-{at}".encode() + b"\xff" for at in culprits}, "the bytes that came"
        assert all(item["error"].startswith("unsupported Unicode escape sequence") for item in kept)
        assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == 3


async def test_an_alert_that_meets_a_bug_of_ours_is_quarantined_alone(servers: TestServers, database: str) -> None:
    """No parser makes a time without a zone; whoever compares it raises what says nothing of Postgres."""
    mark = model()
    async with World(servers, database) as world:
        alerts = [direct(world, f"{mark}-{i}", model=f"{mark}-{i}", place=f"{i}") for i in range(20)]
        await submit(world.services[0], *alerts)
        alerts[13] = replace(alerts[13], starts_at=alerts[13].starts_at.replace(tzinfo=None))
        alerts[17] = direct(world, f"{mark}-new", model=f"{mark}-new")
        answers = await submit(world.services[0], *alerts)
        decided = [(a.decision.action, a.decision.reason) for a in answers]
        assert decided[13] == ("ignore", "invalid")
        assert decided[17] == ("fire", "new_alert")
        assert set(decided[:13] + decided[14:17] + decided[18:]) == {("suppress", "duplicate")}
        [kept] = (await world.get("/api/v1/quarantine"))["items"]
        assert kept["error"].startswith("a bug of the gateway: TypeError: can't compare")


HICCUPS = """
    CREATE FUNCTION hiccup() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('hiccups') <= {times} THEN RAISE EXCEPTION 'hiccup' USING ERRCODE = '{state}'; END IF;
        RETURN NEW;
    END $$
"""


async def hiccups(services: Services, state: str, times: int) -> None:
    """The first `times` inserts of an alert fail with that SQLSTATE; a sequence counts over rolled back transactions."""
    await run(
        services,
        "CREATE SEQUENCE hiccups",
        HICCUPS.format(times=times, state=state),
        "CREATE TRIGGER hiccup BEFORE INSERT ON alerts FOR EACH STATEMENT EXECUTE FUNCTION hiccup()",
    )


CONFLICTS = {"40001": "serialization", "40P01": "deadlock", "23505": "a row appeared", "55P03": "lock timeout"}


@pytest.mark.parametrize("state", [pytest.param(k, id=v) for k, v in CONFLICTS.items()])
async def test_a_conflict_is_tried_again_and_nobody_notices(servers: TestServers, database: str, state: str) -> None:
    async with World(servers, database) as world:
        await hiccups(world.services[0], state, 4)
        assert reasons(await world.push(world.alert(model=model()))) == [("fire", "new_alert")]
        assert metric(world.services[0], "gateway_batch_retries_total") == 4
        assert await scalar(world.services[0], "SELECT sum(count) FROM alerts") == 1


HELPLESS = {**CONFLICTS, "53100": "disk full", "53300": "too many connections", "57P03": "starting up", "XX000": "bug"}


@pytest.mark.parametrize("state", [pytest.param(k, id=v) for k, v in HELPLESS.items()])
async def test_what_does_not_go_away_is_503_with_nothing_half_done_and_then_goes_on(
    servers: TestServers, database: str, state: str
) -> None:
    async with World(servers, database) as world:
        await hiccups(world.services[0], state, 1_000)
        answer = await world.post("/api/v1/webhooks/alertmanager", {"alerts": [world.alert(model=model()).body()]})
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == "application/problem+json"
        for table in ("groups", "alerts", "decisions", "triggers", "outbox", "quarantine"):
            assert await scalar(world.services[0], f"SELECT count(*) FROM {table}") == 0
        await run(world.services[0], "DROP TRIGGER hiccup ON alerts")
        assert reasons(await world.push(world.alert(model=model()))) == [("fire", "new_alert")]


# Quarantine.


async def test_the_quarantine_counts_equal_bytes_and_lets_the_oldest_go(servers: TestServers, database: str) -> None:
    async with World(servers, database, quarantine_rows=5, quarantine_body=64) as world:
        good = world.alert(model=model()).body()
        for n in range(8):
            world.clock.pass_by(timedelta(seconds=1))
            bad = {"status": "firing", "n": n, "pad": "x" * 100}
            answer = await world.post("/api/v1/webhooks/alertmanager", {"alerts": [bad, good, bad]})
            assert answer.status_code == 202
            assert [q["index"] for q in answer.json()["quarantined"]] == [0, 2]
        answer = await world.post("/api/v1/webhooks/alertmanager", {"alerts": [bad, good]})
        assert answer.status_code == 202
        async with world.services[0].core.engine.connect() as conn:
            kept = (await conn.execute(text("SELECT * FROM quarantine ORDER BY last_at"))).mappings().all()
        assert [f'"n": {n}' in k["body"].decode() for n, k in enumerate(kept, start=3)] == [True] * 5
        assert [k["count"] for k in kept] == [2, 2, 2, 2, 3]
        assert all(len(k["body"]) == 64 < k["size"] for k in kept)


async def test_more_bad_alerts_in_one_body_than_the_quarantine_holds_cost_the_good_one_nothing(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, quarantine_rows=5) as world:
        bad = [{"n": n} for n in range(200)]
        answer = await world.post(
            "/api/v1/webhooks/alertmanager", {"alerts": [*bad, world.alert(model=model()).body()]}
        )
        assert answer.status_code == 202
        assert len(answer.json()["quarantined"]) == 200
        assert reasons(answer.json()["decisions"]) == [("fire", "new_alert")]
        assert await scalar(world.services[0], "SELECT count(*) FROM quarantine") == 5


async def test_refused_bodies_that_postgres_does_not_take_are_bounded_in_bytes(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One is being written, eleven or twelve of the largest wait, and the rest find no room in GATEWAY_BODY_BUDGET."""
    async with World(servers, database, intake_timeout=1.5) as world:
        holder = await asyncpg.connect(database)
        async with holder.transaction():
            await holder.execute("LOCK TABLE quarantine IN ACCESS EXCLUSIVE MODE")
            first = asyncio.create_task(world.post("/api/v1/webhooks/alertmanager", b"x"))
            while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 (Postgres tells nobody.)
                await asyncio.sleep(0.01)
            body = b"x" * world.services[0].settings.max_body
            answers = await asyncio.gather(*(world.post("/api/v1/webhooks/alertmanager", body) for _ in range(19)))
            assert (await first).status_code == 400
        await holder.close()
    errors = [r.__dict__["error"] for r in caplog.records if r.message == "a refused body could not be kept"]
    without_room = [a for a in answers if a.status_code == 503]
    assert all("GATEWAY_BODY_BUDGET" in a.json()["detail"] for a in without_room)
    assert {a.status_code for a in answers if a not in without_room} == {400}
    assert len(without_room) in (7, 8)
    assert len(errors) == 20 - len(without_room)


# Connections.


async def test_connections_killed_under_a_storm_cost_a_503_at_most_and_no_count(
    servers: TestServers, database: str
) -> None:
    chance, number = random.Random(seed()), size(120, 3000)
    mark = model()
    acknowledged: Counter[str] = Counter()
    attempted: Counter[str] = Counter()
    async with World(servers, database, replicas=2) as world:
        alerts = [direct(world, f"{mark}-{i}", model=f"{mark}-{i % 3}", n=f"{i}") for i in range(9)]

        async def sender(n: int) -> None:
            for _ in range(number // 6):
                alert = chance.choice(alerts)
                for _ in range(200):
                    attempted[alert.fingerprint] += 1
                    try:
                        await submit(world.services[n % 2], alert)
                    except NotDurable:
                        await asyncio.sleep(0)
                        continue
                    acknowledged[alert.fingerprint] += 1
                    break
                else:
                    raise AssertionError("200 attempts in a row failed")

        killer = await asyncpg.connect(database)
        senders = asyncio.gather(*(sender(n) for n in range(6)))
        killed, next_kill = 0, 3
        while not senders.done():
            if acknowledged.total() >= next_kill:  # Paced by progress: on a slow machine as on a fast one.
                next_kill = acknowledged.total() + chance.randrange(1, 10)
                killed += await killer.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND application_name = 'trigger-gateway'"
                )
            await asyncio.wait([senders], timeout=0.005)
        await senders
        await killer.close()
        await world.services[0].core.engine.dispose()  # Its pool may hold connections that were killed last.
        found = await counts(world.services[0])
        assert killed > number // 60
        for fingerprint, count in found.items():
            assert acknowledged[fingerprint] <= count <= attempted[fingerprint]
        assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == 3
