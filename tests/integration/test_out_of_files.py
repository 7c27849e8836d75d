"""When the process may open no more files, nothing is said against a file, and all is read when there is room again."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.kit.errors import OutOfFiles
from app.policy.core import Core
from app.policy.file.load import load_policy, parse_policy
from app.policy.language.cron import read_zone
from app.web.tokens import Tokens, create_token, read_tokens
from tests.acceptance.world import World, policy
from tests.integration.api import problem
from tests.servers import TestServers
from tests.unit.test_tokens import ManualClock

ZONED = """
version: 1
airflow:
  - {name: default, url: "http://127.0.0.1:1"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    mute: [night]
    dag: {id: retrain_model}
time_intervals:
  - name: night
    time_intervals: [{location: America/Montevideo, times: [{start_time: "01:00", end_time: "02:00"}]}]
"""


@contextmanager
def no_more_files() -> Iterator[None]:
    """For root too: every open() of this process fails with EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # The number that the next file would get.
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_neither_a_policy_nor_tokens_nor_a_time_zone_is_called_bad(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(ZONED)
    tokens = tmp_path / "tokens"
    create_token(tokens, ["read"], "ana", datetime(2026, 11, 30, tzinfo=UTC))
    with no_more_files():
        for read in (
            lambda: load_policy(path),
            lambda: parse_policy(ZONED, "policy.yaml", {}),
            lambda: read_tokens(tokens),
            lambda: read_zone("Pacific/Chatham"),
        ):
            with pytest.raises(OutOfFiles, match="ulimit -n"):
                read()
    assert load_policy(path).routes


def test_a_revoked_token_is_refused_as_soon_as_the_file_can_be_read(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens", ManualClock()
    text = create_token(path, ["read"], "ana", clock.now())
    tokens = Tokens(path, clock, loopback=False, monotonic=clock.monotonic)
    path.write_text("")
    clock.advance(2)
    with no_more_files():
        assert tokens.check(f"Bearer {text}") is not None
    clock.advance(2)
    assert tokens.check(f"Bearer {text}") is None


async def test_the_policy_in_force_is_not_called_refused(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        core: Core = world.services[0].core
        reloader = world.services[0].reloader
        before = core.policy.hash
        with no_more_files():
            for _ in range(3):
                assert await reloader.step() is False
            problem(await world.clients[0].post("/-/reload"), 503, "unavailable")
        assert core.policies.refusal is None
        assert (await world.get("/readyz", verbose=""))["policy"]["refused"] is None
        assert (await world.reload(policy(cooldown="48h"))).status_code == 200
        assert core.policy.hash != before
