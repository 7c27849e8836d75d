"""Random lives of the whole gateway, and what a replay needs to know of them.

A script is made first, so that two policies can live through the same one. Between its moments the clock stops wherever
something is due: a replay has each wake at its moment, and so must the life that it is compared with.

At such a moment only the loops that may have something to do are stepped, each in a replica drawn by chance. After what
people change, and at the beginning, every loop of every replica is.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from app.policy.sources import Source
from app.replay.history import History
from app.replay.lines import read_lines
from app.replay.recorded import lines_of
from app.replay.replay import Replay
from tests.acceptance.world import FakeAlert, World
from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.prometheus import FakePrometheus
from tests.servers import TestServers

MODELS = ("churn", "fraud", "ltv")
LENGTH = timedelta(minutes=20)
#: The servers that a policy of a life may name, each by its host.
PROMETHEUS, OTHER_PROMETHEUS, OTHER_AIRFLOW = "prometheus.test", "other-prometheus.test", "other-airflow.test"
Fire = tuple[str, str, str, str, str]  # when, route, mode, group, reason
#: What a Prometheus (its host) answers to a query; None: it does not answer.
Confirms = Callable[[str, str, datetime], bool | None]

#: When the runs of the gateway end, groups wake and schedules come due next.
_NEXT: Final = """
    SELECT min(at) FROM (
        SELECT wake_at AS at FROM groups
        UNION ALL SELECT accepted_at + $2::interval FROM triggers WHERE state IN ('submitted', 'running')
        UNION ALL SELECT accepted_at + make_interval(secs => run_timeout) FROM triggers
            WHERE state IN ('submitted', 'running') AND lost_at IS NULL
    ) AS due WHERE at > $1
"""
#: Time has passed, and a gateway ran meanwhile. Each run is read, because one may have ended.
_PASS: Final = """
    WITH watched AS (UPDATE watch SET watched_until = $1)
    UPDATE triggers SET follow_at = $1 WHERE follow_at IS NOT NULL
"""
#: The loops that decide what fires, in their order, and how much each may have to do now.
_LOOPS: Final[Mapping[str, str]] = {
    "waker": "FROM groups WHERE wake_at <= $1",
    "confirmer": "FROM groups WHERE wake_at <= $1",
    "schedules": "WHERE $1::timestamptz IS NULL",  # A replica knows it by itself.
    "follower": "FROM triggers WHERE follow_at <= $1",
    "relay": "FROM outbox WHERE state = 'pending' AND available_at <= $1 AND coalesce(lease_until, $1) <= $1",
    "effects": "WHERE $1::timestamptz IS NULL",  # see `_LOOKS`
    "outcomes": "FROM effects WHERE announce_at <= $1",
}
_DUE: Final = "SELECT " + ", ".join(f"(SELECT count(*) {work}) AS {name}" for name, work in _LOOPS.items())
#: Loops that look at the clock, and at how many moments of a hundred. The loop of effects judges every trigger of the last
#: days each time, and nothing that fires waits for it.
_LOOKS: Final[Mapping[str, int]] = {"schedules": 100, "effects": 15}
#: What another policy, or another set of pauses, makes due is known to each replica alone.
_OF_PEOPLE: Final = ("reload", "pause", "lift", "outage")


@dataclass(frozen=True)
class Step:
    """Something that somebody does, so long after the beginning. `labels`: further ones of the alert; `body`: what a source
    of the policy posts; `length`: of an outage."""

    after: timedelta
    kind: str
    model: str = ""
    slice: str = ""
    began: timedelta = timedelta(0)
    to: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    length: timedelta = timedelta(0)


#: Seconds between two steps. Of two that are less than a minute apart a history may know the second only.
SHORT, LONG = (7, 61, 601, 1801, 4001, 14_401), (61, 601, 4001, 14_401, 86_401, 259_201)


def script(chance: random.Random, steps: int, replicas: int, pauses: Sequence[int] = SHORT) -> list[Step]:
    """Alerts that begin, repeat, flap and end, and people that do something now and then."""
    after, found = timedelta(0), list[Step]()
    began: dict[tuple[str, str], timedelta] = {}
    for _ in range(steps):
        after += timedelta(seconds=chance.choice(pauses), milliseconds=chance.randrange(900))
        model, cut = chance.choice(MODELS), chance.choice("ab")
        kind = chance.choices(
            ["firing", "resolved", "request", "force", "reset", "pause", "lift", "reload", "cancel"],
            [60, 22, 4, 2, 3, 3, 4, 3, 3],
        )[0]
        if kind == "firing" and (chance.random() < 0.2 or (model, cut) not in began):
            began[model, cut] = after
        start = began.get((model, cut), after)
        found.append(Step(after, kind, model, cut, start, chance.randrange(replicas)))
    return found


def confirms(model: str, at: datetime) -> bool:
    """Prometheus confirms a model in three hours of four."""
    return (at.hour + MODELS.index(model)) % 4 > 0


def by_the_hour(_host: str, query: str, at: datetime) -> bool | None:
    """As `confirms` says, whatever is asked about the model."""
    return confirms(model_in(query), at)


def model_in(query: str) -> str:
    """The model that a query names."""
    return next(name for name in MODELS if name in query)


class Life:
    """One life: a world, a script, and the lines that a replay reads."""

    def __init__(self, world: World, policies: Sequence[str], chance: random.Random) -> None:
        self.world = world
        self.lines: list[str] = []
        self._policies = policies
        self._chance = chance
        self._reloads = 0
        self.note("gateway.policy", {"text": policies[0]})

    def note(self, source: str, body: Any) -> None:
        self.lines.append(json.dumps({"at": self.world.clock.now().isoformat(), "source": source, "body": body}))

    async def live(self, steps: Sequence[Step]) -> None:
        self._conn = await asyncpg.connect(self.world.database)
        try:
            await self.world.settle()  # A schedule counts from the first look at it.
            for step in steps:
                await self._pass_to(NOON + step.after)
                await self._do(step)
                await (self.world.settle() if step.kind in _OF_PEOPLE else self._settle())
            await self._pass_to(self.world.clock.now() + timedelta(hours=3))
        finally:
            await self._conn.close()
        await self._note_runs()

    async def fires(self) -> list[Fire]:
        """Everything that fired, or would have."""
        return sorted(
            _fire(datetime.fromisoformat(t["fired_at"]), t["route"], t["mode"], t["group"], t["reason"])
            for t in await self.world.triggers()
            if t["fired_at"]
        )

    async def _pass_to(self, end: datetime) -> None:
        clock = self.world.clock
        while clock.now() < end:
            due = await self._conn.fetchval(_NEXT, clock.now(), LENGTH)
            policy = self.world.services[0].core.policy
            moments = [end, *(s.times.after(clock.now()) for s in policy.schedules), *([due] if due else [])]
            clock.pass_by(min(moments) - clock.now())
            await self._conn.execute(_PASS, clock.now())
            await self._settle()

    async def _settle(self) -> None:
        """Step the loops that may have something to do until nothing changes."""
        now, services = self.world.clock.now(), self.world.services
        asks = any(route.confirm is not None for route in services[0].core.policy.routes)
        before, due = dict[str, int](), await self._due(now)
        for number in range(1000):
            before, busy = due, False
            for name in _LOOPS:
                looks = number == 0 and name in _LOOKS and self._chance.randrange(100) < _LOOKS[name]
                if (due[name] or looks) and (asks or name != "confirmer"):
                    busy |= await self._chance.choice(services).loop(name).step()
                    due = await self._due(now)
            if not any(due.values()) or (due == before and not busy):
                return
        raise AssertionError("the loops never came to rest")

    async def _due(self, now: datetime) -> dict[str, int]:
        return dict(await self._conn.fetchrow(_DUE, now))

    async def _do(self, step: Step) -> None:
        world, route = self.world, "/api/v1/routes/accuracy"
        group = {"model": step.model}
        match step.kind:
            case "firing" | "resolved":
                labels = {
                    "alertname": "ModelAccuracyLow",
                    "severity": "critical",
                    "model": step.model,
                    "slice": step.slice,
                }
                alert = FakeAlert(labels, NOON + step.began)
                alert = alert if step.kind == "firing" else alert.resolved(world.clock.now())
                self.note("alertmanager", {"version": "4", "alerts": [alert.body()]})
                await world.push(alert, to=step.to)
            case "body":
                self.note("ci", dict(step.body))
                answer = await world.post("/api/v1/webhooks/ci", dict(step.body), to=step.to)
                assert answer.status_code in (202, 400, 422), answer.text
            case "outage":
                until = world.clock.now() + step.length
                self.note("gateway.outage", {"until": until.isoformat()})
                world.outage(seconds=step.length.total_seconds())
            case "request" | "force":
                body = {
                    "route": "accuracy",
                    "group": group,
                    "reason": "a test",
                    "requested_by": "ana",
                    "force": step.kind == "force",
                }
                self.note("gateway.request", body)
                await world.post("/api/v1/triggers", body, to=step.to)
            case "reset":
                self.note("gateway.reset", {"route": "accuracy", "group": group})
                await world.post(f"{route}/reset", {"group": group}, to=step.to)
            case "pause":
                until = world.clock.now() + timedelta(hours=5)
                asked = {"reason": "a test", "until": until.isoformat()}
                answer = await world.post(f"{route}/pause", asked, to=step.to)
                assert answer.status_code < 300, answer.text
                self.note("gateway.pause", {"route": "accuracy", **asked})
            case "lift":
                self.note("gateway.lift", {"route": "accuracy"})
                await world.clients[step.to].delete(f"{route}/pause")
            case "reload":
                self._reloads += 1
                chosen = self._policies[self._reloads % len(self._policies)]
                self.note("gateway.policy", {"text": chosen})
                for replica in range(len(world.services)):
                    assert (await world.reload(chosen, to=replica)).status_code == 200
            case "cancel":
                self.note("gateway.cancel", {"route": "accuracy", "group": group, "by": "ana"})
                for held in await world.triggers(status="held"):
                    if held["group"] == group:
                        await world.post(f"/api/v1/triggers/{held['id']}/cancel", {}, to=step.to)

    def says(self, prometheus: FakePrometheus, host: str, answers: Confirms, query: str) -> Any:
        """The answer of a Prometheus, which is noted."""
        confirmed = answers(host, query, self.world.clock.now())
        if confirmed is None:
            return 503, b"not ready"
        self.note("gateway.confirm", {"route": "accuracy", "group": {"model": model_in(query)}, "confirmed": confirmed})
        return prometheus.vector(0.7) if confirmed else prometheus.vector()

    async def _note_runs(self) -> None:
        kept = ("route", "group", "accepted_at", "ended_at", "lost_at", "outcome", "reason")
        for trigger in await self.world.triggers():
            if trigger["fired_at"] and trigger["mode"] == "live":
                body = {name: trigger[name] for name in kept}
                self.lines.append(json.dumps({"at": trigger["fired_at"], "source": "gateway.run", "body": body}))


@dataclass(frozen=True)
class Lived:
    """What came of a life: its lines, as the test wrote them down, what the gateway recorded, what fired, and its end."""

    lines: list[str]
    recorded: History
    fires: list[Fire]
    end: datetime

    @property
    def written(self) -> History:
        """What a replay reads of the lines."""
        return history_of(self.lines)


async def live_through(
    servers: TestServers,
    template: str,
    texts: Sequence[str],
    steps: Sequence[Step],
    *,
    chance: random.Random | None = None,
    replicas: int = 1,
    outcome: Callable[[FakeRun], str] = lambda _: "success",
    answers: Confirms = by_the_hour,
) -> Lived:
    """Live through the script in a database of its own, from the first policy on."""
    clock = ManualClock()
    airflows = [FakeAirflow(clock, auto_finish=LENGTH, outcome=outcome) for _ in range(2)]
    for airflow in airflows:
        airflow.users["gateway"] = "gateway"
        airflow.add_dag("retrain_model")
    asked = {host: FakePrometheus(clock) for host in (PROMETHEUS, OTHER_PROMETHEUS)}
    others: dict[str, Any] = asked | {OTHER_AIRFLOW: airflows[1]}
    database = servers.fresh_database(template)
    try:
        async with World(
            servers, database, texts[0], replicas=replicas, airflow=airflows[0], others=others, clock=clock
        ) as world:
            life = Life(world, texts, chance or random.Random(0))
            for host, prometheus in asked.items():
                prometheus.says = partial(life.says, prometheus, host, answers)
            await life.live(steps)
            return Lived(life.lines, await recorded_history(world), await life.fires(), clock.now())
    finally:
        await asyncio.to_thread(servers.discard, database)


async def recorded(world: World, limit: int = 1000, **window: Any) -> list[dict[str, Any]]:
    """Every record that the gateway has of its life, page by page."""
    records: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": None}
    while True:
        more = {"cursor": page["next"]} if page["next"] else {}
        page = await world.get("/api/v1/history", limit=limit, **more, **window)
        records += page["items"]
        if page["next"] is None:
            return records


async def recorded_history(world: World) -> History:
    """What a replay reads of the gateway itself."""
    return history_of(line.decode() for line in lines_of(await recorded(world)))


def history_of(lines: Iterable[str], sources: Mapping[str, Source] = MappingProxyType({})) -> History:
    history = read_lines((line.encode() for line in lines), sources)
    assert history.broken_count == 0, history.broken
    return history


def replayed(replay: Replay) -> list[Fire]:
    return sorted(
        _fire(run.fired_at, run.route, "shadow" if run.rehearsed else "live", dict(run.group), run.reason)
        for run in replay.runs
    )


def _fire(at: datetime, route: str, mode: str, group: dict[str, str], reason: str) -> Fire:
    return at.isoformat(timespec="milliseconds"), route, mode, json.dumps(group, sort_keys=True), reason
