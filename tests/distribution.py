"""How pytest-xdist spreads the tests: each to whoever is free, but all end-to-end tests to one worker.

They share one real Airflow, which takes 10 s and 700 MB; a second one would only make both slower. pytest-xdist's own
way, the mark `xdist_group`, does nothing under pytest 9.2 (pytest-xdist issue 1386).
"""

# mypy: disable-error-code="import-untyped, misc"
# pytest-xdist ships no types.

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

TOGETHER = "tests/e2e/"


class EndToEndTogether(LoadScopeScheduling):
    """Every test for itself, but for those below TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """pytest-xdist asks once, in the process that started the workers."""
    return EndToEndTogether(config, log)
