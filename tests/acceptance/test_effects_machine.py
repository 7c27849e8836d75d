"""Whatever happens, and in whatever order it is heard: each fired trigger comes to one effect, and the sums are those of the
triggers."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.effects.rules import Effect
from tests.acceptance.promotions import ENTRY, Gates, seen, surveyed
from tests.acceptance.test_effects import opened
from tests.acceptance.world import FakeAlert, World, policy
from tests.fakes.airflow import FakeRun
from tests.fakes.clock import ManualClock
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers
from tests.sizes import size

Value = TypeVar("Value")
TEXT = (
    policy("effect: {settle: 2h, watch: 1d}\nstale_after: 3d\non_no_effect: {after: 2, then: hold}", cooldown="6h")
    + 'mlflow: {tracking_uri: "http://mlflow.test:5000"}\n'
    + ENTRY
)
HOURS = st.sampled_from([1, 2, 3, 7, 24, 25])
WHICH = st.integers(0, 2)


class House:
    """The gateway, its clock and the servers around it, for all examples. Each example has models of its own."""

    def __init__(self, servers: TestServers, database: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.clock, self.numbers = loop, ManualClock(), count()
        self.mlflow = FakeMlflowRegistry(self.clock)
        self.ends: dict[str, str] = {}
        others: Any = {"mlflow.test": self.mlflow, FakePagerDuty.host: FakePagerDuty(self.clock)}
        self.world: World = opened(servers, database, TEXT, clock=self.clock, others=others, replicas=3)
        self.world.airflow.outcome = self.outcome
        self.gates = Gates(self.world, self.mlflow, others[FakePagerDuty.host])

    def outcome(self, run: FakeRun) -> str:
        return self.ends.get(run.conf["gateway"]["group"]["model"], "success")


class Effects(RuleBasedStateMachine):
    def __init__(self, house: House) -> None:
        super().__init__()
        self.house, self.world = house, house.world
        self.models = [f"churn-{next(house.numbers)}" for _ in range(3)]
        self.firing: dict[str, FakeAlert] = {}
        self.versions: dict[str, list[str]] = {}
        self.known: dict[str, str | None] = {}

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        return self.house.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        """One run fails, and one seems to have registered nothing for two hours."""
        self.house.ends[self.models[1]] = "failed"
        for which in range(len(self.models)):
            self.fire(which)
        self.a_version_comes_late(0)

    @rule(which=WHICH)
    def fire(self, which: int) -> None:
        model = self.models[which]
        alert = self.firing.setdefault(model, self.world.alert(model=model))
        self.run(self.world.push(alert))
        self.run(self.world.settle())

    @rule(which=WHICH)
    def end(self, which: int) -> None:
        if (alert := self.firing.pop(self.models[which], None)) is not None:
            self.run(self.world.push(alert.resolved(self.house.clock.now())))

    @rule(hours=HOURS, off=st.sampled_from([-1, 0, 1]))
    def pass_by(self, hours: int, off: int) -> None:
        self.run(self.world.pass_by(seconds=hours * 3600 + off, steps=2))

    @rule(which=WHICH, state=st.sampled_from(["success", "failed"]))
    def runs_end_as(self, which: int, state: str) -> None:
        self.house.ends[self.models[which]] = state

    @rule(which=WHICH)
    def register(self, which: int) -> None:
        """The survey sees a version of one of its triggers, whenever it ended."""
        model = self.models[which]
        for trigger in self.run(self.world.triggers()):
            if trigger["group"]["model"] == model and trigger["outcome"] == "success":
                version = self.house.mlflow.add(model, {"f1": 0.81 + 0.006 * len(self.versions.get(model, []))})
                self.versions.setdefault(model, []).append(version)
                self.run(seen(self.world, trigger["id"], version, model))
                return

    @rule(which=WHICH, undo=st.booleans())
    def promote(self, which: int, undo: bool) -> None:
        model = self.models[which]
        if not self.versions.get(model):
            return
        answer = self.run(self.house.gates.ask(self.versions[model][-1], model=model))
        if undo and answer.status_code == 200 and answer.json()["state"] == "promoted":
            self.run(self.world.pass_by(seconds=1))
            self.run(self.world.post(f"/api/v1/promotions/{answer.json()['id']}/rollback", {}))

    @rule(which=WHICH)
    def reset(self, which: int) -> None:
        self.run(self.world.post("/api/v1/routes/accuracy/reset", {"group": {"model": self.models[which]}}))
        self.run(self.world.settle())

    @rule()
    def read_mlflow(self) -> None:
        self.run(surveyed(self.world))

    @rule(which=WHICH)
    def a_version_comes_late(self, which: int) -> None:
        """Its run seemed to have registered none."""
        self.pass_by(2, 0)
        self.read_mlflow()
        self.run(self.world.pass_by(minutes=6))
        self.the_sums_are_those_of_the_triggers()
        self.register(which)
        self.run(self.world.pass_by(minutes=6))

    @rule(hours=st.integers(1, 30))
    def outage(self, hours: int) -> None:
        self.world.outage(hours=hours)

    @invariant()
    def the_sums_are_those_of_the_triggers(self) -> None:
        answer = self.run(self.world.get("/api/v1/effects", limit=1000))
        fired = {t["id"] for t in self.run(self.world.triggers()) if t["fired_at"] is not None}
        assert Counter(item["trigger_id"] for item in answer["items"]) == dict.fromkeys(fired, 1)
        effects = Counter(item["effect"] or "waiting" for item in answer["items"])
        for sums in (answer["groups"], answer["models"]):
            for name in (*Effect, "waiting"):
                assert sum(each[name] for each in sums) == effects[name], name
            assert sum(each["retrains"] for each in sums) == len(fired)
        for item in answer["items"]:
            before = self.known.get(item["trigger_id"], item["effect"])
            traces = [each["effect"] for each in item["former"]]
            assert before in (None, item["effect"], *traces), "an effect was replaced without a trace"
            self.known[item["trigger_id"]] = item["effect"]

    def teardown(self) -> None:
        """In the end nothing waits."""
        for which in range(len(self.models)):
            self.end(which)
        self.run(self.world.pass_by(days=12, steps=12))
        items = self.run(self.world.get("/api/v1/effects", limit=1000))["items"]
        assert [item for item in items if item["effect"] is None] == []


def test_each_fired_trigger_comes_to_one_effect_and_the_sums_are_those_of_the_triggers(
    servers: TestServers, database: str
) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        house = House(servers, database, loop)
        loop.run_until_complete(house.world.__aenter__())
        try:
            run_state_machine_as_test(
                lambda: Effects(house),  # type: ignore[arg-type]  # A factory is enough.
                settings=settings(
                    max_examples=size(2, 60),
                    stateful_step_count=size(12, 40),
                    deadline=None,
                    derandomize=size(True, False),
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate],
                    print_blob=True,
                ),
            )
        finally:
            loop.run_until_complete(house.world.__aexit__(None, None, None))
