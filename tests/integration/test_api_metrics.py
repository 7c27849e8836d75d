"""Each metric is moved by what it speaks of."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from app.kit.metrics import Metrics
from app.kit.redis.client import Away
from tests.acceptance.world import World
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import (
    ALERTMANAGER,
    NATIVE,
    POLICY,
    native_alert,
    notification,
    opened,
    token_of,
    webhook_alert,
)
from tests.servers import TestServers

TARGET = 'target="airflow:default"'


async def nothing(world: World) -> None:
    pass


async def alert(world: World) -> None:
    await world.push(world.alert(model="churn"))


async def bad_alert(world: World) -> None:
    await world.post(ALERTMANAGER, notification(webhook_alert("Nobody"), 7))


async def bad_body(world: World) -> None:
    await world.post(NATIVE, b"accuracy is low")


async def not_written(world: World) -> None:
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text("ALTER TABLE alerts RENAME TO elsewhere"))
    await world.post(ALERTMANAGER, notification(webhook_alert("Nobody")))


async def behind(world: World) -> None:
    """Redis holds the state of a minute ago: another replica has decided since, and its writes were lost."""
    await world.flush_redis()  # Groups of other tests have the same key, and newer versions.
    alert = webhook_alert(model="churn")
    await world.post(ALERTMANAGER, notification(alert))
    await world.post(ALERTMANAGER, notification(alert))
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text("UPDATE groups SET version = version + 1"))
    await world.post(ALERTMANAGER, notification(alert))


async def redis_away(world: World) -> None:
    world.services[0].foundation.memory._count(Away("nobody listens", asked=True))


async def too_many(world: World) -> None:
    for _ in range(3):
        await world.post(NATIVE, native_alert("nobody"))


async def succeeded(world: World) -> None:
    await alert(world)
    await world.settle()
    await world.pass_by(minutes=40, steps=4)
    await world.services[0].loop("gauges").step()


async def pending(world: World) -> None:
    world.airflow.pause("retrain_model")
    await alert(world)
    await world.pass_by(seconds=7)
    await world.services[0].loop("gauges").step()


async def dead(world: World) -> None:
    world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
    await alert(world)
    await world.settle()
    await world.services[0].loop("gauges").step()


async def grown_old(world: World) -> None:
    await bad_body(world)
    world.clock.pass_by(timedelta(days=91))
    while await world.services[0].loop("retention").step():
        pass


async def replica_away(world: World) -> None:
    await world.get("/api/v1/alerts")


async def away(world: World) -> None:
    world.airflow.down = True
    await alert(world)
    await world.settle()


async def reported(world: World) -> None:
    """The policy names no MLflow to deliver it to."""
    body = {"component": "training", "state": "started", "run": "nightly", "who": "a test"}
    assert (await world.post("/api/v1/metadata", body)).status_code == 202
    await world.services[0].loop("gauges").step()


async def failing_loop(world: World) -> None:
    world.airflow.down = True
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text("ALTER TABLE groups RENAME TO elsewhere"))
    [waker] = [loop for loop in world.services[0].loops if loop.name == "waker"]
    await waker._guarded_step()


async def switch_down(world: World) -> None:
    await world.reload(POLICY + "deadman: [{name: export, expect: heartbeat, every: 1d}]\n")
    assert (await world.clients[0].get("/ping/export/fail")).text == "OK"
    await world.services[0].loop("gauges").step()


async def unwatched(world: World) -> None:
    await world.settle()
    world.outage(minutes=2)
    await world.settle()
    await world.services[0].loop("gauges").step()


async def unread(world: World) -> None:
    await world.reload(POLICY + "deadman: [{name: weekly, expect: {retrain: accuracy}, every: 7d}]\n")
    world.airflow.down = True
    await world.settle()
    await world.services[0].loop("retrains").step()


async def probed(world: World) -> None:
    await world.get("/health/metadata")


MOVED: list[tuple[Callable[[World], Awaitable[None]], str, float]] = [
    (nothing, 'gateway_build_info{version="VERSION"}', 1),
    (nothing, 'gateway_policy_info{hash="HASH"}', 1),
    (nothing, "gateway_policy_reload_success", 1),
    (nothing, "gateway_policy_last_reload_timestamp_seconds", 1795435200),
    (alert, 'gateway_alerts_total{source="alertmanager"}', 1),
    (bad_alert, 'gateway_alerts_quarantined_total{source="alertmanager"}', 1),
    (bad_body, 'gateway_bodies_refused_total{source="native",status="400"}', 1),
    (not_written, "gateway_not_durable_total", 1),
    (alert, 'gateway_decisions_total{action="fire",reason="new_alert",route="accuracy"}', 1),
    (alert, "gateway_batch_alerts_sum", 1),
    (behind, "gateway_memory_stale_total", 1),
    (redis_away, 'gateway_redis_failures_total{use="memory"}', 1),
    (grown_old, 'gateway_pruned_rows_total{table="quarantine"}', 1),
    (replica_away, "gateway_replica_failures_total", 1),
    (too_many, "gateway_rate_limited_total", 2),
    (pending, 'gateway_triggers{route="accuracy",state="pending"}', 1),
    (dead, 'gateway_triggers{route="accuracy",state="dead"}', 1),
    (succeeded, 'gateway_triggers_ended_total{outcome="success",route="accuracy"}', 1),
    (dead, 'gateway_triggers_ended_total{outcome="dead",route="accuracy"}', 1),
    (succeeded, 'gateway_last_success_timestamp_seconds{route="accuracy"}', 1795436400),
    (succeeded, 'gateway_last_success_duration_seconds{route="accuracy"}', 1200),
    (succeeded, f'gateway_delivery_attempts_total{{code="ok",result="delivered",{TARGET}}}', 1),
    (dead, f'gateway_delivery_attempts_total{{code="bad_request",result="dead",{TARGET}}}', 1),
    (pending, f"gateway_outbox_pending{{{TARGET}}}", 1),
    (pending, f"gateway_outbox_oldest_seconds{{{TARGET}}}", 7),
    (dead, f"gateway_outbox_dead{{{TARGET}}}", 1),
    (away, f"gateway_breaker_open{{{TARGET}}}", 1),
    (switch_down, 'gateway_deadman_down{switch="export"}', 1),
    (switch_down, 'gateway_deadman_switches{state="down"}', 1),
    (switch_down, 'gateway_deadman_flips_total{state="down"}', 1),
    (switch_down, 'gateway_pings_total{kind="fail"}', 1),
    (unwatched, "gateway_watch_gap_seconds_total", 120),
    (unwatched, "gateway_watched_until_timestamp_seconds", 1795435320),
    (unread, 'gateway_deadman_read_failures_total{code="connect"}', 1),
    (probed, 'gateway_probe_ok{probe="metadata"}', 1),
    (failing_loop, 'gateway_loop_failures{loop="waker"}', 1),
    (dead, 'gateway_notices_open{event="trigger_dead"}', 1),
    (reported, 'gateway_metadata_waiting{state="pending"}', 2),
]
#: What needs a server or a race of its own is moved by the test that has it.
ELSEWHERE = {
    "gateway_batch_retries": "integration/test_storm.py",
    "gateway_loop_items_failed": "acceptance/test_broken_follow.py",
    "gateway_effects": "acceptance/test_effects.py",
    "gateway_run_seconds": "acceptance/test_effects.py",
    "gateway_fast_path_failures": "integration/test_intake_memory.py",
    "gateway_intake_seconds": "integration/test_stages.py",
    "gateway_intake_waiting_alerts": "integration/test_overload.py",
    "gateway_intake_waiting_bytes": "integration/test_overload.py",
    "gateway_metadata_records": "acceptance/test_metadata.py",
    "gateway_confirms": "acceptance/test_confirm.py",
    "gateway_shadow_triggers": "acceptance/test_shadow.py",
    "gateway_orphans": "mlflow/test_lineage.py",
    "gateway_survey_last_end_timestamp_seconds": "mlflow/test_lineage.py",
    "gateway_watchdog_pings": "integration/test_probes.py",
    "gateway_promotions": "acceptance/test_promotion.py",
    "gateway_promotions_open": "acceptance/test_promotion.py",
    "gateway_probations": "acceptance/test_probation.py",
    "gateway_tokens_file_faults": "integration/test_authorization_matrix.py",
}


@pytest.mark.parametrize(
    ("bring_about", "sample", "value"), MOVED, ids=[sample.split("{")[0] for _, sample, _ in MOVED]
)
async def test_a_metric_is_moved(
    servers: TestServers,
    database: str,
    tmp_path: Path,
    bring_about: Callable[[World], Awaitable[None]],
    sample: str,
    value: float,
) -> None:
    more: dict[str, Any] = {"redis_timeout": 5.0}  # A busy machine must not make Redis look away.
    if bring_about is too_many:
        more |= {"rate_limit": 1, "tokens_file": tmp_path / "tokens"}
        token = token_of(tmp_path, "admin")
    if bring_about is replica_away:
        more |= {"database_read_url": SecretStr(servers.fresh_database())}  # never migrated
    async with opened(servers, database, **more) as world:
        if bring_about is too_many:
            world.clients[0].headers.update(token)
        before = await shown(world)
        await bring_about(world)
        wanted = sample.replace("HASH", world.services[0].core.policy.hash)
        wanted = re.sub("VERSION", next(iter(re.findall(r'build_info\{version="(.+?)"', " ".join(before)))), wanted)
        after = await shown(world)
        assert after[wanted] == value, "\n".join(f"{k} {v}" for k, v in after.items() if v != before.get(k))
        assert bring_about is nothing or before.get(wanted, 0.0) == 0.0


async def shown(world: World) -> dict[str, float]:
    """Every sample of /metrics, its labels sorted."""
    answer = await world.clients[0].get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{label}"' for name, label in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


async def test_the_table_has_every_metric_there_is() -> None:
    declared = {family.name for family in Metrics().registry.collect()}
    named = {re.sub(r"(_total|_sum)?(\{.*)?$", "", sample) for _, sample, _ in MOVED}
    assert declared == named | ELSEWHERE.keys()
    tests = Path(__file__).parents[1]
    assert [name for name, file in ELSEWHERE.items() if name not in (tests / file).read_text()] == []
