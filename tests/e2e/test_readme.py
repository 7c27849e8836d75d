"""The README's way in, from the wheel to a DAG run that succeeded: its own commands, in one shell, against a fake Airflow.

Only the port is another one, and Airflow's address is set in the policy, as step 2 tells the reader to do.
"""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from tests import plain
from tests.e2e.installed import ROOT, Installed, Shell, blocks, section, step
from tests.e2e.processes import eventually, require_binary
from tests.fakes.airflow import FakeAirflow

STEPS = [1, 2, 3, 4, 5, 6, 7, 8]
RECORDED = ROOT / "tests/fixtures/alertmanager/firing_single.json"


@dataclass
class Way:
    """What somebody has in front of him who follows the README: a terminal, and an Airflow that answers."""

    shell: Shell
    folder: Path
    port: str
    airflow: FakeAirflow

    def follow(self, number: int) -> str:
        """Do a step as it stands."""
        return self.shell.run(self.here(step(number)))

    def here(self, commands: str) -> str:
        return commands.replace("8090", self.port)

    def newest(self) -> dict[str, Any]:
        """The newest trigger, as the gateway tells it to the holder of the token of step 3."""
        headers = {"Authorization": f"Bearer {self.shell.run('echo $GATEWAY_TOKEN')}"}
        answer = plain.get(f"http://127.0.0.1:{self.port}/api/v1/triggers", headers=headers)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items[0]

    def newest_succeeded(self) -> bool:
        return bool(self.newest()["state"] == "succeeded")

    def policy(self, old: str, new: str) -> None:
        """Edit the policy that `init` wrote."""
        path = self.folder / "gateway" / "policy.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow(SystemClock(), auto_finish=timedelta(0))
    fake.users["gateway"] = "secret"
    fake.add_dag("retrain_model")
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(fake, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    fake.url = f"http://127.0.0.1:{port}"
    eventually("the fake Airflow to listen", lambda: server.started)
    yield fake
    server.should_exit = True
    thread.join()


@pytest.fixture
def way(installed: Installed, airflow: FakeAirflow, tmp_path: Path) -> Iterator[Way]:
    require_binary("curl")
    (home := tmp_path / "home").mkdir()
    (home / "trigger-gateway").symlink_to(installed.home / "trigger-gateway")
    port = str(free_ports(1)[0])
    # What the reader's own settings are: none; the port stands for 8090, which may be taken where tests run.
    environment = installed.environment(
        HOME=str(home), COLUMNS="160", GATEWAY_PORT=port, GATEWAY_URL=f"http://127.0.0.1:{port}"
    )
    with Shell(home, environment) as shell:
        yield Way(shell, home, port, airflow)


def test_its_steps_lead_from_nothing_to_a_dag_run_that_succeeded(way: Way) -> None:
    output = way.follow(2)
    assert "policy.yaml is good" in output
    receiver = yaml.safe_load(output[output.index("route:") : output.index("Next:")])
    way.policy("http://127.0.0.1:8080", way.airflow.url)
    way.follow(3)
    assert way.shell.run("stat -c %s trigger-gateway.token") != "0"
    way.follow(4)
    output = way.follow(5)
    assert re.search(r"^ok +airflow default DAG retrain_model", output, re.M), output
    assert ": 0 failed, " in output
    _rehearse(way)
    _listen(way, receiver)
    _go_live(way)
    _operate(way)


def _rehearse(way: Way) -> None:
    """Step 6: what is started by hand and ends in time starts nothing."""
    output = way.follow(6)
    first, second = (json.loads(found)["decisions"][0] for found in re.findall(r'\{"decisions":.*?\}\]\}', output))
    assert (first["action"], first["reason"]) == ("hold", "debouncing")
    assert (second["action"], second["reason"]) == ("cancel", "resolved_while_held")
    assert "debouncing" in output, "explain tells it"
    assert "cancelled" in output, "the history shows it"
    assert way.airflow.posts == []


def _listen(way: Way, receiver: dict[str, Any]) -> None:
    """Step 7: what Alertmanager sends with the receiver that `init` printed is recorded, and starts nothing in shadow."""
    (hook,) = receiver["receivers"][0]["webhook_configs"]
    assert hook["url"] == f"http://127.0.0.1:{way.port}/api/v1/webhooks/alertmanager"
    config = {"route": {"receiver": "people", **receiver["route"]}, "receivers": receiver["receivers"]}
    (way.folder / "gateway" / "alertmanager.yml").write_text(yaml.safe_dump(config))
    doctor = way.here(step(5)).strip() + " --alertmanager-config alertmanager.yml"
    assert "0 failed, 0 to know of" in way.shell.run(doctor), "what init prints is what the doctor wants"
    way.policy("debounce: 10m\n", "debounce: 0s\n")  # Ten minutes are too long for a test.
    way.shell.run(way.here(step(6).splitlines()[1]))
    headers = {"Authorization": f"Bearer {(way.folder / 'gateway' / 'trigger-gateway.token').read_text().strip()}"}
    for _ in range(2):  # An HA pair tells everything twice.
        answer = plain.post(hook["url"], content=RECORDED.read_bytes(), headers=headers)
        assert answer.status_code == 202, answer.text
    assert (way.newest()["mode"], way.newest()["state"]) == ("shadow", "cancelled")
    output = way.follow(7)
    assert "ModelAccuracyLow" in output
    assert "shadow mode: live it would have" in output
    assert way.airflow.posts == []


def _go_live(way: Way) -> None:
    """Step 8: what still fires becomes one DAG run."""
    way.follow(8)
    eventually("one DAG run that succeeded", way.newest_succeeded)
    assert "succeeded" in way.shell.run("trigger-gateway history triggers")
    (post,) = way.airflow.posts
    assert post["conf"]["model"] == post["conf"]["gateway"]["group"]["model"]


def _operate(way: Way) -> None:
    """The commands of the section on operations: each is understood, and refused where nothing is to be done."""
    newest = way.newest()
    (commands,) = blocks(section("Operations"), "sh")
    group = newest["group"]["model"]
    commands = way.here(commands).replace('"churn"', json.dumps(group))
    redriven, cancelled, group_state = way.shell.run(
        f"TRIGGER={newest['id']}\n{_each_on_a_line(commands)}"
    ).splitlines()
    assert json.loads(redriven)["code"] == json.loads(cancelled)["code"] == "wrong_state"
    assert json.loads(group_state)["labels" if "labels" in group_state else "group"] == {"model": group}


def _each_on_a_line(commands: str) -> str:
    return re.sub(r"^curl", "curl --silent -w '\\\\n'", commands, flags=re.M)


@pytest.mark.parametrize("number", STEPS)
def test_every_step_has_commands(number: int) -> None:
    assert step(number).strip()


def test_there_is_no_step_that_no_test_runs() -> None:
    found = re.findall(r"^\*\*(\d)\. ", section("You already run Airflow and Alertmanager"), re.M)
    assert [int(number) for number in found] == STEPS
