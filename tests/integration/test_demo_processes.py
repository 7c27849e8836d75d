"""Servers as processes: ended for sure, with their workers, whatever happens to us."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.kit.embedded.processes import SERVER_PORTS, free_ports, is_free
from demo.processes import Server, ServerError, clean_environment, launch, local_environment, run, stop, wait_until

# What a server does, in one line of Python each.
SERVES = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"
WITH_WORKER = f"import os; os.fork() or __import__('signal').signal(15, 1); {SERVES}"
ENDS = "import sys; print('no such table: alerts'); sys.exit(3)"

Launch = Callable[[str], Server]


@pytest.fixture
async def python(tmp_path: Path) -> AsyncIterator[Launch]:
    started: list[Server] = []

    def start(code: str) -> Server:
        argv = [sys.executable, "-c", code]
        started.append(launch("a server", argv, env=clean_environment(), log=tmp_path / "log" / "a.log", cwd=tmp_path))
        return started[-1]

    yield start
    await stop(started, grace=0.1)


async def ready(server: Server) -> None:
    async def printed() -> bool:
        return "ready" in server.tail()

    await wait_until("the server", printed, within=10, servers=[server])


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    "code",
    [pytest.param(SERVES, id="polite"), pytest.param(STUBBORN, id="stubborn"), pytest.param(WITH_WORKER, id="worker")],
)
async def test_stopped_nothing_of_its_group_is_left(python: Launch, code: str) -> None:
    server = python(code)
    await ready(server)
    await stop([server], grace=0.5)
    assert server.exit_code is not None
    assert not alive(server.process.pid)


async def test_stopping_twice_is_harmless(python: Launch) -> None:
    server = python(SERVES)
    await stop([server])
    await stop([server])


async def test_a_server_is_not_in_our_process_group_so_that_ctrl_c_reaches_us_alone(python: Launch) -> None:
    server = python(SERVES)
    assert os.getpgid(server.process.pid) == server.process.pid != os.getpgrp()


async def test_waiting_for_a_server_that_ends_shows_the_end_of_its_log(python: Launch) -> None:
    server = python(ENDS)

    async def never() -> bool:
        return False

    with pytest.raises(ServerError, match=r"(?s)exit code 3 while we waited for its port.*no such table: alerts"):
        await wait_until("its port", never, within=10, servers=[server])


async def test_waiting_is_bounded_and_says_for_what(python: Launch) -> None:
    server = python(SERVES)
    await ready(server)

    async def never() -> bool:
        return False

    with pytest.raises(ServerError, match=r"(?s)waited 0 s for its port in vain.*a\.log:\nready"):
        await wait_until("its port", never, within=0.05, servers=[server], interval=0.01)


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot start it: there is no program /nowhere/program"):
        launch("it", ["/nowhere/program"], env={}, log=tmp_path / "log", cwd=tmp_path)


async def test_a_command_that_succeeds_says_nothing(tmp_path: Path) -> None:
    await run("true", [sys.executable, "-c", ""], env=clean_environment(), log=tmp_path / "l", cwd=tmp_path, within=10)


@pytest.mark.parametrize(
    ("code", "within", "message"),
    [
        pytest.param(ENDS, 10, r"(?s)it ended with exit code 3\..*no such table", id="fails"),
        pytest.param(SERVES, 0.3, r"it did not end within 0 s", id="hangs"),
    ],
)
async def test_a_command_that_does_not_succeed_is_told(tmp_path: Path, code: str, within: float, message: str) -> None:
    argv = [sys.executable, "-c", code]
    with pytest.raises(ServerError, match=message):
        await run("it", argv, env=clean_environment(), log=tmp_path / "l", cwd=tmp_path, within=within)


async def test_killed_with_9_we_leave_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from demo.processes import launch\n"
        f"server = launch('a', [sys.executable, '-c', {SERVES!r}], env=os.environ, log=Path('log'), cwd=Path('.'))\n"
        "while b'ready' not in Path('log').read_bytes(): time.sleep(0.01)\n"
        "print(server.process.pid, flush=True); time.sleep(60)"
    )
    environment = clean_environment(PYTHONPATH=str(Path(__file__).parents[2]))
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    server = int(await owner.stdout.readline())
    assert alive(server)
    owner.kill()
    await owner.wait()

    async def gone() -> bool:
        return not alive(server)

    await wait_until("the server to end", gone, within=10)


def test_free_ports_differ_and_outgoing_connections_do_not_take_them() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768, "Linux takes the near end of outgoing connections from there on"


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as server:
        taken: int = server.getsockname()[1]
        assert not is_free(taken)
        assert taken not in free_ports(len(SERVER_PORTS))


def test_the_environment_of_a_server_is_ours_without_what_configures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__CORE__EXECUTOR", "GATEWAY_PORT", "PGDATABASE", "PYTHONPATH"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("HTTPS_PROXY", "kept")
    environment = clean_environment(GATEWAY_PORT="ours")
    assert environment["GATEWAY_PORT"] == "ours"
    assert environment["HTTPS_PROXY"] == "kept"
    assert not {"AIRFLOW__CORE__EXECUTOR", "PGDATABASE", "PYTHONPATH"} & environment.keys()
    assert environment.keys() - local_environment(GATEWAY_PORT="ours").keys() >= {"HTTPS_PROXY"}


async def test_progress_is_told_while_waiting() -> None:
    messages: list[str] = []
    asked = 0

    async def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    await wait_until("it", third_time, within=10, say=messages.append, interval=0.01, say_every=0)
    assert messages
    assert all("still waiting for it" in line for line in messages)
