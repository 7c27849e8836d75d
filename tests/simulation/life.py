"""One life: the steps of a schedule happen to real gateways, and the oracle looks after each of them."""

import json
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from app.kit.db import OF_THE_DATABASE
from tests.fakes import faults
from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.fakes.clock import ManualClock
from tests.simulation.account import Account, Broken, ensure
from tests.simulation.oracle import check_decisions, check_end, check_runs
from tests.simulation.schedule import LOOPS, Schedule, Step, shrink
from tests.simulation.site import Replica, Site

RUN: Final = timedelta(minutes=20)
#: After the last step nothing goes wrong any more for two and a half hours, with so many looks.
AFTERWARDS: Final = 5
LOOK: Final = 1800.0
MOST_ROUNDS: Final = 100  # of the loops, until nothing is due
WEBHOOK: Final = "/api/v1/webhooks/alertmanager"


def _outcome(run: FakeRun) -> str:
    # By group and moment, for the ids of runs are new in each life.
    kept = json.dumps([run.conf["gateway"]["group"], run.queued_at.isoformat()], sort_keys=True)
    return "failed" if zlib.crc32(kept.encode()) % 4 == 0 else "success"


class Life:
    """`live(steps)` raises Broken. `journal` is what happened, a line each."""

    def __init__(self, site: Site, schedule: Schedule) -> None:
        self.journal: list[str] = []
        self._site = site
        self._schedule = schedule
        self._account = Account()
        self._parked: dict[int, int] = {}  # by replica: so many further steps it stands still
        self._held: dict[int, dict[Any, Any]] = {}  # what Redis held before a step

    async def live(self, steps: Sequence[Step]) -> None:
        # The pauses of the gateway's relay are drawn from this generator.
        random.seed(self._schedule.seed)
        clock = ManualClock()
        airflow = FakeAirflow(clock, auto_finish=RUN, outcome=_outcome)
        airflow.users["gateway"] = "gateway"
        airflow.add_dag("retrain_model")
        await self._site.begin_life(self._schedule.policies[0], clock, airflow)
        looked_at = {at - step.back for at, step in enumerate(steps) if step.kind == "stale"}
        for at, step in enumerate(steps):
            if at in looked_at:
                self._held[at] = await self._site.redis_content()
            self._note(str(step))
            if step.kind == "stale":
                await self._site.redis_holds(self._held.get(at - step.back, {}))
            else:
                await self._do(step)
            await self._resume()
            self._look()
        self._note("nothing goes wrong any more")
        await self._afterwards()

    def _note(self, text: str) -> None:
        self.journal.append(f"{self._site.now():%d %H:%M:%S}  {text}")

    def _look(self) -> None:
        check_runs(self._site.airflow, self._account, set(self._schedule.policies) == {"kept"})

    async def _afterwards(self) -> None:
        """Everything comes to its end."""
        site = self._site
        for replica in site.replicas:
            await self._alive(replica)
        site.airflow.calm()
        site.airflow.land()
        first = site.replicas[0]
        await self._act(first, Step("request", name="lift"), lambda: self._request(first, "lift", ""))
        for _ in range(AFTERWARDS):
            await site.pass_by(LOOK, watched=True)
            await self._settle(first)
            self._look()
        await check_end(site, self._account, self._schedule.policies)

    async def _settle(self, replica: Replica) -> None:
        quiet = 0  # so many loops in a row found nothing
        for name in LOOPS * MOST_ROUNDS:
            quiet = 0 if await self._loop(replica, name) else quiet + 1
            if quiet == len(LOOPS):
                return
        raise Broken("7 nothing acknowledged is forgotten", "the loops never come to rest")

    # The steps.

    async def _do(self, step: Step) -> None:
        site, replica = self._site, self._site.replicas[step.to]
        match step.kind:
            case "push":
                await self._act(replica, step, lambda: self._push(replica, step))
            case "loop":
                await self._act(replica, step, lambda: self._loop(replica, step.name))
            case "settle":
                await self._act(replica, step, lambda: self._settle(replica))
            case "request":
                await self._act(replica, step, lambda: self._request(replica, step.name, step.model))
            case "reload":
                await self._act(replica, step, lambda: self._reload(replica, step.name))
            case "kill":
                replica.border.dead = True
                await self._alive(replica)
            case "pass" | "outage":
                site.airflow.land()
                await site.pass_by(step.seconds, watched=step.kind == "pass")
            case "flush":
                await site.redis_holds({})
            case "postgres":
                await site.postgres_ends_every_session()
            case "airflow":
                self._disturb(step.name)

    async def _act(self, replica: Replica, step: Step, work: Callable[[], Awaitable[Any]]) -> None:
        await self._alive(replica)
        await self._site.act(replica, self._guarded(replica, work), step.fault)
        if step.fault is not None and replica.border.parked:
            self._parked[step.to] = step.fault.steps + 1
            self._note(f"  replica {step.to} stands still")

    async def _alive(self, replica: Replica) -> None:
        """A process does no two things at once, and a dead one is started again."""
        await replica.finish()
        if replica.border.dead:
            await replica.stop()
            await replica.start(replica.policy, self._site.clock)

    async def _resume(self) -> None:
        for number, left in list(self._parked.items()):
            self._parked[number] = left - 1
            if left <= 1:
                del self._parked[number]
                await self._site.replicas[number].finish()

    async def _guarded(self, replica: Replica, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except Broken:
            raise
        except Exception as error:
            self._excuse(replica, error)

    def _excuse(self, replica: Replica, error: Exception) -> None:
        """A step may fail because its process is dead or Postgres is away, and for no other reason."""
        leaves = _leaves(error)
        expected = replica.border.dead or all(isinstance(leaf, OF_THE_DATABASE) for leaf in leaves)
        ensure(expected, "7 503 and nothing half done", f"a step raises {leaves!r}")
        self._note(f"  it fails: {', '.join(type(leaf).__name__ for leaf in leaves)}")

    async def _loop(self, replica: Replica, name: str) -> bool:
        assert replica.services is not None
        try:
            return await replica.services.loop(name).step()
        except Exception as error:
            self._excuse(replica, error)
            return not replica.border.dead

    async def _push(self, replica: Replica, step: Step) -> None:
        site, account, border = self._site, self._account, replica.border
        alerts = [(sent, account.alert(sent, site.now()).body()) for sent in step.alerts]
        prints = [str(body["fingerprint"]) for _, body in alerts]
        sent = list(zip(prints, step.alerts, strict=True))
        left = site.now()
        account.leaves(sent, left)
        answer = await replica.send("POST", WEBHOOK, {"version": "4", "alerts": [body for _, body in alerts]})
        acknowledged = answer.status_code == 202 and not border.dead
        account.arrives(sent, left, site.now(), acknowledged=acknowledged)
        if acknowledged:
            decisions = answer.json()["decisions"]
            self._note(f"  replica {step.to} answers {', '.join(d['action'] + ' ' + d['reason'] for d in decisions)}")
            ensure([d["fingerprint"] for d in decisions] == prints, "6 every no has a name", "not in body order")
            check_decisions(decisions)
        elif not border.dead:
            self._note(f"  replica {step.to} answers {answer.status_code}")
            ensure(
                answer.status_code == 503, "7 503 and nothing half done", f"a webhook is answered {answer.status_code}"
            )

    async def _request(self, replica: Replica, name: str, model: str) -> None:
        site, account = self._site, self._account
        path, body = await self._asked(name, model)
        if path is None:
            return
        intervention = account.intervenes(model, name, site.now())
        answer = await replica.send("DELETE" if name == "lift" else "POST", path, body)
        intervention.ended = site.now()
        if replica.border.dead:
            return
        self._note(f"  the request is answered {answer.status_code}")
        expected = answer.status_code < 500 or answer.status_code == 503
        ensure(expected, "7 503 and nothing half done", f"{name} is answered {answer.status_code}")
        if answer.status_code == 201:
            account.promised.add(answer.json()["id"])

    async def _asked(self, name: str, model: str) -> tuple[str | None, Any]:
        route, group = "/api/v1/routes/accuracy", {"model": model}
        match name:
            case "trigger" | "force":
                body = {"route": "accuracy", "group": group, "reason": "a test", "force": name == "force"}
                return "/api/v1/triggers", body
            case "reset":
                return f"{route}/reset", {"group": group}
            case "pause":
                until = (self._site.now() + timedelta(hours=1)).isoformat()
                return f"{route}/pause", {"reason": "a test", "until": until}
            case "lift":
                return f"{route}/pause", None
        state = {"cancel": "held", "redrive": "dead"}[name]
        found = await self._site.fetch(
            "SELECT id FROM triggers WHERE state = $1 AND group_labels->>'model' = $2 ORDER BY id DESC LIMIT 1",
            state,
            model,
        )
        return (f"/api/v1/triggers/{found[0]['id']}/{name}", {}) if found else (None, None)

    async def _reload(self, replica: Replica, policy: str) -> None:
        replica.write(policy)
        answer = await replica.send("POST", "/-/reload", None)
        if not replica.border.dead:
            expected = answer.status_code in (200, 503)
            ensure(expected, "7 503 and nothing half done", f"a reload is answered {answer.status_code}")

    def _disturb(self, name: str) -> None:
        airflow = self._site.airflow
        match name:
            case "down":
                airflow.down = True
            case "up":
                airflow.calm()
            case "lost":
                airflow.disturb(faults.timeout(after_commit=True), on="trigger")
            case "late":
                airflow.calm()
                airflow.disturb(faults.limbo(), on="trigger")
            case "error":
                airflow.disturb(faults.answer(500, after_commit=True), on="trigger")
                airflow.disturb(faults.answer(500), on="run")
            case "broken":
                airflow.disturb(faults.drop(), times=2)
            case "refuses":
                # A trigger that is refused is dead. No earlier request for it may arrive after that.
                airflow.calm()
                airflow.land()
                airflow.disturb(faults.answer(422), on="trigger")


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


# -- what a person does with a failure ------------------------------------------------------------------------------------


async def broken_by(site: Site, schedule: Schedule, steps: Sequence[Step] | None = None) -> tuple[Broken, Life] | None:
    """Live it. The invariant that breaks, and the life; None: all hold."""
    life = Life(site, schedule)
    try:
        await life.live(schedule.steps if steps is None else steps)
    except Broken as broken:
        return broken, life
    finally:
        await site.end_life()
    return None


async def timeline(site: Site, schedule: Schedule) -> str | None:
    """A failing seed, in the fewest steps that break the same invariant. None: it does not fail when it is lived again."""
    first = await broken_by(site, schedule)
    if first is None:
        return None
    name = first[0].invariant

    async def fails(steps: Sequence[Step]) -> bool:
        found = await broken_by(site, schedule, steps)
        return found is not None and found[0].invariant == name

    steps = await shrink(schedule.steps, fails)
    broken, life = await broken_by(site, schedule, steps) or first
    names = " and ".join(dict.fromkeys(schedule.policies))
    head = f"seed {schedule.seed}, policy {names}, {len(steps)} of {len(schedule.steps)} steps: {broken}"
    return "\n".join([head, *(f"  {line}" for line in life.journal)])
