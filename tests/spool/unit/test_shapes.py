"""JSON that has not the shape of MLflow's answers: nothing is believed, nothing raises, and in the end all is there once."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import SpoolError
from mlflow_spool.records import API, Answer, Call
from mlflow_spool.spool import Spool
from tests.sizes import size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, at, never
from tests.spool.workload import ManualClock, held, spool_on, steps

PAGE = {"message": "<html>Please log in</html>"}
ODD: dict[str, list[Any]] = {
    "runs/create": [{}, PAGE, {"run": None}, {"run": []}, {"run": {"info": 5}}, {"run": {"info": {"run_id": None}}}],
    "experiments/create": [{}, PAGE, {"experiment_id": None}, {"experiment_id": []}, {"experiment_id": ""}],
    "logged-models": [{}, PAGE, {"model": "m"}, {"model": {"info": {"model_id": {}}}}],
    "model-versions/create": [{}, PAGE, {"model_version": 7}, {"model_version": {"version": [1]}}],
}
SEARCHES: dict[str, tuple[str, list[Any]]] = {
    "runs/create": (
        "runs/search",
        [PAGE, {"runs": 5}, {"runs": {"a": 1}}, {"runs": [5]}, {"runs": [{}]}, {"runs": [{"info": {"run_id": 5.5}}]}],
    ),
    "logged-models": ("logged-models/search", [PAGE, {"models": None}, {"models": ["m"]}, {"models": [{"info": []}]}]),
    "model-versions/create": ("model-versions/search", [PAGE, {"model_versions": "v"}, {"model_versions": [{}]}]),
    "experiments/create": (
        "experiments/get-by-name",
        [{}, PAGE, {"experiment": 5}, {"experiment": {"experiment_id": None, "name": "churn"}}],
    ),
    "runs/outputs": (
        "runs/get",
        [{}, PAGE, {"run": 5}, {"run": {"outputs": []}}, {"run": {"outputs": {"model_outputs": [5]}}}],
    ),
    "params": ("logged-models/", [{}, PAGE, {"model": []}, {"model": {"data": {"params": [["k", "v"]]}}}]),
}


class OddMlflow(FakeMlflow):
    """Answers the first request of each kind in `odd` by that body, and carries nothing out."""

    def __init__(self) -> None:
        super().__init__()
        self.odd: dict[str, Any] = {}

    def send(self, call: Call, timeout: float) -> Answer:
        for name in self.odd:
            rest = call.path.removeprefix(f"{API}/")
            if rest == name or (name.endswith("/") and call.method == "GET" and rest.startswith(name)):
                return Answer(200, self.odd.pop(name))
        return super().send(call, timeout)


def train(spool: Spool, folder: Path) -> None:
    for step in steps(spool, folder):
        step()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    server, folder = FakeMlflow(), tmp_path_factory.mktemp("healthy")
    train(spool_on(server, folder, ManualClock()), folder)
    return held(server)


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, bodies in ODD.items() for body in bodies], ids=str)
def test_a_creation_is_not_done_before_the_answer_names_what_it_made(
    memory: Path, healthy: dict[str, Any], name: str, body: Any
) -> None:
    server = OddMlflow()
    server.odd[name] = body
    spool = spool_on(server, memory, ManualClock())
    train(spool, memory)
    assert (spool.finish(3600, patient=True), spool.journal.inventory.asides()) == (0, [])
    assert (held(server), server.odd) == (healthy, {})


@pytest.mark.parametrize(
    ("name", "search", "body"),
    [(name, search, body) for name, (search, bodies) in SEARCHES.items() for body in bodies],
    ids=str,
)
def test_what_may_be_there_already_is_not_made_again_after_an_odd_answer_to_the_search(
    memory: Path, healthy: dict[str, Any], name: str, search: str, body: Any
) -> None:
    server, clock = OddMlflow(), ManualClock()
    lost: list[str] = []

    def plan(_number: int, line: str) -> Fault:
        if line.startswith("POST") and line.endswith(f"/{name}") and not lost:
            lost.append(line)
            server.odd[search] = body
            return Fault.COMMIT_AND_DROP
        return Fault.NONE

    server.plan = plan
    spool = spool_on(server, memory, clock)
    train(spool, memory)
    assert (spool.finish(3600, patient=True), spool.journal.inventory.asides()) == (0, [])
    assert held(server) == healthy
    assert lost


FOREIGN = "spool-" + "a" * 32
STRANGE: list[tuple[str, Any]] = [
    ("experiments/search", {"experiments": 5}),
    ("experiments/search", {"experiments": [5]}),
    ("experiments/search", {"experiments": [{}]}),
    ("experiments/search", PAGE),
    ("runs/search", {"runs": [{"info": None}]}),
    ("runs/search", {"runs": [{"info": {"run_id": []}}]}),
    ("runs/search", PAGE),
]


@pytest.mark.parametrize(("name", "body"), STRANGE, ids=str)
def test_a_run_of_another_machine_is_looked_for_again_after_an_odd_answer(memory: Path, name: str, body: Any) -> None:
    server, clock = OddMlflow(), ManualClock()
    server.runs["r"] = {"info": {"run_id": "r"}, "metrics": {}, "params": {}, "outputs": []}
    server.runs["r"]["tags"] = {"mlflow_spool.run_key": "a" * 32}
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, memory, clock)
    spool.call("POST", f"{API}/runs/set-tag", {"run_id": FOREIGN, "key": "k", "value": "v"})
    server.plan = never
    clock.seconds += 2 * 86_400
    server.odd[name] = body
    assert (spool.finish(600, patient=True), spool.journal.inventory.asides()) == (0, [])
    assert server.runs["r"]["tags"]["k"] == "v"


READS: list[tuple[str, Any]] = [
    ("runs/get", {"run": {"data": {"params": [5]}, "info": {}}}),
    ("runs/get", {"run": {"info": []}}),
    ("runs/get", {}),
    ("metrics/get-history", {"metrics": [{"step": "x"}]}),
    ("metrics/get-history", {"metrics": 5}),
    ("artifacts/list", {"files": [{}]}),
    ("artifacts/list", {"files": [{"path": "p", "file_size": "many"}]}),
    ("model-versions/get", {"model_version": 1}),
    ("logged-models/", {"model": {"info": 5}}),
]


@pytest.mark.parametrize(("name", "body"), READS, ids=str)
def test_a_certificate_says_that_it_could_not_be_read_after_an_odd_answer(memory: Path, name: str, body: Any) -> None:
    server = OddMlflow()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.REFUSE)
    train(spool, memory)
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    server.odd[name] = body
    with pytest.raises(SpoolError):
        list(spool.certificates())
    assert all(found.is_complete for found in spool.certificates())


def test_a_certificate_says_that_something_else_answered(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    train(spool, memory)
    server.plan = lambda number, _line: Fault.LOGIN_PAGE if number >= 0 else Fault.NONE
    with pytest.raises(SpoolError):
        list(spool.certificates())


@pytest.mark.parametrize(
    "body",
    [
        {"experiment": 5},
        {"experiment": []},
        {"experiment": {"name": 5}},
        {"experiment": {"experiment_id": None, "name": "churn"}},
    ],
    ids=str,
)
def test_an_odd_answer_is_not_remembered_for_when_mlflow_is_away(memory: Path, body: Any) -> None:
    server = OddMlflow()
    server.odd["experiments/get-by-name"] = body
    spool = spool_on(server, memory, ManualClock())
    spool.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": "churn"})
    server.plan = at(-1, Fault.REFUSE)
    spool.call("POST", f"{API}/experiments/create", {"name": "churn"})
    server.plan = always(Fault.REFUSE)
    with pytest.raises(SpoolError):
        spool.call("POST", f"{API}/experiments/search", {})
    with pytest.raises(SpoolError):
        spool.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": "churn"})


def test_a_read_that_something_else_answers_raises(memory: Path) -> None:
    server = OddMlflow()
    spool = spool_on(server, memory, ManualClock())
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    server.plan = always(Fault.LOGIN_PAGE)
    with pytest.raises(SpoolError):
        spool.call("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})
    assert spool.call("GET", f"{API}/runs/get", {"run_id": run})["run"]["info"]["run_id"] == run


def test_a_login_page_in_mlflows_place_for_hours_sets_nothing_aside(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.LOGIN_PAGE)
    train(spool, memory)
    assert spool.finish(size(2, 6) * 3600, patient=True) > 0
    assert spool.journal.inventory.asides() == []
    server.plan = never
    assert spool.finish(3600, patient=True) == 0
    assert len(server.runs) == 2
