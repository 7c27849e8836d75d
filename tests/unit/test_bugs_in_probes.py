"""A probe answers whatever happens. A bug in it goes to the log; a database that is away does not."""

import logging

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.deadman import probe
from app.kit.db import log_a_bug, open_engine
from app.policy.file.load import parse_policy
from tests.acceptance.world import POLICY
from tests.fakes.clock import ManualClock


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (AttributeError("x"), True),
        (KeyError("x"), True),
        (TimeoutError(), False),
        (ConnectionRefusedError(), False),
        (PoolTimeout(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_is_not_of_the_database_is_a_bug(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log_a_bug(error)
    assert bool(caplog.records) == logged


async def test_a_probe_that_breaks_answers_and_logs_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    policy = parse_policy(POLICY, "policy.yaml", {})
    found = await probe.look(None, policy, ManualClock())  # type: ignore[arg-type]
    assert found == {"watch": "postgres does not answer (AttributeError)"}
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_a_probe_of_a_database_that_is_away_answers_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    policy = parse_policy(POLICY, "policy.yaml", {})
    found = await probe.look(open_engine("postgresql://127.0.0.1:1/none"), policy, ManualClock())
    assert found == {"watch": "postgres does not answer (ConnectionRefusedError)"}
    assert not caplog.records
