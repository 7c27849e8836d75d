"""A schedule: what happens to a few gateways, step by step, drawn from one number. Pure.

Each step stands for itself, so a schedule stays one when steps are taken out of it. `shrink` does that.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

REPLICAS: Final = 2
MODELS: Final = ("churn", "fraud")
LOOPS: Final = ("waker", "relay", "follower")

_BASE = """version: 1
airflow:
  - {{name: default, url: "http://airflow.test:8080", auth: {{username: gateway, password: gateway}}}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    cooldown: 1h
    failure_backoff: 5m
    stale_after: 7d
    dag: {{id: retrain_model}}
{more}"""
#: Each shares cooldown, backoff and groups with the others, so that the oracle can count on them over a reload.
POLICIES: Final = {
    "plain": _BASE.format(more=""),
    "held": _BASE.format(more="    debounce: 10m\n"),
    "limited": _BASE.format(more="    limit: {triggers: 1, per: 3h}\n"),
    "spent": _BASE.format(more="    refire: false\n"),
    "kept": _BASE.format(more="    on_failure: keep\n    debounce: 6m\n"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the crossing `at` of the gateway's border, counted from the beginning of its step: the process dies
    (crash), the connection breaks (cut), or the process stands still for `steps` further steps (park)."""

    kind: Literal["crash", "cut", "park"]
    at: int
    steps: int = 1

    def __str__(self) -> str:
        words = {"crash": "it dies", "cut": "its connection breaks", "park": f"it stands still for {self.steps} steps"}
        return f"; at crossing {self.at} {words[self.kind]}"


@dataclass(frozen=True, slots=True)
class Sent:
    """One alert of a notification. `anew`: it begins now, or it began when its sender saw it first."""

    model: str
    part: str
    firing: bool
    anew: bool

    def __str__(self) -> str:
        return f"{self.model}/{self.part} {'fires' if self.firing else 'resolved'}{' anew' if self.anew else ''}"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens. `to` is the replica that it happens to."""

    kind: str
    to: int = 0
    name: str = ""  # of a loop, a request, a policy, or somebody else's trouble
    model: str = ""
    alerts: tuple[Sent, ...] = ()
    seconds: float = 0.0
    fault: Fault | None = None

    def __str__(self) -> str:
        what = {
            "push": f"replica {self.to} gets {', '.join(map(str, self.alerts))}",
            "loop": f"replica {self.to} steps its {self.name}",
            "request": f"somebody asks replica {self.to}: {self.name} {self.model}",
            "reload": f"replica {self.to} takes the policy {self.name}",
            "settle": f"replica {self.to} steps its loops until nothing is due",
            "kill": f"replica {self.to} is killed",
            "pass": f"{self.seconds:g} s pass",
            "outage": f"{self.seconds:g} s pass without a gateway",
        }.get(self.kind, f"{self.kind} {self.name}".strip())
        return f"{what}{self.fault or ''}"


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    policies: tuple[str, str]  # names: the first is in force at the beginning
    steps: tuple[Step, ...]


def schedule_of(seed: int) -> Schedule:
    """The schedule of a number, always the same."""
    chance = random.Random(seed)
    first, other = chance.choices(list(POLICIES), k=2)
    second = first if chance.random() < 0.6 else other
    return Schedule(seed, (first, second), tuple(_step(chance, second) for _ in range(chance.randint(8, 24))))


def _step(chance: random.Random, other: str) -> Step:
    to = chance.randrange(REPLICAS)
    kind = chance.choices(
        ["push", "loop", "settle", "pass", "request", "redis", "airflow", "postgres", "kill", "reload", "outage"],
        [32, 20, 12, 14, 6, 4, 5, 1, 2, 2, 1],
    )[0]
    match kind:
        case "push":
            parts = chance.sample([(m, p) for m in MODELS for p in "ab"], k=chance.choice([1, 1, 2]))
            alerts = [Sent(m, p, chance.random() < 0.75, chance.random() < 0.2) for m, p in parts]
            return Step("push", to, alerts=tuple(alerts), fault=_fault(chance, 16))
        case "loop":
            return Step("loop", to, chance.choices(LOOPS, [3, 4, 3])[0], fault=_fault(chance, 24))
        case "request":
            name = chance.choice(["trigger", "trigger", "force", "reset", "pause", "lift", "cancel", "redrive"])
            return Step("request", to, name, chance.choice(MODELS), fault=_fault(chance, 12))
        case "pass":
            return Step("pass", seconds=chance.choice([1, 20, 130, 601, 1201, 1201, 3601]))
        case "outage":
            return Step("outage", seconds=chance.choice([90, 1201]))
        case "redis":
            return Step("redis", name=chance.choice(["flushed", "kept", "stale"]))
        case "airflow":
            return Step("airflow", name=chance.choice(["down", "up", "lost", "late", "error", "broken", "refuses"]))
        case "reload":
            return Step("reload", to, other)
    return Step(kind, to)


def _fault(chance: random.Random, most: int) -> Fault | None:
    kind = chance.choices([None, "park", "crash", "cut"], [60, 24, 8, 8])[0]
    # A step has few crossings when there is little to do: early ones come more often.
    at, steps = min(chance.randint(1, most), chance.randint(1, most)), chance.randint(1, 5)
    match kind:
        case "park":
            return Fault("park", at, steps)
        case "crash":
            return Fault("crash", at)
        case "cut":
            return Fault("cut", at)
    return None


async def shrink(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], Awaitable[bool]], most: int = 60
) -> Sequence[Step]:
    """Fewer steps that still fail: parts are taken out, ever smaller ones. It tries `most` times."""
    tries, part = 0, max(1, len(steps) // 2)
    while tries < most:
        for begin in range(0, len(steps), part):
            without = [*steps[:begin], *steps[begin + part :]]
            tries += 1
            if await fails(without):
                steps = without
                break
            if tries >= most:
                break
        else:
            if part == 1:
                break
            part //= 2
    return steps
