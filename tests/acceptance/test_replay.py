"""A replay decides as the gateway lived: random lives are recorded and replayed, and every fire is alike."""

import json
import random
import zlib
from collections import Counter
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
from tests.acceptance.lives import LENGTH, LONG, SHORT, Fire, confirms, live_through, replayed, script
from tests.acceptance.world import policy
from tests.fakes.airflow import FakeRun
from tests.fakes.clock import NOON
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
#: A life that differs names its seed: with TEST_SEED it is the first of its kind to be lived again.
SEED = 1
SAMPLE = ["held", "spent, limited", "confirmed"]  # "muted, scheduled" lives for two months below.
CANDIDATES = ["held", "spent, limited", "shadow", "one at a time"]
#: How many lives of a kind, and how many steps one of them may have. `make prove` lives 1,500 and, in pairs, 500 more.
LIVES, PAIRS, STEPS = size(1, 150), size(1, 60), size((10,), (10, 20, 40, 80))


def fails(run: FakeRun) -> str:
    """One run of four fails: by group and moment, for run ids are new in each life, and a life must be repeatable."""
    kept = json.dumps([run.conf["gateway"]["group"], run.queued_at.isoformat()], sort_keys=True)
    return "failed" if zlib.crc32(kept.encode()) % 4 == 0 else "success"


def replay_of(history: History, text: str, until: datetime, *, live: bool, length: timedelta | None = None) -> Replay:
    parsed = parse_policy(text, "policy.yaml", {})
    question = Question(parsed, until=until, length=length)
    return play(history, parsed, question, Scope(NOON, until), live=live)


def apart(fires: list[Fire], others: list[Fire]) -> list[str]:
    """What only one side fired, for a person."""
    live, ours = Counter(fires), Counter(others)
    only = [f"only live: {fire}" for fire in (live - ours).elements()]
    return only + [f"only the replay: {fire}" for fire in (ours - live).elements()]


def drawn(lives: int) -> range:
    """The seeds of so many lives."""
    first = size(SEED, None) or seed()
    return range(first, first + lives)


async def differences(servers: TestServers, template: str, name: str, number: int) -> list[str]:
    """What differs between a random life under a policy and its replays."""
    chance = random.Random(number)
    others = [chance.choice([text for text in POLICIES.values() if "group_by: []" not in text]) for _ in range(2)]
    texts = [POLICIES[name], *(others if name != "one group" else [])]
    replicas = chance.choice([1, 2])
    steps = script(chance, chance.choice(STEPS), replicas)
    lived = await live_through(servers, template, texts, steps, chance=chance, replicas=replicas, outcome=fails)
    found = []
    for history in (lived.written, lived.recorded):
        found += apart(lived.fires, replayed(replay_of(history, texts[0], lived.end, live=True)))
    checked = check(lived.recorded, None, None, REORDER)
    if len(checked.pairs) != len(lived.fires):
        found.append(f"{len(checked.pairs)} checked of {len(lived.fires)} fires")
    return found + [str(pair) for pair in checked.differences]


@pytest.mark.parametrize("name", size(SAMPLE, list(POLICIES)))
async def test_a_life_and_its_replay_fire_alike(servers: TestServers, template: str, name: str) -> None:
    found = {number: await differences(servers, template, name, number) for number in drawn(LIVES)}
    assert {f"TEST_SEED={number}": each for number, each in found.items() if each} == {}


async def differences_of_a_candidate(servers: TestServers, template: str, name: str, number: int) -> list[str]:
    """What differs between the replay of a candidate over a life under the plain policy, and its own life through the
    same script."""
    chance = random.Random(number)
    # Within a minute the history of another policy knows the last repeat only.
    known = script(chance, chance.choice(STEPS), 1, SHORT[1:])
    steps = [step for step in known if step.kind not in ("reload", "cancel")]
    lived = await live_through(servers, template, [POLICIES["plain"]], steps, chance=chance)
    own = await live_through(servers, template, [POLICIES[name]], steps, chance=chance)
    found = []
    for history in (lived.written, lived.recorded):
        found += apart(own.fires, replayed(replay_of(history, POLICIES[name], own.end, live=False, length=LENGTH)))
    return found


@pytest.mark.parametrize("name", size(["one at a time"], CANDIDATES))
async def test_a_candidate_lives_as_its_replay_says(servers: TestServers, template: str, name: str) -> None:
    found = {number: await differences_of_a_candidate(servers, template, name, number) for number in drawn(PAIRS)}
    assert {f"TEST_SEED={number}": each for number, each in found.items() if each} == {}


def in_shadow(text: str) -> str:
    dag = "    dag: {id: retrain_model}\n"
    return text if "mode: shadow" in text else text.replace(dag, dag + "    mode: shadow\n")


async def test_two_months_are_alike_and_so_is_each_candidate_that_lived_through_them_in_shadow(
    servers: TestServers, template: str
) -> None:
    chance = random.Random(drawn(1)[0])
    # A reload and a cancel would do something else to a candidate.
    steps = [step for step in script(chance, size(8, 100), 2, LONG) if step.kind not in ("reload", "cancel")]
    plain = [POLICIES["plain"]]
    lived = await live_through(servers, template, plain, steps, chance=chance, replicas=2, outcome=fails)
    assert lived.end - NOON > size(timedelta(0), timedelta(days=30))
    checked = check(lived.recorded, None, None, REORDER)
    assert (len(checked.pairs), checked.differences) == (len(lived.fires), [])
    asked = replace(lived.recorded, ask=lambda _, group, at: Confirmation(confirms(group["model"], at), "as then"))
    for name in size(["muted, scheduled"], list(POLICIES)):
        candidate = in_shadow(POLICIES[name])
        own = await live_through(servers, template, [candidate], steps, chance=chance, replicas=2, outcome=fails)
        assert apart(own.fires, replayed(replay_of(asked, candidate, own.end, live=False))) == [], name
