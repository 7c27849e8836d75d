"""`make ha-drill`: the primary is killed under load, the standby promoted, and what was acknowledged is there; then a DELETE
that nobody wanted is undone from the archive. `make test` runs it small and without MLflow; PROVE=1 whole."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.kit.clock import SystemClock, monotonic
from app.kit.embedded import start_valkey
from app.kit.embedded.processes import free_ports
from app.kit.errors import TargetError
from app.kit.http import Http, open_http
from app.tables import migrate
from demo.environment import MLFLOW
from demo.mlflow import QUIET
from demo.processes import clean_environment, launch, stop, wait_until
from tests.e2e.gateway import Gateway
from tests.ha.cluster import Node, mlflow_multi_host, multi_host
from tests.ha.load import Load
from tests.sizes import PROVE, size
from tests.spool.mlflow import ROOT

pytestmark = pytest.mark.slow

RECORDS = size(150, 5000)  # acknowledged by the gateway before the kill, and as many again after it
RUNS = 100  # the same of MLflow
ROUNDS = size(1, 3)  # failovers; from the second on the killed one has come back as the standby
POLICY = """\
version: 1
airflow: [{name: default, url: "http://127.0.0.1:1", auth: {username: a, password: b}}]
routes: [{name: drill, match: ['alertname="HaDrill"'], group_by: [model], dag: {id: retrain_model}}]
"""


def say(line: str) -> None:
    print(f"ha-drill: {line}")


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that the unprivileged PostgreSQL can enter."""
    folder = Path(tempfile.mkdtemp(prefix="ha-drill-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(base: Path) -> Iterator[list[Node]]:
    """A primary, its synchronous standby, and a place for what is restored."""
    three = [Node(base, name, durable=PROVE) for name in ("alpha", "beta", "restored")]
    primary, standby, _ = three
    try:
        primary.make()
        primary.start()
        standby.copy_of(primary, standby=True)
        standby.start()
        asyncio.run(synchronous(primary, standby))
        yield three
    finally:
        for node in three:
            node.kill()


async def wait_for_standbys(node: Node, names: str) -> None:
    await node.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await node.sql("SELECT pg_reload_conf()")


async def synchronous(primary: Node, standby: Node) -> None:
    """Nothing is acknowledged from now on that the standby has not on its disk; each names the other, as in the chapter."""
    await wait_for_standbys(primary, standby.name)
    await wait_for_standbys(standby, primary.name)

    async def both() -> bool:
        rows = await primary.sql("SELECT sync_state FROM pg_stat_replication")
        return [row["sync_state"] for row in rows] == ["sync"]

    await wait_until("the standby to be synchronous", both, within=60)


@pytest.fixture
def gateway(nodes: list[Node], base: Path) -> Iterator[Gateway]:
    """A real `trigger-gateway serve` that knows both nodes by one URL."""
    asyncio.run(nodes[0].sql("CREATE DATABASE gateway"))
    url = multi_host(nodes[:2], "gateway")
    asyncio.run(migrate.upgrade(url))
    valkey = start_valkey(base / "valkey")
    variables = {"GATEWAY_DATABASE_URL": url, "GATEWAY_REDIS_URL": valkey.url, "GATEWAY_MAX_ALERTS": "10000"}
    server = Gateway(folder=base / "gateway", port=free_ports(1)[0], policy=POLICY, variables=variables)
    server.start()
    yield server
    server.stop()
    valkey.stop()


def alerts(gateway: Gateway) -> Load:
    """One alert a record, each of a model of its own: each one has to be in the history, and to have one trigger."""

    async def write(http: Http, number: int) -> str | None:
        body = {"alert_id": "HaDrill", "severity": "critical", "timestamp": SystemClock().now().isoformat()}
        body |= {"labels": {"model": f"m{number}"}}  # type: ignore[dict-item]
        answer = await http.request("POST", f"{gateway.url}/api/v1/alerts", json=body)
        return f"m{number}" if answer.status == 202 else None

    return Load("gateway", write)


async def everything(http: Http, url: str) -> list[dict[str, Any]]:
    """Every item of a list of the gateway."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await http.request("GET", f"{url}?limit=1000{cursor}")
        assert answer.status == 200, answer.body
        found += answer.body["items"]
        if answer.body["next"] is None:
            return found
        cursor = f"&cursor={answer.body['next']}"


async def check_gateway(gateway: Gateway, load: Load) -> None:
    async with open_http() as http:
        history = await everything(http, f"{gateway.url}/api/v1/alerts")
        triggers = await everything(http, f"{gateway.url}/api/v1/triggers")
    models = [alert["labels"]["model"] for alert in history]
    assert load.names <= set(models)
    assert len(models) == len(set(models))
    fired = [trigger["group"]["model"] for trigger in triggers]
    assert len(fired) == len(set(fired))
    assert load.names <= set(fired)
    say(f"gateway: {len(load.names)} alerts acknowledged, {len(load.names & set(models))} found, one trigger each")


# -- MLflow, only in the whole drill ------------------------------------------------------------------------------------


@asynccontextmanager
async def mlflows(nodes: list[Node], base: Path) -> AsyncIterator[list[str]]:
    """Two MLflow servers on the same database and bucket, which keep nothing of their own, and one on the standby: URLs."""
    python = await MLFLOW.install(ROOT, print) / "bin" / "python"
    await nodes[0].sql("CREATE DATABASE mlflow")
    bucket, *ports = free_ports(4)
    s3 = {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{bucket}", "AWS_DEFAULT_REGION": "us-east-1"}
    s3 |= {"AWS_ACCESS_KEY_ID": "drill", "AWS_SECRET_ACCESS_KEY": "drill"}
    variables = clean_environment(**QUIET, **s3, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    moto: list[str | Path] = [python.with_name("moto_server"), "-H", "127.0.0.1", "-p", str(bucket)]
    servers = [launch("moto", moto, env=variables, log=base / "moto.log", cwd=base)]
    stores = [mlflow_multi_host(nodes[:2], "mlflow")] * 2
    stores += [nodes[1].url("mlflow").replace("postgresql://", "postgresql+psycopg2://", 1)]
    try:
        await wait_until(
            "S3", lambda: answers("PUT", f"http://127.0.0.1:{bucket}/artifacts"), within=60, servers=servers
        )
        for port, store in zip(ports, stores, strict=True):
            argv: list[str | Path] = [python, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
            argv += ["--port", str(port), "--artifacts-destination", "s3://artifacts/", "--backend-store-uri", store]
            servers.append(launch("mlflow", argv, env=variables, log=base / f"mlflow-{port}.log", cwd=base))
            health = f"http://127.0.0.1:{port}/health"
            await wait_until("MLflow", partial(answers, "GET", health), within=180, servers=servers)
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        await stop(servers)


async def answers(method: str, url: str) -> bool:
    async with open_http() as http:
        try:
            return (await http.request(method, url)).status == 200
        except TargetError:
            return False


def runs(urls: list[str]) -> Load:
    """One run with a metric a record; the writers take the servers in turn, as a load balancer would."""

    async def write(http: Http, number: int) -> str | None:
        api = f"{urls[number % len(urls)]}/api/2.0/mlflow/runs"
        made = await http.request("POST", f"{api}/create", json={"experiment_id": "0", "run_name": f"r{number}"})
        if made.status != 200:
            return None
        run_id: str = made.body["run"]["info"]["run_id"]
        metric = {"run_id": run_id, "key": "f1", "value": 0.9, "timestamp": 1, "step": 0}
        return run_id if (await http.request("POST", f"{api}/log-metric", json=metric)).status == 200 else None

    return Load("mlflow", write, parallel=4)


async def check_mlflow(urls: list[str], load: Load) -> None:
    found = 0
    async with open_http() as http:
        for run_id in sorted(load.names):
            answer = await http.request("GET", f"{urls[0]}/api/2.0/mlflow/runs/get", params={"run_id": run_id})
            assert answer.status == 200, answer.body
            found += answer.body["run"]["data"]["metrics"][0]["value"] == 0.9
    assert found == len(load.names)
    say(f"MLflow: {len(load.names)} runs acknowledged, {found} found with their metric")


# -- the drill ----------------------------------------------------------------------------------------------------------


async def failover(primary: Node, standby: Node, loads: list[Load], sizes: list[int]) -> None:
    """Under load: kill -9 of the primary, promote the standby; the writers go on by themselves."""
    await asyncio.gather(*(load.more(records) for load, records in zip(loads, sizes, strict=True)))
    killed = monotonic()
    primary.kill()
    await standby.sql("SELECT pg_promote()")
    await wait_for_standbys(standby, "")  # It waited for the one that was killed: no commit came to its end.
    say(f"{primary.name} killed with -9, {standby.name} promoted after {monotonic() - killed:.2f} s")
    async with asyncio.timeout(300):  # One that waits for a standby that is gone would acknowledge nothing, for ever.
        await asyncio.gather(*(load.more(records) for load, records in zip(loads, sizes, strict=True)))
    for load in loads:
        say(f"{load.name}: nothing acknowledged for {load.gap(killed):.2f} s, {load.refused} attempts in vain so far")


async def drill(nodes: list[Node], loads: list[Load], sizes: list[int]) -> Node:
    """ROUNDS failovers under load; the primary of the end."""
    primary, standby = nodes[:2]
    over = asyncio.Event()
    writing = asyncio.gather(*(load.run(over) for load in loads))
    try:
        for round_ in range(ROUNDS):
            if round_:
                # The killed one comes back: what it wrote and never sent is taken back, and it follows.
                standby.rewind_to(primary)
                standby.follow(primary)
                standby.start()
                await synchronous(primary, standby)
                say(f"{standby.name} rewound and synchronous again")
            await failover(primary, standby, loads, sizes)
            primary, standby = standby, primary
    finally:
        over.set()
        await writing
    return primary


async def come_back(old: Node) -> None:
    """Started again after the failover, as Compose's next `up` does: it must not take a write."""
    old.never_write()
    old.start()
    (row,) = await old.sql("SELECT pg_is_in_recovery() AS standing")
    assert row["standing"]
    old.kill()


async def undo(primary: Node, restored: Node, load: Load) -> None:
    """A planted DELETE, and a restore from base backup and archive to the moment before it."""
    (before,) = await primary.sql("SELECT count(*) AS rows FROM alerts", database="gateway")
    (moment,) = await primary.sql("SELECT clock_timestamp()::text AS at, pg_current_wal_lsn() AS lsn")
    await primary.sql("DELETE FROM alerts", database="gateway")
    (switched,) = await primary.sql("SELECT pg_walfile_name(pg_switch_wal()) AS wal")
    segment = primary.archive / str(switched["wal"])

    async def archived() -> bool:
        return segment.exists()

    await wait_until(f"{segment} to be archived", archived, within=60)
    began = monotonic()
    restored.recover_to(moment["at"])
    restored.start(archive_mode="off")

    async def writable() -> bool:
        (row,) = await restored.sql("SELECT pg_is_in_recovery() AS standing")
        return not bool(row["standing"])

    await wait_until("the restore to come to its end", writable, within=120)
    names = {row["m"] for row in await restored.sql("SELECT labels->>'model' AS m FROM alerts", database="gateway")}
    assert len(names) == before["rows"]
    assert load.names <= names
    assert (await primary.sql("SELECT count(*) AS rows FROM alerts", database="gateway"))[0]["rows"] == 0
    say(f"DELETE of {before['rows']} rows undone: restored to {moment['at']} in {monotonic() - began:.1f} s")


def test_the_primary_is_killed_under_load_and_every_acknowledged_record_is_there(
    nodes: list[Node], gateway: Gateway
) -> None:
    load = alerts(gateway)

    async def story() -> None:
        nodes[2].copy_of(nodes[0], standby=False)
        primary = await drill(nodes, [load], [RECORDS])
        await check_gateway(gateway, load)
        await come_back(next(node for node in nodes[:2] if node is not primary))
        await undo(primary, nodes[2], load)

    asyncio.run(story())


if PROVE:  # Two MLflow servers and three failovers: `make ha-drill` has the time.

    def test_mlflow_goes_on_as_well(nodes: list[Node], gateway: Gateway, base: Path) -> None:
        load = alerts(gateway)

        async def story() -> None:
            async with mlflows(nodes, base) as (*urls, reading), open_http() as http:
                logged = runs(urls)
                file = "/api/2.0/mlflow-artifacts/artifacts/0/drill.json"
                assert (await http.request("PUT", urls[0] + file, json={"kept": "in the bucket"})).status == 200
                run_id = await logged.write(http, 0)
                assert await answers("GET", f"{reading}/api/2.0/mlflow/runs/get?run_id={run_id}")
                say("MLflow on the standby shows a run that was logged through the primary")
                await drill(nodes, [load, logged], [RUNS, RUNS])
                await check_gateway(gateway, load)
                await check_mlflow(urls, logged)
                answer = await http.request("GET", urls[1] + file)
                assert (answer.status, answer.body) == (200, '{"kept":"in the bucket"}')
                say("an artifact that came through one MLflow is read through the other")

        asyncio.run(story())
