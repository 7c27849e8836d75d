"""How pytest-xdist spreads the tests: each to whoever is free, but all that share a server to one worker, the longest first.

An Airflow takes 10 s and 700 MB, an MLflow 10 s; a second one would only make both slower. pytest-xdist's own way, the mark
`xdist_group`, does nothing under pytest 9.2 (pytest-xdist issue 1386).
"""

# mypy: disable-error-code="import-untyped, misc"
# pytest-xdist ships no types.

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW = "tests/e2e/"
SPOOL = "tests/spool/integration/"
MLFLOW = "tests/mlflow/"
PAGES = "tests/ui/"  # Each file has one history, and perhaps a browser.
INSTALLED = ("test_backtest_prometheus.py", "test_readme.py", "test_wheel.py")  # They share the installed wheel.
#: Files below AIRFLOW, SPOOL and MLFLOW that need no server of the others.
APART = (
    "test_airflow2_contract.py",
    "test_alertmanager_timing.py",
    "test_calls.py",
    "test_confirm.py",
    "test_demo.py",
    "test_docs_offline.py",
    "test_garbage_of_mlflow.py",
    "test_honest_alertmanager.py",
    "test_receivers.py",
    "test_redis_tls.py",
    "test_rules.py",
)
#: The first to begin, because they take a minute or more: no worker may be busy alone in the end.
LONGEST = (
    AIRFLOW,
    SPOOL,
    "tests/e2e/test_demo.py",
    MLFLOW,
    AIRFLOW + INSTALLED[0],
    "tests/spool/integration/test_garbage_of_mlflow.py",
    "tests/e2e/test_airflow2_contract.py",
    "tests/mlflow/test_calls.py",
)


def scope_of(nodeid: str) -> str:
    """What goes to one worker has one scope."""
    file = nodeid.partition("::")[0]
    if file.startswith(AIRFLOW) and file.endswith(INSTALLED):
        return AIRFLOW + INSTALLED[0]
    for folder in (AIRFLOW, SPOOL, MLFLOW):
        if file.startswith(folder):
            return file if file.endswith(APART) else folder
    return file if file.startswith(PAGES) or shares(file) else nodeid


@cache
def shares(file: str) -> bool:
    """Whether the tests of this file share a fixture, which every worker would make anew: a gateway, say."""
    return (ROOT / file).is_file() and 'scope="module"' in (ROOT / file).read_text()


class SharedServersTogether(LoadScopeScheduling):
    """As `scope_of` says, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _pending_of(self, workload: dict[str, Any]) -> int:
        """pytest-xdist keeps every scope that has ended, and counts them all after each test."""
        for scope in [scope for scope, tests in workload.items() if all(tests.values())]:
            del workload[scope]
        pending: int = super()._pending_of(workload)
        return pending


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {scope: place for place, scope in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(scope_of(item.nodeid), len(places)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """pytest-xdist asks once, in the process that started the workers."""
    config.option.loadscopereorder = False  # Otherwise it begins with the scopes that have the most tests.
    return SharedServersTogether(config, log)
