"""A state machine over journal and delivery: order kept per run, nothing lost, nothing doubled, whatever happens when."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlflow_spool.records import API
from mlflow_spool.spool import Spool
from tests.sizes import size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, spool_on

#: Two processes share the journal.
PROCESS = st.integers(0, 1)


class SpoolMachine(RuleBasedStateMachine):
    """Two processes that log to shared runs through one journal, and a server that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.folder = Path(self._memory.name)
        self.server, self.clock = FakeMlflow(), ManualClock()
        self.processes = [self.open(), self.open()]
        self.logged: dict[str, list[int]] = {}  # name of the run -> the values of its one metric, as they were logged
        self.ids: dict[str, str] = {}
        self.count = 0

    def open(self) -> Spool:
        return spool_on(self.server, self.folder, self.clock, settle=0.5)

    def post(self, process: int, path: str, **body: Any) -> dict[str, Any]:
        return self.processes[process].call("POST", f"{API}/{path}", body)

    @rule(process=PROCESS)
    def create(self, process: int) -> None:
        name = f"run-{len(self.ids)}"
        answer = self.post(process, "runs/create", experiment_id="0", run_name=name, start_time=1)
        self.ids[name] = answer["run"]["info"]["run_id"]
        self.logged[name] = []

    @rule(process=PROCESS, which=st.integers(0, 30), several=st.integers(1, 3))
    def log(self, process: int, which: int, several: int) -> None:
        if not self.ids:
            return
        name = sorted(self.ids)[which % len(self.ids)]
        for _ in range(several):
            self.count += 1
            metric = {"key": "m", "value": float(self.count), "timestamp": self.count, "step": self.count}
            self.post(process, "runs/log-metric", run_id=self.ids[name], **metric)
            self.logged[name].append(self.count)

    @rule(fault=st.sampled_from(list(Fault)))
    def weather(self, fault: Fault) -> None:
        self.server.plan = never if fault is Fault.NONE else always(fault)

    @rule(process=PROCESS, seconds=st.sampled_from([0.01, 1.0, 100.0]))
    def drain(self, process: int, seconds: float) -> None:
        self.processes[process].finish(seconds)

    @rule(seconds=st.sampled_from([0.1, 3.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule(process=PROCESS)
    def die(self, process: int) -> None:
        self.processes[process].journal.close()
        self.processes[process] = self.open()

    @rule(process=PROCESS)
    def tidy(self, process: int) -> None:
        self.processes[process].journal.forget_delivered(int(self.clock.seconds * 1000) - 50_000)

    @invariant()
    def the_server_holds_the_beginning_of_what_was_logged_and_every_run_once(self) -> None:
        runs = list(self.server.runs.values())
        names = [run["info"]["run_name"] for run in runs]
        assert len(names) == len(set(names))
        for run in runs:
            held = [step for step, _, _ in run["metrics"].get("m", [])]
            logged = self.logged.get(run["info"]["run_name"], [])
            assert held == logged[: len(held)]

    def teardown(self) -> None:
        self.server.plan = never
        for spool in self.processes:
            assert spool.finish(3600, patient=True) == 0
            assert spool.journal.inventory.asides() == []
        held = {
            run["info"]["run_name"]: [step for step, _, _ in run["metrics"].get("m", [])]
            for run in self.server.runs.values()
        }
        assert held == self.logged
        for spool in self.processes:
            spool.journal.close()
        self._memory.cleanup()


TestSpoolMachine = pytest.mark.xdist_group("mlflow")(SpoolMachine.TestCase)
TestSpoolMachine.settings = settings(
    max_examples=size(25, 2000),
    stateful_step_count=size(25, 60),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
