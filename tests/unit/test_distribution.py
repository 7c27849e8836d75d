"""The tests that share one Airflow or one MLflow run in one worker."""

import re

import pytest

from tests import conftest, distribution
from tests.distribution import (
    AIRFLOW,
    APART,
    INSTALLED,
    LONGEST,
    MLFLOW,
    ROOT,
    SPOOL,
    SharedServersTogether,
    scope_of,
)


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        pytest.param("tests/unit/test_a.py::test_x[1]", "tests/unit/test_a.py::test_x[1]", id="a-unit-test-for-itself"),
        pytest.param("tests/e2e/test_full_chain.py::test_x", AIRFLOW, id="together"),
        pytest.param("tests/e2e/test_airflow_contract.py::test_x[a::b]", AIRFLOW, id="together-with-parameters"),
        pytest.param("tests/e2e/test_new.py::test_x", AIRFLOW, id="a-new-file-is-together-until-said-otherwise"),
        pytest.param("tests/e2e/test_demo.py::test_x", "tests/e2e/test_demo.py", id="apart-with-its-file"),
        pytest.param("tests/e2e/test_wheel.py::test_x", AIRFLOW + INSTALLED[0], id="those-of-the-installed-wheel"),
        pytest.param("tests/spool/integration/test_kill.py::test_x[a]", SPOOL, id="the-spool-together"),
        pytest.param("tests/mlflow/test_tracking.py::test_x", MLFLOW, id="those-of-mlflow-together"),
        pytest.param(
            "tests/mlflow/test_calls.py::test_x", "tests/mlflow/test_calls.py", id="but-for-what-needs-no-server"
        ),
        pytest.param("tests/spool/unit/test_a.py::test_x", "tests/spool/unit/test_a.py::test_x", id="its-units-not"),
        pytest.param("tests/ui/test_links.py::test_x", "tests/ui/test_links.py", id="a-file-of-the-pages"),
        pytest.param(
            "tests/integration/test_listener.py::test_x[a]",
            "tests/integration/test_listener.py",
            id="one-gateway-of-a-file",
        ),
    ],
)
def test_what_goes_to_one_worker(nodeid: str, scope: str) -> None:
    assert scope_of(nodeid) == scope


@pytest.mark.parametrize("name", [*APART, *INSTALLED])
def test_what_goes_apart_needs_no_server_of_the_others(name: str) -> None:
    [file] = [found for folder in (AIRFLOW, SPOOL, MLFLOW) for found in (ROOT / folder).glob(name)]
    assert not re.search(r"\b(real_airflow|real_mlflow|mlflow_server|gateway): (?!Process)[A-Z]", file.read_text())


@pytest.mark.parametrize("scope", LONGEST)
def test_what_takes_longest_is_there(scope: str) -> None:
    assert (ROOT / scope).exists()
    assert scope_of(scope) == scope


def test_what_has_ended_is_not_counted_again() -> None:
    scheduler = SharedServersTogether.__new__(SharedServersTogether)
    workload = {"a": {"a::1": True, "a::2": False}, "b": {"b::1": True}, "c": {"c::1": False}}
    assert scheduler._pending_of(workload) == 2
    assert list(workload) == ["a", "c"]


def test_the_hooks_are_where_pytest_looks_for_them() -> None:
    assert conftest.pytest_xdist_make_scheduler is distribution.pytest_xdist_make_scheduler
    assert conftest.pytest_collection_modifyitems is distribution.pytest_collection_modifyitems
