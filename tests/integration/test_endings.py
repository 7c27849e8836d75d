"""Whatever starts servers stops them when it is ended: by SIGTERM, when its terminal closes, and by Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.kit.embedded.processes import command_line, wait_for
from tests.integration.gateways import REPOSITORY

#: The policy names no server, so `migrate` starts its own.
COMMANDS = {
    "the simulation": ["-m", "tests.simulation", "--runs", "1000000"],
    "a hunt for a bug": ["-m", "tests.simulation.planted", "a failed run counts as a good end"],
    "a command with servers of its own": ["-c", "from app.cli.main import main; main()", "migrate"],
}
#: It takes the end for an error of its own, or waits for a thread that never ends.
STUBBORN = """
import sys, threading, time
from pathlib import Path
from app.kit.embedded import processes, start_postgres
processes.END_SECONDS = 1
processes.end_in_order()
postgres = start_postgres(Path(sys.argv[1]), durable=False)
if sys.argv[2] == "waits":
    threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
while True:
    try:
        time.sleep(600)
    except SystemExit:
        if sys.argv[2] == "waits":
            raise
"""
STARTS = re.compile(r"start_(?:postgres|valkey|test_servers)\(|hunt\(|tree_with\(|multiprocessing")


def below(pid: int) -> list[int]:
    """The servers that the process, or what it has started, has started."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in listed.splitlines()}
    family, found = {pid}, 0
    while found < len(family):
        found = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return [each for each in family if "postgres" in "".join(command_line(each)[:1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        ("the simulation", signal.SIGTERM, 143),
        ("a hunt for a bug", signal.SIGHUP, 129),
        ("a command with servers of its own", signal.SIGTERM, 143),
    ],
)
def test_what_is_ended_stops_its_servers(tmp_path: Path, what: str, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[what]],
        cwd=REPOSITORY,
        env=os.environ | {"GATEWAY_DATA_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        servers = wait_for(lambda: below(process.pid) or None, 60.0)
        assert servers
        process.send_signal(number)
        output = process.communicate(timeout=60)[0].decode()
        assert process.returncode == code, output
        assert wait_for(lambda: None if any(map(command_line, servers)) else True, 10.0)
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lost", "waits"])
def test_a_program_that_does_not_end_is_ended_with_its_servers(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path), how], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        servers = below(process.pid)
        assert servers
        process.terminate()
        assert process.wait(60) == 143
        assert wait_for(lambda: None if any(map(command_line, servers)) else True, 10.0)
    finally:
        process.kill()


def test_every_program_that_starts_servers_ends_in_order() -> None:
    programs = [
        path
        for folder in ("benchmarks", "demo", "tests", "tools")
        for path in (REPOSITORY / folder).rglob("*.py")
        if '\nif __name__ == "__main__":\n' in (text := path.read_text()) and STARTS.search(text)
    ]
    assert len(programs) >= 8
    forgetful = [path.name for path in programs if "\n    end_in_order()" not in path.read_text()]
    assert forgetful == ["forks.py"], "a script of a test, which ends its own children"
