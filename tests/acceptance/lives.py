"""Random lives of the whole gateway, and what a replay needs to know of them.

A script is made first, so that two policies can live through the same one. Between its moments the clock stops wherever
something is due: a replay has each wake at its moment, and so must the life that it is compared with.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from app.replay.history import History
from app.replay.lines import read_lines
from app.replay.recorded import lines_of
from app.replay.replay import Replay
from tests.acceptance.world import FakeAlert, World
from tests.fakes.clock import NOON
from tests.fakes.prometheus import FakePrometheus

MODELS = ("churn", "fraud", "ltv")
LENGTH = timedelta(minutes=20)
Fire = tuple[str, str, str, str, str]  # when, route, mode, group, reason

#: When the runs of the gateway end, groups wake and schedules come due next.
_DUE = text("""
    SELECT min(at) FROM (
        SELECT wake_at AS at FROM groups
        UNION ALL SELECT accepted_at + make_interval(secs => :length) FROM triggers WHERE state IN ('submitted', 'running')
        UNION ALL SELECT accepted_at + make_interval(secs => run_timeout) FROM triggers
            WHERE state IN ('submitted', 'running') AND lost_at IS NULL
    ) AS due WHERE at > :now
""")


@dataclass(frozen=True)
class Step:
    """Something that somebody does, so long after the beginning."""

    after: timedelta
    kind: str
    model: str = ""
    slice: str = ""
    began: timedelta = timedelta(0)
    to: int = 0


#: Seconds between two steps. Of two that are less than a minute apart a history may know the second only.
SHORT, LONG = (7, 61, 601, 1801, 4001, 14_401), (61, 601, 1801, 4001, 14_401, 86_401)


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


class Life:
    """One life: a world, a script, and the lines that a replay reads."""

    def __init__(self, world: World, prometheus: FakePrometheus, policies: Sequence[str]) -> None:
        self.world = world
        self.lines: list[str] = []
        self._policies = policies
        self._reloads = 0
        self._prometheus = prometheus
        prometheus.says = self._says
        self.note("gateway.policy", {"text": policies[0]})

    def note(self, source: str, body: Any) -> None:
        self.lines.append(json.dumps({"at": self.world.clock.now().isoformat(), "source": source, "body": body}))

    async def live(self, steps: Sequence[Step]) -> None:
        await self.world.settle()  # A schedule counts from the first look at it.
        for step in steps:
            await self._pass_to(NOON + step.after)
            await self._do(step)
            await self.world.settle()
        await self._pass_to(self.world.clock.now() + timedelta(hours=3))
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
            async with self.world.services[0].core.engine.connect() as conn:
                parameters = {"now": clock.now(), "length": LENGTH.total_seconds()}
                due = (await conn.execute(_DUE, parameters)).scalar_one()
            policy = self.world.services[0].core.policy
            moments = [end, *(s.times.after(clock.now()) for s in policy.schedules), *([due] if due else [])]
            clock.pass_by(min(moments) - clock.now())
            await self.world.watched()
            async with self.world.services[0].core.engine.begin() as conn:
                await conn.execute(
                    text("UPDATE triggers SET follow_at = :now WHERE follow_at IS NOT NULL"), {"now": clock.now()}
                )
            await self.world.settle()

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
                until = (world.clock.now() + timedelta(hours=5)).isoformat()
                answer = await world.post(f"{route}/pause", {"reason": "a test", "until": until}, to=step.to)
                assert answer.status_code < 300, answer.text
                self.note("gateway.pause", {"route": "accuracy", "until": until, "reason": "a test"})
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
                for held in await world.triggers(state="held"):
                    if held["group"] == group:
                        await world.post(f"/api/v1/triggers/{held['id']}/cancel", {}, to=step.to)

    async def _note_runs(self) -> None:
        kept = ("route", "group", "accepted_at", "ended_at", "lost_at", "outcome", "reason")
        for trigger in await self.world.triggers():
            if trigger["fired_at"] and trigger["mode"] == "live":
                body = {name: trigger[name] for name in kept}
                self.lines.append(json.dumps({"at": trigger["fired_at"], "source": "gateway.run", "body": body}))

    def _says(self, query: str) -> dict[str, Any]:
        model = next(name for name in MODELS if name in query)
        confirmed = confirms(model, self.world.clock.now())
        self.note("gateway.confirm", {"route": "accuracy", "group": {"model": model}, "confirmed": confirmed})
        return self._prometheus.vector(0.7) if confirmed else self._prometheus.vector()


def confirms(model: str, at: datetime) -> bool:
    """Prometheus confirms a model in three hours of four."""
    return (at.hour + MODELS.index(model)) % 4 > 0


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


def history_of(lines: Iterable[str]) -> History:
    history = read_lines((line.encode() for line in lines), {})
    assert history.broken_count == 0, history.broken
    return history


def replayed(replay: Replay) -> list[Fire]:
    return sorted(
        _fire(run.fired_at, run.route, "shadow" if run.rehearsed else "live", dict(run.group), run.reason)
        for run in replay.runs
    )


def _fire(at: datetime, route: str, mode: str, group: dict[str, str], reason: str) -> Fire:
    return at.isoformat(timespec="milliseconds"), route, mode, json.dumps(group, sort_keys=True), reason
