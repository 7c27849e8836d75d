"""A replay decides as the gateway lived: random lives are recorded and replayed, and every fire is alike."""

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.decide.state import Confirmation
from app.policy.file.load import parse_policy
from app.replay.backtest import Question, play
from app.replay.check import check
from app.replay.figures import Scope
from app.replay.history import History
from app.replay.replay import REORDER, Replay
from tests.acceptance.lives import (
    LENGTH,
    LONG,
    SHORT,
    Fire,
    Life,
    Step,
    confirms,
    history_of,
    recorded_history,
    replayed,
    script,
)
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.prometheus import FakePrometheus
from tests.servers import TestServers
from tests.sizes import seed, size

NIGHT = "\ntime_intervals: [{name: night, time_intervals: [{times: [{start_time: '22:00', end_time: '24:00'}]}]}]\n"
DAILY = "\nschedules: [{name: often, cron: '17 */5 * * *', route: accuracy, group: {model: churn}}]\n"
CONFIRM = "confirm: {prometheus: 'http://prometheus.test', query: 'x{model=\"{{group.model}}\"}'}"

POLICIES = {
    "plain": policy(cooldown="2h"),
    "held": policy("debounce: 10m", cooldown="2h"),
    "spent, limited": policy("refire: false\nlimit: {triggers: 2, per: 6h}\ndebounce: 3m", cooldown="1h"),
    "no release": policy("on_failure: keep\nstale_after: 1h", cooldown="3h"),
    "shadow": policy("mode: shadow\ndebounce: 5m", cooldown="2h"),
    "muted, scheduled": policy("mute: [night]\ndebounce: 10m", cooldown="2h") + NIGHT + DAILY,
    "confirmed": policy(CONFIRM + "\ndebounce: 5m", cooldown="1h"),
    "lost": policy("run_timeout: 5m", cooldown="1h"),
    "one at a time": policy(cooldown="1h", airflow="max_parallel: 1"),
    "one group": policy(group_by="[]", cooldown="2h"),
}

#: `make test` lives the same lives each time. `make prove` draws new ones: docs/operations/proofs.md says which were lived.
SEED = 1
SAMPLE = ["held", "spent, limited", "confirmed"]  # "muted, scheduled" lives for two months below.


async def lived(
    servers: TestServers, database: str, texts: list[str], steps: list[Step], *, replicas: int = 1, fails: bool = True
) -> tuple[History, History, list[Fire], datetime]:
    """What a replay reads of one life, as the test wrote it down and as the gateway did, what fired in it, and its end."""

    def outcome(run: FakeRun) -> str:
        # By group and moment, for run ids are new in each life: a life that is not alike can be lived again.
        kept = json.dumps([run.conf["gateway"]["group"], run.queued_at.isoformat()], sort_keys=True)
        return "failed" if fails and zlib.crc32(kept.encode()) % 4 == 0 else "success"

    clock = ManualClock()
    prometheus = FakePrometheus(clock)
    airflow = FakeAirflow(clock, auto_finish=LENGTH, outcome=outcome)
    others = {"prometheus.test": prometheus}
    async with World(
        servers, database, texts[0], replicas=replicas, airflow=airflow, others=others, clock=clock
    ) as world:
        airflow.add_dag("retrain_model")
        life = Life(world, prometheus, texts)
        await life.live(steps)
        return history_of(life.lines), await recorded_history(world), await life.fires(), clock.now()


def replay_of(history: History, text: str, until: datetime, *, live: bool, length: timedelta | None = None) -> Replay:
    parsed = parse_policy(text, "policy.yaml", {})
    question = Question(parsed, until=until, length=length)
    return play(history, parsed, question, Scope(NOON, until), live=live)


@pytest.mark.parametrize("name", size(SAMPLE, list(POLICIES)))
async def test_a_life_and_its_replay_fire_alike(servers: TestServers, database: str, name: str) -> None:
    chance = random.Random(size(SEED, None) or seed())
    others = [chance.choice([text for text in POLICIES.values() if "group_by: []" not in text]) for _ in range(2)]
    texts = [POLICIES[name], *(others if name != "one group" else [])]
    replicas = chance.choice([1, 2])
    steps = script(chance, size(10, 400), replicas)
    written, recorded, fires, end = await lived(servers, database, texts, steps, replicas=replicas)
    for history in (written, recorded):
        assert replayed(replay_of(history, texts[0], end, live=True)) == fires
    checked = check(recorded, None, None, REORDER)
    assert (len(checked.pairs), checked.differences) == (len(fires), [])


@pytest.mark.parametrize("name", size(["one at a time"], ["held", "spent, limited", "shadow", "one at a time"]))
async def test_a_candidate_lives_as_its_replay_says(
    servers: TestServers, new_database: Callable[[], str], name: str
) -> None:
    chance = random.Random(size(SEED, None) or seed())
    # Within a minute the history of another policy knows the last repeat only.
    known = script(chance, size(10, 400), 1, SHORT[1:])
    steps = [step for step in known if step.kind not in ("reload", "cancel")]
    candidate = POLICIES[name]
    written, recorded, *_ = await lived(servers, new_database(), [POLICIES["plain"]], steps, fails=False)
    *_, fires, end = await lived(servers, new_database(), [candidate], steps, fails=False)
    for history in (written, recorded):
        assert replayed(replay_of(history, candidate, end, live=False, length=LENGTH)) == fires


def in_shadow(text: str) -> str:
    dag = "    dag: {id: retrain_model}\n"
    return text if "mode: shadow" in text else text.replace(dag, dag + "    mode: shadow\n")


async def test_two_months_are_alike_and_so_is_each_candidate_that_lived_through_them_in_shadow(
    servers: TestServers, new_database: Callable[[], str]
) -> None:
    chance = random.Random(size(SEED, None) or seed())
    # A reload and a cancel would do something else to a candidate.
    steps = [step for step in script(chance, size(8, 100), 2, LONG) if step.kind not in ("reload", "cancel")]
    _, recorded, fires, end = await lived(servers, new_database(), [POLICIES["plain"]], steps, replicas=2)
    assert end - NOON > size(timedelta(0), timedelta(days=30))
    checked = check(recorded, None, None, REORDER)
    assert (len(checked.pairs), checked.differences) == (len(fires), [])
    asked = replace(recorded, ask=lambda _, group, at: Confirmation(confirms(group["model"], at), "as then"))
    for name in size(["muted, scheduled"], list(POLICIES)):
        candidate = in_shadow(POLICIES[name])
        *_, fires, end = await lived(servers, new_database(), [candidate], steps, replicas=2)
        assert replayed(replay_of(asked, candidate, end, live=False)) == fires, name
