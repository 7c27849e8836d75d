"""Good news: a run that ended well and a promotion, with the metrics of both versions, to those who asked for it."""

from datetime import timedelta
from typing import Any

from tests.acceptance.promotions import ENTRY, Gates, seen
from tests.acceptance.test_effects import opened, retrained
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Call, Reply, refuse
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import FakePagerDuty
from tests.fakes.server import FakeServer
from tests.servers import TestServers

MLFLOW = 'mlflow: {tracking_uri: "http://mlflow.test:5000"}\n' + ENTRY
SLACK = '  - {name: ml-team, slack: {url: "http://slack.test/hook"}}\n'
RUN = "notify: {run_succeeded: [oncall]}"
BOTH = "notify: {run_succeeded: [oncall], promoted: [oncall]}\n"


class Channel(FakeServer):
    """Slack's incoming webhook."""

    def operation(self, method: str, path: str) -> str:
        return "post"

    def answer(self, call: Call) -> Reply:
        return Reply(200, "ok")


class News:
    """A world with an MLflow, a PagerDuty and a Slack."""

    def __init__(self, servers: TestServers, database: str, text_: str, **more: Any) -> None:
        self.clock = clock = ManualClock()
        self.mlflow, self.pagerduty, self.slack = FakeMlflowRegistry(clock), FakePagerDuty(clock), Channel(clock)
        others: Any = {"mlflow.test": self.mlflow, FakePagerDuty.host: self.pagerduty, "slack.test": self.slack}
        self.world: World = opened(servers, database, text_ + RECEIVERS + SLACK, clock=clock, others=others, **more)
        self.gates = Gates(self.world, self.mlflow, self.pagerduty)

    def details(self) -> list[tuple[str, str]]:
        """The summary and the detail of everything that PagerDuty got."""
        return [(each.summary, each.details["detail"]) for each in self.pagerduty.opened]


async def test_a_run_that_ends_well_is_announced_to_those_whom_its_route_names(
    servers: TestServers, database: str
) -> None:
    case = News(servers, database, policy(RUN), external_url="https://gateway.example")
    async with case.world as world:
        await retrained(world)
        await world.pass_by(seconds=1)
        [news] = case.pagerduty.open()
        assert (news.summary, news.severity) == ("The retraining of accuracy, model=churn succeeded", "info")
        assert news.details["labels"] == {"model": "churn", "route": "accuracy"}
        [event] = case.pagerduty.calls("event")
        link = f"https://gateway.example/api/v1/explain/{(await world.trigger())['id']}"
        assert event.call.body["client_url"] == link
        await world.pass_by(minutes=3)
        assert case.pagerduty.open() == []
        await world.pass_by(days=2, steps=4)
        assert case.details() == [(news.summary, "Its DAG run took 20m. No model version of it is known.")]


async def test_good_news_goes_to_nobody_whom_no_list_names(servers: TestServers, database: str) -> None:
    case = News(servers, database, policy() + MLFLOW)
    async with case.world as world:
        await retrained(world)
        trigger = (await world.trigger())["id"]
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.9}, tags={"gateway.trigger_id": trigger}))
        await world.pass_by(hours=2, steps=4)
        assert case.pagerduty.opened == []


async def test_slack_gets_one_message_and_no_end(servers: TestServers, database: str) -> None:
    case = News(servers, database, policy("notify: {run_succeeded: [ml-team]}"))
    async with case.world as world:
        await retrained(world)
        await world.pass_by(hours=1, steps=4)
        assert [post.call.body["text"] for post in case.slack.calls("post")] == [
            "The retraining of accuracy, model=churn succeeded"
        ]
        [notice] = (await world.get("/api/v1/notices", event="run_succeeded"))["items"]
        assert (notice["resolved_at"] is not None, notice["receivers"][0]["resolved"]) == (True, None)


async def test_a_promotion_is_announced_with_the_metrics_of_both_versions(servers: TestServers, database: str) -> None:
    case = News(servers, database, policy("notify: {promoted: [oncall]}") + MLFLOW)
    async with case.world as world:
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.85, "auc": 0.9}))
        await retrained(world)
        trigger = (await world.trigger())["id"]
        version = case.mlflow.add("churn", {"f1": 0.91, "loss": 0.2}, tags={"gateway.trigger_id": trigger})
        shown = await case.gates.promote(version)
        await world.settle()
        assert case.details() == [
            (
                "Version 2 of churn is champion",
                "Before, version 1 held champion. Metrics: f1 0.91 (version 1: 0.85), loss 0.2. Its DAG run took 20m.",
            )
        ]
        assert shown["trigger_id"] == trigger
        assert shown["metrics"] == {
            "f1": {"version": 0.91, "before": 0.85},
            "loss": {"version": 0.2, "before": None},
        }


async def test_without_rules_the_champion_is_read_only_for_people_and_stops_nothing(
    servers: TestServers, database: str
) -> None:
    entry = "promotions: [{model: churn, to: champion}]\n"
    notify = "notify: {promoted: [oncall]}\n"
    mlflow = 'mlflow: {tracking_uri: "http://mlflow.test:5000"}\n'
    case = News(servers, database, policy() + mlflow + entry + notify)
    async with case.world as world:
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.85}))
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.91}))
        case.mlflow.disturb(refuse(), on=lambda call: call.query.get("run_id") == "churn-run-2", times=None)
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.92}))
        await world.settle()
        assert [detail for _, detail in case.details()][1:] == [
            "Before, version 1 held champion. Metrics: f1 0.91 (version 1: 0.85).",
            "Before, version 2 held champion. Metrics: f1 0.92.",
        ]


async def test_a_run_is_announced_with_what_the_gate_kept_of_its_version(servers: TestServers, database: str) -> None:
    case = News(servers, database, policy() + MLFLOW + BOTH, replicas=3)
    async with case.world as world:
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.85}))
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=10)
        trigger = (await world.trigger())["id"]
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.91}, tags={"gateway.trigger_id": trigger}))
        await world.pass_by(minutes=10)
        await world.pass_by(hours=1, steps=4)
        first, promoted, run = case.details()
        assert first[1] == "No version held champion. Metrics: f1 0.85."
        assert promoted[1].endswith("Its DAG run has taken 10m so far.")
        assert run[1] == (
            "Its DAG run took 20m. It made version 2 of churn: f1 0.91 (version 1: 0.85). That version is champion."
        )
        assert [each.triggers for each in case.pagerduty.opened] == [1, 1, 1]


async def test_a_version_that_nobody_promoted_is_read_when_it_is_seen_and_an_mlflow_that_is_away_holds_nothing_up(
    servers: TestServers, database: str
) -> None:
    case = News(servers, database, policy(RUN) + MLFLOW)
    async with case.world as world:
        await case.gates.promote(case.mlflow.add("churn", {"f1": 0.85}))
        await retrained(world)
        await world.pass_by(minutes=5)
        assert case.pagerduty.opened == []
        await seen(world, (await world.trigger())["id"], case.mlflow.add("churn", {"f1": 0.91}))
        case.mlflow.disturb(refuse(), times=None)
        await world.pass_by(minutes=5)
        assert case.pagerduty.opened == []
        case.mlflow.calm()
        await world.pass_by(minutes=2)
        assert [detail for _, detail in case.details()] == [
            "Its DAG run took 20m. It made version 2 of churn: f1 0.91 (version 1: 0.85). Version 1 is champion."
        ]


async def test_a_replica_that_dies_while_it_reads_mlflow_leaves_the_news_to_another(
    servers: TestServers, database: str
) -> None:
    case = News(servers, database, policy(RUN) + MLFLOW, replicas=3)
    async with case.world as world:
        await retrained(world)
        await seen(world, (await world.trigger())["id"], case.mlflow.add("churn", {"f1": 0.91}))
        case.clock.pass_by(timedelta(minutes=1))
        await world.die_during("GET registered-models/alias", loop="outcomes", at=case.mlflow)
        await world.settle()
        assert case.pagerduty.opened == []
        await world.pass_by(minutes=1)
        await world.pass_by(minutes=10, steps=2)
        assert [
            (detail, each.triggers) for (_, detail), each in zip(case.details(), case.pagerduty.opened, strict=True)
        ] == [("Its DAG run took 20m. It made version 1 of churn: f1 0.91. No version is champion.", 1)]


async def test_after_half_an_hour_the_news_comes_without_what_mlflow_does_not_say(
    servers: TestServers, database: str
) -> None:
    case = News(servers, database, policy(RUN) + MLFLOW)
    async with case.world as world:
        await retrained(world)
        await seen(world, (await world.trigger())["id"], case.mlflow.add("churn", {"f1": 0.91}))
        case.mlflow.disturb(refuse(), times=None)
        await world.pass_by(minutes=29, seconds=50, steps=5)
        assert case.pagerduty.opened == []
        await world.pass_by(minutes=2)
        assert [detail for _, detail in case.details()] == ["Its DAG run took 20m. It made version 1 of churn."]
