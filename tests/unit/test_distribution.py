"""The tests that share one Airflow or one MLflow run in one worker."""

import pytest

from tests import conftest, distribution
from tests.distribution import END_TO_END, WITH_MLFLOW, SharedServersTogether


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        pytest.param("tests/unit/test_a.py::test_x[1]", "tests/unit/test_a.py::test_x[1]", id="a-unit-test-for-itself"),
        pytest.param("tests/e2e/test_full_chain.py::test_x", END_TO_END, id="together"),
        pytest.param("tests/e2e/test_airflow_contract.py::test_x[a::b]", END_TO_END, id="together-with-parameters"),
        pytest.param("tests/e2e/test_new.py::test_x", END_TO_END, id="a-new-file-is-together-until-said-otherwise"),
        pytest.param("tests/e2e/test_demo.py::test_x", "tests/e2e/test_demo.py", id="apart-with-its-file"),
        pytest.param("tests/spool/integration/test_kill.py::test_x[a]", WITH_MLFLOW[0], id="the-spool-together"),
        pytest.param("tests/mlflow/test_tracking.py::test_x", WITH_MLFLOW[0], id="and-with-all-others-of-mlflow"),
        pytest.param("tests/spool/unit/test_a.py::test_x", "tests/spool/unit/test_a.py::test_x", id="its-units-not"),
    ],
)
def test_what_goes_to_one_worker(nodeid: str, scope: str) -> None:
    scheduler = SharedServersTogether.__new__(SharedServersTogether)
    assert scheduler._split_scope(nodeid) == scope


def test_the_hook_is_where_pytest_xdist_looks_for_it() -> None:
    assert conftest.pytest_xdist_make_scheduler is distribution.pytest_xdist_make_scheduler
