"""The tests that share one Airflow or one MLflow run in one worker."""

import re
from pathlib import Path

import pytest

from tests import conftest, distribution
from tests.distribution import APART, END_TO_END, INSTALLED, MLFLOW, SPOOL, WITHOUT_SERVER, SharedServersTogether


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        pytest.param("tests/unit/test_a.py::test_x[1]", "tests/unit/test_a.py::test_x[1]", id="a-unit-test-for-itself"),
        pytest.param("tests/e2e/test_full_chain.py::test_x", END_TO_END, id="together"),
        pytest.param("tests/e2e/test_airflow_contract.py::test_x[a::b]", END_TO_END, id="together-with-parameters"),
        pytest.param("tests/e2e/test_new.py::test_x", END_TO_END, id="a-new-file-is-together-until-said-otherwise"),
        pytest.param("tests/e2e/test_demo.py::test_x", "tests/e2e/test_demo.py", id="apart-with-its-file"),
        pytest.param("tests/e2e/test_wheel.py::test_x", END_TO_END + INSTALLED[0], id="those-of-the-installed-wheel"),
        pytest.param("tests/spool/integration/test_kill.py::test_x[a]", SPOOL, id="the-spool-together"),
        pytest.param("tests/mlflow/test_tracking.py::test_x", MLFLOW, id="those-of-mlflow-together"),
        pytest.param(
            "tests/mlflow/test_calls.py::test_x", "tests/mlflow/test_calls.py", id="but-for-what-needs-no-server"
        ),
        pytest.param("tests/spool/unit/test_a.py::test_x", "tests/spool/unit/test_a.py::test_x", id="its-units-not"),
    ],
)
def test_what_goes_to_one_worker(nodeid: str, scope: str) -> None:
    scheduler = SharedServersTogether.__new__(SharedServersTogether)
    assert scheduler._split_scope(nodeid) == scope


@pytest.mark.parametrize("name", [*APART, *INSTALLED])
def test_what_goes_apart_needs_no_airflow_of_others(name: str) -> None:
    text = (Path(__file__).parents[1] / "e2e" / name).read_text()
    assert not re.search(r"\b(real_airflow|real_mlflow|gateway): ", text)


@pytest.mark.parametrize("name", WITHOUT_SERVER)
def test_what_needs_no_server_asks_for_none(name: str) -> None:
    [file] = (Path(__file__).parents[1]).glob(f"*/**/{name}")
    assert "mlflow_server" not in file.read_text()


def test_what_has_ended_is_not_counted_again() -> None:
    scheduler = SharedServersTogether.__new__(SharedServersTogether)
    workload = {"a": {"a::1": True, "a::2": False}, "b": {"b::1": True}, "c": {"c::1": False}}
    assert scheduler._pending_of(workload) == 2
    assert list(workload) == ["a", "c"]


def test_the_hook_is_where_pytest_xdist_looks_for_it() -> None:
    assert conftest.pytest_xdist_make_scheduler is distribution.pytest_xdist_make_scheduler
