"""How pytest-xdist spreads the tests: each to whoever is free, but all that share an Airflow or an MLflow to one worker.

An Airflow takes 10 s and 700 MB, an MLflow 10 s; a second one would only make both slower. pytest-xdist's own way, the mark
`xdist_group`, does nothing under pytest 9.2 (pytest-xdist issue 1386).
"""

# mypy: disable-error-code="import-untyped, misc"
# pytest-xdist ships no types.

from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

END_TO_END = "tests/e2e/"
SPOOL = "tests/spool/integration/"
MLFLOW = "tests/mlflow/"
PAGES = "tests/ui/"
INSTALLED = ("test_backtest_prometheus.py", "test_readme.py", "test_wheel.py")  # They share the installed wheel.
#: End-to-end tests that need no Airflow, or one of their own.
APART = (
    "test_airflow2_contract.py",
    "test_alertmanager_timing.py",
    "test_confirm.py",
    "test_demo.py",
    "test_docs_offline.py",
    "test_honest_alertmanager.py",
    "test_receivers.py",
    "test_redis_tls.py",
    "test_rules.py",
)
#: They use MLflow's client in a long process of their own, and no server.
WITHOUT_SERVER = ("test_calls.py", "test_garbage_of_mlflow.py")


class SharedServersTogether(LoadScopeScheduling):
    """Every test for itself, but for those that share a server: the end-to-end tests, those of the spool, those of MLflow.
    Each file of PAGES has one history, and perhaps a browser. pytest-xdist begins with what stays together, so that no
    worker is busy alone in the end."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if nodeid.startswith((SPOOL, MLFLOW)):
            folder = SPOOL if nodeid.startswith(SPOOL) else MLFLOW
            return file if file.endswith(WITHOUT_SERVER) else folder
        if nodeid.startswith(PAGES):
            return file
        if not nodeid.startswith(END_TO_END):
            return nodeid
        if file.endswith(INSTALLED):
            return END_TO_END + INSTALLED[0]
        return file if file.endswith(APART) else END_TO_END

    def _pending_of(self, workload: dict[str, Any]) -> int:
        """pytest-xdist keeps every scope that has ended, and counts them all after each test."""
        for scope in [scope for scope, tests in workload.items() if all(tests.values())]:
            del workload[scope]
        pending: int = super()._pending_of(workload)
        return pending


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """pytest-xdist asks once, in the process that started the workers."""
    return SharedServersTogether(config, log)
