"""`trigger-gateway serve` as people run it: embedded or not, as root or not, one process or several, killed or ended."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import yaml

from app.kit.clock import monotonic
from app.kit.embedded import start_postgres, start_valkey
from demo.processes import stop, wait_until
from tests import plain
from tests.integration.gateways import NAMELESS, nameless_users, ordinary_users, pid_of
from tests.integration.processes import START_SECONDS, WEBHOOK, Process, alert, command, running, serve_airflow
from tests.servers import TestServers

pytestmark = pytest.mark.slow

IPV6 = Path("/proc/net/if_inet6").exists()  # Some containers have no IPv6, and some have it without an address.
LOOPBACK_6 = IPV6 and " lo\n" in Path("/proc/net/if_inet6").read_text()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory whose parents everybody may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def stop_embedded(data_dir: Path) -> None:
    """End the embedded servers that a killed gateway left behind."""
    for server in (start_valkey(data_dir), start_postgres(data_dir)):
        server.stop()


@pytest.mark.parametrize("uid", [*ordinary_users(), *nameless_users()], ids={0: "root", NAMELESS: "without-a-name"}.get)
async def test_with_nothing_set_it_brings_its_servers_and_survives_kill_9(uid: int, open_path: Path) -> None:
    os.chown(open_path, uid, -1)
    process = Process(open_path, uid=None if uid == os.geteuid() else uid)
    model = alert("churn")
    try:
        async with running(process):
            assert (open_path / ".gateway" / "postgres" / "PG_VERSION").exists()
            [first] = process.push(model)
            assert (first["action"], first["reason"]) == ("fire", "new_alert")
            assert [d["reason"] for d in process.push(model)] == ["duplicate"]
            postgres = pid_of(open_path / ".gateway", "postgres")
            assert os.stat(f"/proc/{postgres}").st_uid != 0
            process.kill()
            process.begin()
            await process.ready()
            assert [d["trigger_id"] for d in process.push(model)] == [first["trigger_id"]]
            [found] = process.get("/api/v1/alerts")["items"]
            assert found["count"] == 3
            assert len(process.get("/api/v1/triggers")["items"]) == 1
            assert process.end() == 0
    finally:
        stop_embedded(open_path / ".gateway")


async def test_an_ended_gateway_takes_its_embedded_servers_with_it(tmp_path: Path) -> None:
    process = Process(tmp_path)
    async with running(process):
        servers = [pid_of(tmp_path / ".gateway", name) for name in ("postgres", "valkey")]
        assert process.end() == 0
    assert [pid for pid in servers if _lives(pid)] == []


async def test_with_urls_set_it_uses_those_and_makes_no_servers(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    process = Process(tmp_path, {"database_url": database, "redis_url": servers.valkey.url})
    async with running(process):
        process.push(alert("churn"))
        connection = await asyncpg.connect(database)
        assert await connection.fetchval("SELECT count(*) FROM alerts") == 1
        await connection.close()
        assert not (tmp_path / ".gateway").exists()


async def test_a_database_that_is_away_at_the_start_is_named(tmp_path: Path) -> None:
    process = Process(
        tmp_path, {"database_url": "postgresql://u:hunter2@127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1"}
    )
    process.begin()
    assert process.server is not None
    assert await asyncio.to_thread(process.server.process.wait, 60) == 1
    log = process.server.tail(100)
    assert "Postgres at 127.0.0.1:1/x cannot be used" in log
    assert "Traceback" not in log
    assert "hunter2" not in log


@pytest.mark.parametrize("uses", ["migrate", "worker"])
def test_a_database_that_is_away_is_one_sentence_with_what_to_do(tmp_path: Path, uses: str) -> None:
    Process(tmp_path).write_policy()
    url = "postgresql://u:hunter2@127.0.0.1:1/x"
    done = command(tmp_path, uses, database_url=url, redis_url="redis://127.0.0.1:1")
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("Postgres at 127.0.0.1:1/x cannot be used: ")
    assert sentence.endswith("Look at Postgres and at GATEWAY_DATABASE_URL; `trigger-gateway doctor` says more")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


# What it refuses.


def test_without_a_policy_it_exits_2_and_names_init(tmp_path: Path) -> None:
    done = command(tmp_path, "serve")
    assert done.returncode == 2
    assert "trigger-gateway init" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is started for a refused command"


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--workers", "2")], ids=" ".join)
def test_a_bind_beyond_loopback_without_tokens_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nairflow: [{name: default, url: 'http://127.0.0.1:1'}]\nroutes: []\n"
    )
    done = command(tmp_path, *arguments, host="0.0.0.0", port="0")
    assert done.returncode == 2, done.stderr
    assert "without tokens" in done.stderr
    assert not (tmp_path / ".gateway").exists()


@pytest.mark.parametrize("content", [None, "", "{bad\n"], ids=["missing", "empty", "bad"])
def test_a_named_tokens_file_without_a_token_is_refused(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nairflow: [{name: default, url: 'http://127.0.0.1:1'}]\nroutes: []\n"
    )
    if content is not None:
        (tmp_path / "mine").write_text(content)
    done = command(tmp_path, "serve", tokens_file=str(tmp_path / "mine"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "trigger-gateway token create" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".gateway").exists()


async def test_on_every_address_the_log_names_one_that_can_be_opened(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    assert command(tmp_path, "migrate", database_url=database).returncode == 0
    assert command(tmp_path, "token", "create", "--scope", "read").returncode == 0
    process = Process(tmp_path, {"host": "0.0.0.0", "database_url": database, "redis_url": servers.valkey.url})
    async with running(process):
        log = (tmp_path / f"serve-{process.port}.log").read_text()
    assert f"http://127.0.0.1:{process.port}/docs" in log


def health_checks() -> dict[str, list[str]]:
    """How the image and Compose ask whether the gateway is well."""
    root = Path(__file__).parents[2]
    [image] = re.findall(r"^HEALTHCHECK .*\n +CMD (\[.*\])$", (root / "Dockerfile").read_text(), re.MULTILINE)
    compose = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["gateway-1"]["healthcheck"]["test"]
    return {"image": json.loads(image)[1:], "compose": compose[2:]}


def look(addresses: list[str], host: str, port: str, port_file: str) -> None:
    """Each address answers, and so do the health checks: also beside a proxy, and not for a page that is not there."""
    for address in addresses:
        answer = plain.request("HEAD", f"http://{address}:{port}/livez", timeout=15)
        assert (answer.status_code, int(answer.headers["content-length"]) > 0) == (200, True), address
    proxied = {"GATEWAY_HOST": f" {host}\n", "GATEWAY_PORT": "", "http_proxy": "http://127.0.0.1:9"}
    proxied["GATEWAY_PORT_FILE"] = port_file
    for name, check in health_checks().items():
        text = check[-1].replace("8090", port)
        for page, well in ((text, True), (re.sub("/readyz|/livez", "/nowhere", text), False)):
            done = subprocess.run([sys.executable, "-c", page], env=proxied, check=False)
            assert (done.returncode == 0) is well, name


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_on_every_address_of_both_families_it_answers_names_its_port_and_is_seen_to_be_well(
    servers: TestServers, database: str, tmp_path: Path, workers: str
) -> None:
    host = "::" if IPV6 else "0.0.0.0"
    assert command(tmp_path, "migrate", database_url=database).returncode == 0
    assert command(tmp_path, "token", "create", "--scope", "read").returncode == 0
    urls = {"database_url": database, "redis_url": servers.valkey.url}
    process = Process(tmp_path, {"host": host, **urls}, ("serve", "--workers", workers), port=0)
    process.begin()
    assert process.server is not None
    try:
        ports: set[str] = set()

        async def named() -> bool:
            ports.update(re.findall(r"http://127\.0\.0\.1:([0-9]+)/docs", (tmp_path / "serve-0.log").read_text()))
            return bool(ports)

        await wait_until("its port in the log", named, within=START_SECONDS, servers=[process.server])
        [port] = ports
        assert port != "0"
        process.port = int(port)
        await process.ready()
        (tmp_path / "port").write_text(f"{port}\r\n")
        addresses = ["127.0.0.1", *(["[::1]"] if LOOPBACK_6 and host == "::" else [])]
        await asyncio.to_thread(look, addresses, host, port, str(tmp_path / "port"))
    finally:
        await stop([process.server])


def test_a_taken_port_is_named(servers: TestServers, database: str, tmp_path: Path) -> None:
    Process(tmp_path).write_policy()
    port = servers.postgres.access.port
    done = command(tmp_path, "serve", port=f"{port}", database_url=database, redis_url=servers.valkey.url)
    assert done.returncode != 0
    assert f"{port}" in done.stderr + done.stdout


def test_a_redis_url_that_cannot_be_read_is_named_without_its_password(tmp_path: Path) -> None:
    Process(tmp_path).write_policy()
    done = command(tmp_path, "serve", redis_url="redis://:hunter2@sentinel-1:26379,sentinel-2:26379")
    assert done.returncode == 2, done.stderr
    message = "several hosts are those of redis+sentinel:// or redis+cluster://"
    assert f"GATEWAY_REDIS_URL: Value error, {message}" in " ".join(done.stderr.split())
    assert "hunter2" not in done.stderr + done.stdout


# Several processes.


async def test_two_workers_serve_one_port_and_end_together(servers: TestServers, database: str, tmp_path: Path) -> None:
    variables = {"database_url": database, "redis_url": servers.valkey.url}
    process = Process(tmp_path, variables, arguments=("serve", "--workers", "2"))
    async with running(process):

        async def both() -> bool:
            return len(_children(process.pid)) >= 2

        await wait_until("two workers", both, within=60)
        for n in range(20):
            process.push(alert("churn", instance=f"{n % 2}"))
        assert sum(a["count"] for a in process.get("/api/v1/alerts")["items"]) == 20
        children = _children(process.pid)
        assert process.end() == 0
        assert [pid for pid in children if _lives(pid)] == []


async def test_a_worker_that_dies_is_started_again(servers: TestServers, database: str, tmp_path: Path) -> None:
    variables = {"database_url": database, "redis_url": servers.valkey.url}
    process = Process(tmp_path, variables, arguments=("serve", "--workers", "2"))
    async with running(process):
        before = _children(process.pid)
        os.kill(before[0], signal.SIGKILL)

        async def replaced() -> bool:
            return len([pid for pid in _children(process.pid) if _lives(pid) and pid not in before]) >= 1

        await wait_until("another worker", replaced, within=60)
        await process.ready()
        assert [d["action"] for d in process.push(alert("churn"))] == ["fire"]


async def test_a_worker_beside_a_gateway_without_one_delivers(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    variables = {"database_url": database, "redis_url": servers.valkey.url}
    with serve_airflow() as (airflow, url):
        airflow.add_dag("retrain_model")
        web = Process(tmp_path, variables, arguments=("serve", "--no-worker"), airflow=url)
        async with running(web):
            process_checks = web.get("/livez")["checks"]
            assert process_checks.keys() & {"waker", "relay", "follower"} == set()
            web.push(alert("churn"))
            assert airflow.posts == []
            worker = Process(tmp_path, variables, arguments=("worker",), airflow=url)
            async with running(worker):

                async def posted() -> bool:
                    return len(airflow.posts) == 1

                await wait_until("the DAG run", posted, within=60, servers=[s for s in (worker.server,) if s])
                assert worker.end() == 0
            assert len(web.get("/api/v1/triggers")["items"]) == 1


# The end.


async def test_sigterm_answers_what_was_accepted_before_it_ends(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """The commit is kept waiting by a lock, the signal arrives, the lock goes: the request is answered 202."""
    process = Process(tmp_path, {"database_url": database, "redis_url": servers.valkey.url})
    async with running(process), plain.client(timeout=30) as client:
        blocker = await asyncpg.connect(database)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE alerts IN EXCLUSIVE MODE")
        request = asyncio.create_task(client.post(process.url + WEBHOOK, json={"alerts": [alert("churn")]}))
        watcher = await asyncpg.connect(database)

        async def waits() -> bool:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return bool(await watcher.fetchval(query))

        await wait_until("the commit to wait", waits, within=10, interval=0.01)
        os.kill(process.pid, signal.SIGTERM)

        async def refuses() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", process.port)
            except OSError:
                return True
            writer.close()
            return False

        began = monotonic()
        await wait_until("the socket to close", refuses, within=10, interval=0.01)
        await transaction.rollback()
        answer = await request
        assert answer.status_code == 202, answer.text
        assert process.server is not None
        assert await asyncio.to_thread(process.server.process.wait, 30) == 0
        assert monotonic() - began < 15
        assert await watcher.fetchval("SELECT count FROM alerts") == 1
        await asyncio.gather(blocker.close(), watcher.close())


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split() if _serves(int(child))]
    return found


def _serves(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
