"""`backtest`: what it prints where, and its exit codes."""

import gzip
import json
from datetime import timedelta
from pathlib import Path

import pytest

from app.policy.file.load import parse_policy
from tests.acceptance.world import World, policy
from tests.integration.processes import command
from tests.integration.test_api_cli import ask
from tests.servers import TestServers
from tests.unit.builders import HOUR, MINUTE
from tests.unit.histories import fires

POLICY = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080", auth: {username: u, password: "${NOT_SET_ANYWHERE}"}}]
routes:
  - {name: accuracy, match: ['alertname="ModelAccuracyLow"'], group_by: [model], debounce: 10m, dag: {id: retrain}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [*fires("churn", timedelta(0), 14 * MINUTE), "{broken", *fires("fraud", HOUR, 9 * HOUR)]
    (tmp_path / "now.yaml").write_text(POLICY)
    (tmp_path / "new.yaml").write_text(POLICY.replace("10m", "30m"))
    (tmp_path / "bad.yaml").write_text(POLICY.replace("10m", "soon"))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "history.jsonl").write_text("\n".join(lines))
    (tmp_path / "history.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:-20])
    return tmp_path


def test_a_report_from_the_first_command_to_the_exit_code(folder: Path) -> None:
    base = ("backtest", "new.yaml", "--compare", "now.yaml", "--run", "40m")
    done = command(
        folder, *base, "--history", "history.jsonl.gz", "--format", "json", "--fail-if", "missed_episodes > 0"
    )
    report = json.loads(done.stdout)
    assert (report["now"]["retrains"], report["proposed"]["retrains"]) == (2, 1)
    assert done.returncode == 1
    assert "history.jsonl.gz:3: it is not JSON" in done.stderr
    assert "--fail-if holds: missed_episodes > 0" in done.stderr
    done = command(folder, *base, "--history", "history.jsonl", "--format", "markdown", "--out", "report.md")
    assert (done.returncode, done.stdout) == (0, "")
    assert "| retrains | 2 | 1 |" in (folder / "report.md").read_text()


def test_a_sweep_prints_a_table_and_a_picture(folder: Path) -> None:
    done = command(folder, "backtest", "sweep", "new.yaml", "--history", "history.jsonl", "--debounce", "0s,10m,30m")
    assert (done.returncode, done.stdout.count("dominated")) == (0, 1)
    assert "retrains, to 2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("new.yaml --history nothing.jsonl", "nothing.jsonl cannot be read"),
        ("new.yaml --history torn.jsonl.gz", "broken"),
        ("new.yaml --history empty.jsonl", "the history is empty"),
        (
            "new.yaml --history history.jsonl --since 2020-01-01T00:00Z --until 2020-02-01T00:00Z",
            "lies outside of the history",
        ),
        ("new.yaml --history history.jsonl --since soon", "write a duration such as 90d"),
        ("new.yaml --history history.jsonl --run soon", "--run: 'soon' is not a duration"),
        ("new.yaml --history history.jsonl --route other", "no policy here has this route"),
        ("new.yaml --history history.jsonl --group x", "is not LABEL=VALUE"),
        ("new.yaml --history history.jsonl --compare live", "names no policy that was in force"),
        ("new.yaml --history history.jsonl --out nowhere/x", "cannot be written"),
        ("sweep new.yaml --history history.jsonl", "say what to try: --cooldown"),
        ("sweep new.yaml --history history.jsonl --cooldown soon", "--cooldown: 'soon' is not a duration"),
        ("bad.yaml --history history.jsonl", "bad.yaml:5:"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_2(folder: Path, arguments: str, words: str) -> None:
    done = command(folder, "backtest", *arguments.split())
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_gateways_own_history_is_exported_and_replayed(
    servers: TestServers, database: str, folder: Path
) -> None:
    async with World(servers, database, policy(cooldown="2h")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        await world.pass_by(hours=5, steps=60)
        await world.push(world.alert(model="churn"))
        for file in ("own.jsonl", "own.jsonl.gz"):
            assert await ask(world, "export", str(folder / file)) == "9 lines\n"
        packed, plain = (folder / "own.jsonl.gz").read_bytes(), (folder / "own.jsonl").read_bytes()
        assert gzip.decompress(packed) == plain
        shown = await ask(world, "export", "--since", "2026-11-23T16:00Z")
        (folder / "other.yaml").write_text(policy(cooldown="12h"))
        report = await ask(world, "backtest", str(folder / "other.yaml"), "--compare", "live", "--format", "json")
        figures = json.loads(report)
        checked = await ask(world, "backtest", "--check", "--until", "2026-11-23T17:00:30Z")
        assert checked.splitlines()[0] == "6 of 6 alike"
        assert (figures["now"]["retrains"], figures["proposed"]["retrains"]) == (6, 2)
    done = command(
        folder, "backtest", "other.yaml", "--history", "own.jsonl.gz", "--compare", "live", "--format", "json"
    )
    assert json.loads(done.stdout) == figures
    hash_of_live = parse_policy(policy(cooldown="2h"), "policy.yaml", {}).hash
    words = ("backtest", "other.yaml", "--history", "own.jsonl", "--format", "json", "--compare")
    assert json.loads(command(folder, *words, hash_of_live).stdout)["now"] == figures["now"]
    assert f"It has {hash_of_live}" in command(folder, *words, "0123456789ab").stderr
    assert shown.count("gateway.run") == 2
    lines = [
        line
        for line in plain.decode().splitlines()
        if not ('"gateway.run"' in line and '{"at":"2026-11-23T14:0' in line)
    ]
    (folder / "torn.jsonl").write_text("\n".join(lines))
    done = command(folder, "backtest", "--check", "--history", "torn.jsonl")
    assert done.returncode == 1
    assert done.stdout.startswith("4 of 6 alike\n  - accuracy churn 2026-11-23T14:0")
    assert "only the replay fires (still_firing)" in done.stdout
    done = command(folder, "backtest", "--check", "--history", "history.jsonl")
    assert done.returncode == 2
    assert "--check needs the history of a gateway" in done.stderr
    urls = {"database_url": database, "redis_url": servers.valkey.url}
    done = command(folder, "export", "--database", "again.jsonl", **urls)
    assert done.returncode == 0, done.stderr
    assert (folder / "again.jsonl").read_bytes() == plain
    done = command(folder, "export", "--database", "nowhere/x.gz", **urls)
    assert (done.returncode, done.stderr) == (
        2,
        "nowhere/x.gz cannot be written: No such file or directory. Name another file\n",
    )


@pytest.mark.parametrize("words", ["export", "backtest new.yaml", "backtest sweep new.yaml --cooldown 6h"])
def test_without_a_gateway_there_is_no_history_of_its_own(folder: Path, words: str) -> None:
    done = command(folder, *words.split(), URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "the gateway at http://127.0.0.1:9 does not answer" in done.stderr
