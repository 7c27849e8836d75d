"""Each kind of fault at each request, and a death at each request: in the end the server holds all, once.

In process, on a fake MLflow and a manual clock; `test_training` takes a sample of it in real processes.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.records import Answer
from tests.sizes import seed, size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, Plan, always, at, never
from tests.spool.workload import ManualClock, Step, held, spool_on, steps

pytestmark = pytest.mark.xdist_group("mlflow")
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


class Killed(BaseException):
    """The process ends here: nothing after it happens."""


class DyingMlflow(FakeMlflow):
    """Kills its caller at one request, before or after it is carried out."""

    def __init__(self, number: int, *, after: bool) -> None:
        super().__init__()
        self.number, self.after = number, after

    def _with_fault(self, fault: Fault, happen: Callable[[], Answer]) -> Answer:
        if len(self.seen) - 1 != self.number:
            return super()._with_fault(fault, happen)
        self.number = -2
        if self.after:
            happen()
        raise Killed


def train(server: FakeMlflow, folder: Path, plan: Plan = never, plan_after: Plan = never) -> dict[str, Any]:
    """Run the script under `plan`, then deliver the rest under `plan_after`; what the server holds."""
    clock = ManualClock()
    spool = spool_on(server, folder, clock)
    server.plan = plan
    _run(steps(spool, folder))
    server.plan = plan_after
    left = spool.finish(3600, patient=True)
    assert (left, spool.journal.inventory.asides()) == (0, [])
    spool.journal.close()
    return held(server)


def _run(script: Iterator[Step]) -> None:
    for step in script:
        step()


def chosen(requests: int) -> range:
    """Every fourth request, from one that the seed chooses; under PROVE every one."""
    return range(seed() % size(4, 1), requests, size(4, 1))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a server holds to which nothing happened, and how many requests that took."""
    server = FakeMlflow()
    found = train(server, tmp_path_factory.mktemp("healthy"))
    return found, len(server.seen)


def test_the_script_leaves_what_the_matrix_compares(healthy: tuple[dict[str, Any], int]) -> None:
    found, requests = healthy
    child, parent = found["runs"]
    assert parent["metrics"] == {"loss": [[0, 1000, 1.0], [1, 1001, 0.5], [2, 1002, 1 / 3]]}
    assert (parent["info"]["status"], child["tags"]["mlflow.parentRunId"]) == ("FINISHED", "parent")
    assert found["files"]["mlflow-artifacts:/1/models/model/artifacts/MLmodel"] == "run_id: parent\n"
    assert found["registered"]["churn"]["aliases"] == {"challenger": "1"}
    assert requests >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_one_fault_at_each_request_changes_nothing(
    healthy: tuple[dict[str, Any], int], memory: Path, fault: Fault
) -> None:
    expected, requests = healthy
    for number in chosen(requests):
        found = train(FakeMlflow(), memory / str(number), at(number, fault))
        assert found == expected, f"request {number}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_server_that_goes_away_at_any_request_and_comes_back_later_gets_everything_once(
    healthy: tuple[dict[str, Any], int], memory: Path, fault: Fault
) -> None:
    expected, requests = healthy
    for number in chosen(requests):
        found = train(FakeMlflow(), memory / str(number), _from(number, fault))
        assert found == expected, f"from request {number} on"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_fault_at_each_request_of_the_delivery_changes_nothing(
    healthy: tuple[dict[str, Any], int], memory: Path, fault: Fault
) -> None:
    expected, _ = healthy
    for number in chosen(40):
        server = FakeMlflow()
        found = train(server, memory / str(number), always(Fault.REFUSE), _later(server, number, fault))
        assert found == expected, f"request {number} of the delivery"


def _from(number: int, fault: Fault) -> Plan:
    return lambda seen, line: fault if seen >= number or seen < 0 else Fault.NONE


def _often(choose: random.Random, share: float) -> Plan:
    return lambda seen, line: choose.choice(FAULTS) if choose.random() < share else Fault.NONE


def _later(server: FakeMlflow, number: int, fault: Fault) -> Plan:
    begun: list[int] = []

    def plan(seen: int, line: str) -> Fault:
        begun.append(seen) if seen >= 0 and not begun else None
        return fault if begun and seen == begun[0] + number else Fault.NONE

    return plan


@pytest.mark.parametrize("after", [False, True], ids=["before it is carried out", "after it"])
def test_a_death_at_each_request_loses_nothing_that_returned_and_doubles_nothing(
    healthy: tuple[dict[str, Any], int], memory: Path, after: bool
) -> None:
    expected, requests = healthy
    for number in chosen(requests):
        server, folder, clock = DyingMlflow(number, after=after), memory / str(number), ManualClock()
        spool = spool_on(server, folder, clock)
        with pytest.raises(Killed):
            _run(steps(spool, folder))
        spool.journal.close()
        heir = spool_on(server, folder, clock)
        assert (heir.finish(3600, patient=True), heir.journal.inventory.asides()) == (0, []), f"request {number}"
        found = held(server)
        assert _is_part(found, expected), f"request {number}: {found}"
        heir.journal.close()


def _is_part(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether nothing is there twice, and nothing that the whole has not."""
    names = [run["info"]["run_name"] for run in part["runs"]]
    return (
        len(names) == len(set(names))
        and len(part["models"]) <= 1
        and len(part["versions"]) <= 1
        and all(
            len(values) == len({tuple(value) for value in values})
            for run in part["runs"]
            for values in run["metrics"].values()
        )
        and part["files"].items() <= whole["files"].items()
        and set(part["experiments"]) <= set(whole["experiments"])
    )


def test_many_faults_at_random_change_nothing(healthy: tuple[dict[str, Any], int], memory: Path) -> None:
    expected, _ = healthy
    choose = random.Random(seed())
    for number in range(size(8, 2000)):
        share = choose.choice([0.1, 0.3, 0.7])
        plan = _often(choose, share)
        found = train(FakeMlflow(), memory / str(number), plan, plan if share < 0.5 else never)
        assert found == expected
