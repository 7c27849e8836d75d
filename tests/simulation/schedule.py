"""A schedule: what happens to a few gateways, step by step, drawn from one number. Pure.

Each step stands for itself, so a schedule stays one when steps are taken out of it. `shrink` does that.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

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


#: Kinds of crossings: of the gateway's border with Postgres, and with other people's servers.
Crossing = Literal["statement", "commit", "committed", "request", "answer"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the gateway's border: the process dies (crash), the connection breaks (cut), or the process stands
    still for `steps` further steps (park). It happens at the crossing `at`, counted from the beginning of its step, or at
    the first of this kind."""

    kind: Literal["crash", "cut", "park"]
    at: int | Crossing
    steps: int = 1

    def __str__(self) -> str:
        words = {"crash": "it dies", "cut": "its connection breaks", "park": f"it stands still for {self.steps} steps"}
        return f"; at {'crossing' if isinstance(self.at, int) else 'the first'} {self.at} {words[self.kind]}"


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
            # One alert of each model comes more often than the other: so what happens is about the same alert.
            names = [
                (m, "a" if chance.random() < 0.7 else "b") for m in chance.sample(MODELS, k=chance.choice([1, 1, 2]))
            ]
            alerts = [Sent(m, p, chance.random() < 0.7, chance.random() < 0.2) for m, p in names]
            return Step("push", to, alerts=tuple(alerts), fault=_fault(chance, 16, ["commit", "committed"]))
        case "loop":
            return Step(
                "loop", to, chance.choices(LOOPS, [3, 4, 3])[0], fault=_fault(chance, 24, get_args(Crossing)[1:])
            )
        case "request":
            name = chance.choice(["trigger", "trigger", "force", "reset", "pause", "lift", "cancel", "redrive"])
            return Step("request", to, name, chance.choice(MODELS), fault=_fault(chance, 12, ["commit", "committed"]))
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


_FAULTS: Final[tuple[Literal["park", "crash", "cut"] | None, ...]] = (None, "park", "crash", "cut")


def _fault(chance: random.Random, most: int, kinds: Sequence[Crossing]) -> Fault | None:
    kind = chance.choices(_FAULTS, [55, 29, 8, 8])[0]
    # A step has few crossings when there is little to do: early ones come more often.
    early = min(chance.randint(1, most), chance.randint(1, most))
    place = chance.choice(kinds) if chance.random() < 0.4 else early
    steps = chance.randint(1, 5)
    return Fault(kind, place, steps) if kind is not None else None


async def shrink(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], Awaitable[bool]], most: int = 60
) -> Sequence[Step]:
    """Fewer steps that still fail: parts are taken out, ever smaller ones, and then faults. It tries `most` times."""
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
    for at, step in enumerate(steps):
        without = [*steps[:at], replace(step, fault=None), *steps[at + 1 :]]
        if step.fault is not None and await fails(without):
            steps = without
    return steps
