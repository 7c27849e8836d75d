"""How pytest-xdist spreads the tests: each to whoever is free, but all that share an Airflow or an MLflow to one worker.

An Airflow takes 10 s and 700 MB, an MLflow 10 s; a second one would only make both slower. pytest-xdist's own way, the mark
`xdist_group`, does nothing under pytest 9.2 (pytest-xdist issue 1386).
"""

# mypy: disable-error-code="import-untyped, misc"
# pytest-xdist ships no types.

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

END_TO_END = "tests/e2e/"
WITH_MLFLOW = ("tests/spool/integration/", "tests/mlflow/")
PAGES = "tests/ui/"
APART = ("test_demo.py", "test_docs_offline.py", "test_wheel.py")  # They need no Airflow, or one of their own.


class SharedServersTogether(LoadScopeScheduling):
    """Every test for itself, but for the end-to-end tests: they stay together, and those APART each with their file. So
    do those WITH_MLFLOW. Each file of PAGES has one history, and perhaps a browser."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(WITH_MLFLOW):
            return WITH_MLFLOW[0]
        if nodeid.startswith(PAGES):
            return nodeid.partition("::")[0]
        if not nodeid.startswith(END_TO_END):
            return nodeid
        file = nodeid.partition("::")[0]
        return file if file.endswith(APART) else END_TO_END


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """pytest-xdist asks once, in the process that started the workers."""
    return SharedServersTogether(config, log)
