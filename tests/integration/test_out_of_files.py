"""When the process may open no more files, nothing is said against a file, and all is read when there is room again."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.kit.access import Access
from app.kit.airflow.auth import FileTokens, TokenFileAuth
from app.kit.errors import OutOfFiles, Refused
from app.kit.http import open_http
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
    gc.collect()  # What it closes later would be room again.
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


async def test_neither_a_token_file_nor_a_ca_file_nor_a_server_is_blamed(tmp_path: Path) -> None:
    token, ca = tmp_path / "token", tmp_path / "ca.pem"
    token.write_text("secret")
    ca.write_text("no certificate")
    async with open_http() as http:
        with no_more_files():
            with pytest.raises(OutOfFiles, match="ulimit -n"):
                await FileTokens(TokenFileAuth(token)).current()
            for access in (Access(token_file=token), Access(ca_file=ca), Access()):
                with pytest.raises(OutOfFiles, match="ulimit -n"):
                    await http.using(access).request("POST", "http://127.0.0.1:9/x", json={})
        with pytest.raises(Refused, match="holds no certificates"):
            await http.using(Access(ca_file=ca)).request("POST", "http://127.0.0.1:9/x", json={})


async def test_a_delivery_without_files_says_nothing_of_airflow_and_goes_on_when_there_are_some(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    text = policy().replace("{username: gateway, password: gateway}", f'{{token_file: "{token}"}}')
    async with World(servers, database, text, delivery_deadline=120.0) as world:
        world.airflow.add_dag("retrain_model")
        token.write_text(world.airflow.mint())
        await world.push(world.alert(model="churn"))
        engine = world.services[0].core.engine
        async with AsyncExitStack() as open_ones:  # The pool has connections enough for a step.
            for _ in range(6):
                await open_ones.enter_async_context(engine.connect())
        with no_more_files():
            for _ in range(20):
                world.clock.pass_by(timedelta(minutes=1))
                await world.services[0].loop("relay").step()
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", "out_of_files")
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_breaker_open{target="airflow:default"} 0.0' in metrics
        await world.pass_by(minutes=2, steps=6)
        assert len(world.airflow.posts) == 1


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
