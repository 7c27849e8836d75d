"""The command line: what it prints where, and its exit codes (0, 1 for a failure, 2 for a wrong use)."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.web.tokens import SCOPES, read_tokens
from demo.processes import clean_environment
from tests.integration.processes import Process, alert, command, running
from tests.servers import TestServers

GOOD = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080", auth: {username: u, password: "${NOT_SET_ANYWHERE}"}}]
routes: [{name: accuracy, match: ['alertname="A"'], dag: {id: retrain}}]
"""
BAD = """version: 1
airflow:
  - {name: default, url: "http://127.0.0.1:8080"}
routes:
  - name: accuracy
    match: ['alertname=~"("']
    cooldown: tomorrow
    dag: {id: retrain}
    colour: red
"""


def test_version_is_printed_alone(tmp_path: Path) -> None:
    done = command(tmp_path, "version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("arguments", [("no-such-command",), ("serve", "--workers", "0")], ids=" ".join)
def test_a_wrong_use_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("do", {"doctor"}), ("to", {"token"}), ("token cr", {"create"}), ("history --ro", {"--route"})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shell_completes_commands_and_options(typed: str, offered: set[str]) -> None:
    words = f"trigger-gateway {typed}"
    asked = {"_TRIGGER_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = Path(sys.executable).with_name("trigger-gateway")
    done = subprocess.run([program], env=clean_environment(**asked), capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered, done.stderr


def test_every_bad_setting_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD)
    done = command(tmp_path, "serve", port="seventy", memory_ttl="-1", log_level="loud")
    assert done.returncode == 2
    for name in ("GATEWAY_PORT", "GATEWAY_MEMORY_TTL", "GATEWAY_LOG_LEVEL"):
        assert name in done.stderr


def test_init_writes_a_good_policy_once_and_prints_what_to_do_next(tmp_path: Path) -> None:
    first = command(tmp_path, "init")
    assert first.returncode == 0, first.stderr
    assert "url: http://127.0.0.1:8090/api/v1/webhooks/alertmanager" in first.stdout
    assert "trigger-gateway check policy.yaml" in first.stdout
    assert command(tmp_path, "check", "policy.yaml").returncode == 0
    for_editors = (
        (tmp_path / "policy.yaml").read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    )
    assert (tmp_path / for_editors).read_text() == command(tmp_path, "schema").stdout
    assert command(tmp_path, "init", "second.yaml").returncode == 0, "a schema of this version is no obstacle"

    (tmp_path / "policy.yaml").write_text(GOOD)
    again = command(tmp_path, "init")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert (tmp_path / "policy.yaml").read_text() == GOOD, "a refused init changes nothing"
    assert command(tmp_path, "init", "--force").returncode == 0
    assert (tmp_path / "policy.yaml").read_text() != GOOD


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8090/"),
        ("::1", "http://[::1]:8090/"),
        ("0.0.0.0", "http://THIS-MACHINE:8090/"),
        ("::", "http://THIS-MACHINE:8090/"),
        ("gateway.example", "http://gateway.example:8090/"),
    ],
)
def test_init_prints_an_address_that_alertmanager_can_open_or_says_what_to_fill_in(
    tmp_path: Path, host: str, address: str
) -> None:
    done = command(tmp_path, "init", host=host)
    assert f"url: {address}api/v1/webhooks/alertmanager" in done.stdout
    assert ("for THIS-MACHINE put the name" in done.stdout) is ("THIS-MACHINE" in address)


@pytest.mark.parametrize(
    ("host", "address"), [("::1", "http://[::1]:"), ("::", "http://127.0.0.1:"), ("", "http://127.0.0.1:")]
)
def test_a_command_asks_an_address_that_can_be_opened(tmp_path: Path, host: str, address: str) -> None:
    done = command(tmp_path, "history", host=host, port="9")
    assert (done.returncode, f"the gateway at {address}9 " in done.stderr) == (1, True), done.stderr


def test_init_names_a_place_it_cannot_write_to(tmp_path: Path) -> None:
    done = command(tmp_path, "init", "nowhere/policy.yaml")
    assert done.returncode == 2
    assert "nowhere/policy.yaml" in done.stderr


def test_check_of_a_good_policy_needs_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    done = command(tmp_path, "check", "p.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "p.yaml is good: 1 route(s): accuracy.\n"


def test_check_reports_every_error_at_its_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(BAD)
    done = command(tmp_path, "check", "p.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.strip().splitlines()
    assert all(re.match(r"p\.yaml:\d+:\d+: \S+: \S", line) for line in lines), done.stderr
    assert {int(line.split(":")[1]) for line in lines} >= {6, 7, 9}


def test_check_takes_several_files_and_writes_what_code_scanning_reads(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    done = command(tmp_path, "check", "p.yaml", "bad.yaml", "--format", "sarif")
    [run] = json.loads(done.stdout)["runs"]
    assert (done.returncode, done.stderr) == (1, "")
    assert {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]} == {
        "bad.yaml"
    }


def test_init_overwrites_no_schema_that_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "trigger-gateway.schema.json").write_text("{}")
    done = command(tmp_path, "init")
    assert (done.returncode, "--force" in done.stderr, (tmp_path / "policy.yaml").exists()) == (2, True, False)


def test_the_text_of_a_token_stands_alone_on_stdout_and_nowhere_else(tmp_path: Path) -> None:
    scopes = [argument for scope in SCOPES for argument in ("--scope", scope)]
    done = command(tmp_path, "token", "create", *scopes, "--name", "ci", data_dir=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    text = done.stdout.strip()
    assert re.fullmatch(r"tg_[A-Za-z0-9_-]{43}", text)
    assert done.stdout == f"{text}\n"
    assert text not in done.stderr
    file = tmp_path / "data" / "tokens"
    assert text not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    [kept] = read_tokens(file)
    assert kept.name == "ci"
    assert kept.scopes == frozenset(SCOPES)


@pytest.mark.parametrize(
    "arguments",
    [("--scope", "everything"), ("--scope", "read", "--expires", "soon"), ("--scope", "read", "--name", "a b")],
    ids=" ".join,
)
def test_a_token_that_makes_no_sense_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = command(tmp_path, "token", "create", *arguments, data_dir=str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "data" / "tokens").exists()


# Against a running gateway.


def ask(folder: Path, process: Process, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return command(folder, *arguments, url=process.url)


@pytest.mark.slow
async def test_explain_and_history_ask_a_running_gateway(servers: TestServers, database: str, tmp_path: Path) -> None:
    process = Process(tmp_path, {"database_url": database, "redis_url": servers.valkey.url})
    async with running(process):
        assert "No triggers yet." in ask(tmp_path, process, "history").stdout
        [decision] = process.push(alert("churn"))
        process.push(alert("churn"))
        trigger = decision["trigger_id"]

        for subject in (trigger, "churn/0", "ModelAccuracyLow"):
            done = ask(tmp_path, process, "explain", subject)
            assert done.returncode == 0, done.stderr
            assert "new_alert" in done.stdout
        as_json = json.loads(ask(tmp_path, process, "explain", "churn/0", "--json").stdout)
        assert as_json["subject"] == "alert"
        assert [(d["action"], d["reason"]) for d in as_json["decisions"]] == [
            ("fire", "new_alert"),
            ("suppress", "duplicate"),
        ]

        triggers = json.loads(ask(tmp_path, process, "history", "--json").stdout)["items"]
        assert [t["id"] for t in triggers] == [trigger]
        alerts = json.loads(ask(tmp_path, process, "history", "alerts", "--json").stdout)["items"]
        assert [(a["fingerprint"], a["count"]) for a in alerts] == [("churn/0", 2)]
        assert "model=churn" in ask(tmp_path, process, "history", "alerts").stdout

        unknown = ask(tmp_path, process, "explain", "nothing-of-the-kind")
        assert unknown.returncode in (1, 2)
        assert unknown.stdout == ""
        assert "Traceback" not in unknown.stderr
        assert ask(tmp_path, process, "history", "runs").returncode == 2


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = command(tmp_path, "history", url="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "http://127.0.0.1:1 does not answer" in done.stderr
    assert "GATEWAY_URL" in done.stderr
