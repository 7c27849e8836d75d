"""The probation of a promotion: when the alias stays where it is, whoever moved it, and over outages and reloads."""

from datetime import timedelta
from typing import Any

from tests.acceptance.promotions import Gates
from tests.acceptance.test_probation import (
    all_promoted,
    fires,
    opened,
    policy,
    probation,
    promoted,
    rollbacks,
)
from tests.servers import TestServers


async def test_a_version_goes_back_once_and_then_people_decide(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await promoted(gates)
        await gates.world.pass_by(minutes=1)
        alert = await fires(gates)
        await gates.world.pass_by(minutes=10)
        assert gates.champion() == "1"
        await gates.world.push(alert.resolved(gates.world.clock.now()))
        await gates.world.pass_by(minutes=10)
        again = await gates.promote("2", reason="the sensor was broken")
        await gates.world.pass_by(minutes=10)
        await fires(gates, "ModelErrors")
        await gates.world.pass_by(minutes=10)
        assert (gates.champion(), await rollbacks(gates)) == ("2", ["rolled_back"])
        found = await probation(gates, again)
        assert (found["state"], "was given back once already" in found["detail"]) == ("failed", True)
        assert [incident.severity for incident in gates.pagerduty.open()] == ["error"]


async def by_promotion(gates: Gates, promotion: dict[str, Any]) -> str:
    gates.mlflow.add(promotion["model"], {"f1": 0.7})
    await gates.promote("3", model=promotion["model"])
    return "3"


async def by_promotion_and_back(gates: Gates, promotion: dict[str, Any]) -> str:
    gates.mlflow.add(promotion["model"], {"f1": 0.7})
    made = await gates.promote("3", model=promotion["model"])
    await gates.world.post(f"/api/v1/promotions/{made['id']}/rollback", {})
    return "2"


async def by_rollback(gates: Gates, promotion: dict[str, Any]) -> str:
    await gates.world.post(f"/api/v1/promotions/{promotion['id']}/rollback", {})
    return "1"


async def by_hand(gates: Gates, promotion: dict[str, Any]) -> str:
    gates.mlflow.add(promotion["model"], {"f1": 0.7})
    gates.mlflow.aliases[(promotion["model"], "champion")] = "3"
    return "3"


async def by_taking_it_away(gates: Gates, promotion: dict[str, Any]) -> None:
    del gates.mlflow.aliases[(promotion["model"], "champion")]


async def test_an_alias_that_moved_meanwhile_stays_where_it_is_and_nobody_is_paged(
    servers: TestServers, database: str
) -> None:
    moves: list[Any] = [by_promotion, by_promotion_and_back, by_rollback, by_hand, by_taking_it_away]
    async with opened(servers, database) as gates:
        promotions = await all_promoted(gates, *(f"churn-{move.__name__}" for move in moves))
        await gates.world.pass_by(minutes=1)
        alerts = [await fires(gates, model=promotion["model"]) for promotion in promotions]
        await gates.world.pass_by(minutes=9)
        holds = [await move(gates, promotion) for move, promotion in zip(moves, promotions, strict=True)]
        gates.world.clock.pass_by(timedelta(minutes=1))
        await gates.world.watched()
        await gates.world.settle()
        await gates.world.pass_by(seconds=1)
        await gates.world.push(*(alert.resolved(gates.world.clock.now()) for alert in alerts))
        await gates.world.pass_by(minutes=5, steps=5)
        for promotion, champion in zip(promotions, holds, strict=True):
            found = gates.champion(promotion["model"]), (await probation(gates, promotion))["state"]
            assert found == (champion, "over"), promotion["model"]
        assert gates.pagerduty.opened == []


async def test_the_alias_goes_to_no_version_that_is_gone_or_not_ready_and_people_are_paged(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        promotions = await all_promoted(gates, "churn-gone", "churn-not-ready")
        gates.mlflow.add("churn-never-there", {"f1": 0.9})
        promotions.append(await gates.promote("1", model="churn-never-there"))
        del gates.mlflow.versions[("churn-gone", "1")]
        gates.mlflow.versions[("churn-not-ready", "1")]["status"] = "FAILED_REGISTRATION"
        await gates.world.pass_by(minutes=1)
        for promotion in promotions:
            await fires(gates, model=promotion["model"])
        await gates.world.pass_by(minutes=10)
        details = []
        for promotion in promotions:
            found = await probation(gates, promotion)
            details.append(found["detail"])
            assert (found["state"], "there is no way back" in found["detail"]) == ("failed", True), promotion["model"]
            assert gates.champion(promotion["model"]) == promotion["version"]
        opened_incidents = gates.pagerduty.open()
        assert {incident.severity for incident in opened_incidents} == {"error"}
        assert sorted(incident.details["detail"] for incident in opened_incidents) == sorted(details)
        await gates.world.pass_by(hours=1, steps=4)
        assert len(gates.pagerduty.opened) == len(promotions)


async def test_an_alert_whose_end_nobody_could_hear_counts_when_it_is_heard_again(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        await promoted(gates)
        await gates.world.pass_by(minutes=1)
        alert = await fires(gates)
        await gates.world.settle()
        gates.world.outage(hours=1)
        await gates.world.settle()
        await gates.world.pass_by(minutes=10)
        assert gates.champion() == "2", "it may have ended while no gateway ran"
        await gates.world.push(alert)
        await gates.world.pass_by(seconds=15)
        assert gates.champion() == "1"


async def test_after_an_outage_at_the_promotion_an_alert_only_pages(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await gates.world.settle()
        for f1 in (0.85, 0.9):
            gates.mlflow.add("churn", {"f1": f1})
        gates.mlflow.aliases[("churn", "champion")] = "1"
        gates.world.outage(minutes=5)
        promotion = await gates.promote("2")
        gates.world.outage(minutes=5)
        await gates.world.settle()
        await fires(gates)
        await gates.world.pass_by(minutes=10)
        assert gates.champion() == "2"
        found = await probation(gates, promotion)
        assert (found["state"], found["detail"].endswith("when nobody could hear it")) == ("failed", True)


async def test_the_policy_in_force_says_whether_it_goes_on_and_a_new_key_watches_no_old_promotion(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        promotion = await promoted(gates)
        await gates.world.pass_by(minutes=1)
        await fires(gates)
        gates.mlflow.down = True
        await gates.world.pass_by(minutes=10)
        assert [each.summary for each in gates.pagerduty.open()] == [
            "The rollback of churn 2 from champion was not judged"
        ]
        gates.mlflow.down = False
        assert (await gates.world.reload(policy(""))).status_code == 200
        await gates.world.pass_by(minutes=10)
        assert (gates.champion(), (await probation(gates, promotion))["state"]) == ("2", "over")
        assert gates.pagerduty.open() == [], "nobody wants that rollback any more"
        gates.mlflow.add("churn", {"f1": 0.95})
        unwatched = await gates.promote("3")
        assert (await gates.world.reload(policy())).status_code == 200
        await gates.world.pass_by(minutes=1)
        await fires(gates, "ModelErrors")
        await gates.world.pass_by(minutes=20)
        assert (gates.champion(), await probation(gates, unwatched)) == ("3", None)


async def test_three_replicas_and_a_restart_come_to_one_rollback_and_one_incident(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, replicas=3) as gates:
        promotion = await promoted(gates)
        await gates.world.pass_by(minutes=1)
        await fires(gates)
        await gates.world.pass_by(minutes=5)
        await gates.world.restart(policy())
        for _ in range(2):
            await gates.world.start()
        await gates.world.pass_by(minutes=5)
        assert (gates.champion(), await rollbacks(gates)) == ("1", ["rolled_back"])
        assert (await probation(gates, promotion))["state"] == "rolled_back"
        assert len(gates.pagerduty.opened) == 1
        counted = [
            line
            for services in gates.world.services
            for line in services.core.metrics.render().decode().splitlines()
            if line.startswith('gateway_probations_total{state="rolled_back"}')
        ]
        assert counted == ['gateway_probations_total{state="rolled_back"} 1.0']


async def test_the_page_of_promotions_shows_what_became_of_it(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await promoted(gates)
        await gates.world.pass_by(minutes=1)
        await fires(gates)
        await gates.world.pass_by(minutes=10)
        page = (await gates.world.clients[0].get("/ui/promotions", params={"model": "churn"})).text
        assert 'data-probation="rolled_back"' in page
        assert "ModelAccuracyLow began 1m after the promotion, and lasted 10m" in page
