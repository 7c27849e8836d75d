"""A schedule: what happens to a few gateways, step by step, drawn from one number. Pure.

Each step stands for itself, so a schedule stays one when steps are taken out of it. `shrink` does that.

What comes often in one life is rare or missing in another: each life has a taste. Otherwise every life would have a little
of everything, and what needs much of one thing would never happen. While a process stands still, the other mostly acts.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

REPLICAS: Final = 2
MODELS: Final = ("churn", "fraud")
STRAY: Final = "stray"  # Its alerts have no route.
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
    "limited": _BASE.format(more="    limit: {triggers: 1, per: 40m}\n"),
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
    back: int = 0  # so many steps before, Redis held what it holds now again
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
            "stale": f"Redis holds again what it held {self.back} steps before",
        }.get(self.kind, f"{self.kind} {self.name}".strip())
        return f"{what}{self.fault or ''}"


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    policies: tuple[str, str]  # names: the first is in force at the beginning
    steps: tuple[Step, ...]


#: What may happen, and how often beside the others.
KINDS: Final = {
    "push": 32.0,
    "loop": 20.0,
    "settle": 12.0,
    "pass": 14.0,
    "request": 6.0,
    "flush": 2.0,
    "stale": 5.0,
    "airflow": 5.0,
    "postgres": 1.0,
    "kill": 2.0,
    "reload": 2.0,
    "outage": 1.0,
}
#: What concerns alerts with a route alone.
_OF_ROUTES: Final = ("loop", "settle", "request", "airflow")
#: Whose alerts are sent in one life.
_SUBJECTS: Final = (MODELS[:1], MODELS, MODELS, (*MODELS, STRAY), (STRAY,))


@dataclass(frozen=True, slots=True)
class _Taste:
    """What one life has much of."""

    kinds: Mapping[str, float]
    subjects: tuple[str, ...]
    second: float  # how often it is the second alert of its model
    firing: float
    anew: float
    other: str  # the policy that a replica takes


def schedule_of(seed: int) -> Schedule:
    """The schedule of a number, always the same."""
    chance = random.Random(seed)
    first, other = chance.choices(list(POLICIES), k=2)
    second = first if chance.random() < 0.6 else other
    subjects = chance.choice(_SUBJECTS)
    kinds = {
        kind: weight if kind == "push" else weight * chance.choice((0, 0.3, 1, 1, 4)) for kind, weight in KINDS.items()
    }
    if subjects == (STRAY,):  # Nothing is started.
        kinds |= dict.fromkeys(_OF_ROUTES, 0.0)
    taste = _Taste(
        kinds,
        subjects,
        chance.choice((0.1, 0.3, 0.5)),
        chance.choice((0.5, 0.7, 0.8)),
        chance.choice((0.0, 0.2, 0.4)),
        second,
    )
    steps: list[Step] = []
    still = away = 0  # This replica stands still for so many steps.
    for _ in range(chance.randint(8, 24)):
        to = chance.randrange(REPLICAS)
        if away and chance.random() < 0.8:
            to = (still + 1) % REPLICAS
        steps.append(step := _step(chance, taste, to))
        away = max(0, away - 1)
        if step.fault is not None and step.fault.kind == "park":
            still, away = to, step.fault.steps
    return Schedule(seed, (first, second), tuple(steps))


def _step(chance: random.Random, taste: _Taste, to: int) -> Step:
    kind = chance.choices(list(taste.kinds), list(taste.kinds.values()))[0]
    match kind:
        case "push":
            models = chance.sample(taste.subjects, k=min(chance.choice((1, 1, 2)), len(taste.subjects)))
            alerts = [
                Sent(
                    model,
                    "b" if chance.random() < taste.second else "a",
                    chance.random() < taste.firing,
                    chance.random() < taste.anew,
                )
                for model in models
            ]
            return Step("push", to, alerts=tuple(alerts), fault=_fault(chance, 16, ["commit", "committed"]))
        case "loop":
            return Step(
                "loop", to, chance.choices(LOOPS, [3, 4, 3])[0], fault=_fault(chance, 24, get_args(Crossing)[1:])
            )
        case "request":
            name = chance.choice(["trigger", "trigger", "force", "reset", "pause", "lift", "cancel", "redrive"])
            model = chance.choice([each for each in taste.subjects if each != STRAY])
            return Step("request", to, name, model, fault=_fault(chance, 12, ["commit", "committed"]))
        case "pass":
            return Step("pass", seconds=chance.choice([1, 20, 130, 601, 1201, 1201, 3601]))
        case "outage":
            return Step("outage", seconds=chance.choice([90, 1201]))
        case "stale":
            return Step("stale", back=chance.randint(1, 6))
        case "airflow":
            return Step("airflow", name=chance.choice(["down", "up", "lost", "late", "error", "broken", "refuses"]))
        case "reload":
            return Step("reload", to, taste.other)
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
