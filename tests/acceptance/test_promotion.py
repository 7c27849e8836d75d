"""The gate from outside: what is promoted, what is blocked and why, and what is written down."""

from typing import Any

import pytest

from tests.acceptance.promotions import ENTRY, Gates, opened
from tests.fakes.clock import NOON
from tests.fakes.faults import meanwhile
from tests.integration.api import problem
from tests.servers import TestServers


async def test_the_first_version_is_promoted_and_a_worse_one_is_not(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        first, worse = gates.mlflow.add("churn", {"f1": 0.85}), gates.mlflow.add("churn", {"f1": 0.851})
        promoted = await gates.promote(first, reason="the first")
        assert (promoted["state"], promoted["previous"], promoted["target"]) == ("promoted", None, "1")
        assert (promoted["requested_by"], promoted["reason"]) == ("anonymous", "the first")
        assert promoted["created_at"] == NOON.isoformat().replace("+00:00", "Z")
        assert gates.champion() == "1"
        blocked = problem(await gates.ask(worse), 409, "blocked")
        assert {verdict["rule"]: verdict["passed"] for verdict in blocked["verdicts"]} == {
            "version": True,
            "run": True,
            "metric f1": True,
            "input training": True,
            "artifact model": True,
            "f1 >= 0.80": True,
            "f1 >= champion.f1 + 0.005": False,
        }
        assert blocked["verdicts"][-1]["detail"] == "f1 is 0.851, champion.f1 is 0.85"
        assert gates.champion() == "1"
        assert gates.mlflow.tags("churn", "2") == {}
        assert await gates.states() == ["promoted", "blocked"]
        await gates.world.services[0].loop("gauges").step()
        counted = (await gates.world.clients[0].get("/metrics")).text
        assert 'gateway_promotions_total{state="promoted"} 1.0' in counted
        assert 'gateway_promotions_total{state="blocked"} 1.0' in counted
        assert "gateway_promotions_open 0.0" in counted


async def test_what_it_was_made_of_travels_with_the_version(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.85})
        data = gates.mlflow.runs["churn-run-1"]["inputs"]["dataset_inputs"]
        more = {"name": "more", "digest": "d9", "source_type": "s3", "source": '{"uri": "s3://more"}'}
        data.append({"tags": data[0]["tags"], "dataset": more})
        promoted = await gates.promote(version)
        tags = gates.mlflow.tags("churn", "1")
        assert tags == promoted["tags"]
        digest = tags.pop("gateway.artifact.model").removeprefix("mlflow-artifacts:/0/churn-run-1/model sha256:")
        assert len(digest) == 64
        assert tags == {
            "validation_status": "promoted",
            "gateway.promotion": promoted["id"],
            "gateway.promoted_by": "anonymous",
            "gateway.source": "runs:/churn-run-1/model",
            "gateway.run": "churn-run-1",
            "gateway.input.training": "churn d1 s3://data; more d9 s3://more",
        }


async def test_tags_are_written_before_the_mark_and_it_is_read_before_and_after(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        asked = [op for op in gates.mlflow.asked if "artifact" not in op]
        judged = asked.index("GET runs/get") + 1
        writes = ["POST model-versions/set-tag"] * 7
        look = "GET registered-models/alias"
        nobody = [look, "GET registered-models/get"]
        after = ["POST registered-models/alias", look, "GET model-versions/get"]
        assert asked[judged:] == [*nobody, *writes, *nobody, *after]


async def test_asking_again_for_who_holds_the_mark_changes_nothing(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.85})
        await gates.promote(version)
        writes = len(gates.mlflow.writes)
        assert (await gates.promote(version))["state"] == "unchanged"
        assert len(gates.mlflow.writes) == writes


@pytest.mark.parametrize(
    ("expected", "passes"), [("1", True), ("2", False), ("", False), (None, True)], ids=["it", "other", "nobody", "any"]
)
async def test_expected_is_compared_before_anything_is_set(
    servers: TestServers, database: str, expected: str | None, passes: bool
) -> None:
    async with opened(servers, database) as gates:
        for f1 in (0.85, 0.9, 0.95):
            gates.mlflow.add("churn", {"f1": f1})
        await gates.promote("1", expected="")
        answer = await gates.ask("3", expected=expected, override=True, reason="no override helps")
        assert answer.status_code == (200 if passes else 409)
        assert gates.champion() == ("3" if passes else "1")


async def test_a_dry_run_judges_and_changes_nothing(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        good, bad = gates.mlflow.add("churn", {"f1": 0.85}), gates.mlflow.add("churn", {"f1": 0.5})
        assert (await gates.promote(good, dry_run=True))["state"] == "passed"
        problem(await gates.ask(bad, dry_run=True), 409, "blocked")
        assert gates.mlflow.writes == []
        assert [row["dry_run"] for row in await gates.rows()] == [True, True]


async def test_shadow_records_every_verdict_and_stands_in_nobodys_way(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRY + "    mode: shadow\n") as gates:
        good, bad = gates.mlflow.add("churn", {"f1": 0.85}), gates.mlflow.add("churn", {"f1": 0.5})
        assert [(await gates.promote(version))["state"] for version in (good, bad)] == ["passed", "blocked"]
        assert gates.mlflow.writes == []


async def test_an_override_promotes_and_leaves_a_mark(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        bad = gates.mlflow.add("churn", {"f1": 0.5})
        problem(await gates.ask(bad, override=True), 422, "invalid")
        promoted = await gates.promote(bad, override=True, reason="the old one is unsafe")
        assert (promoted["override"], promoted["reason"]) == (True, "the old one is unsafe")
        assert gates.mlflow.tags("churn", "1")["gateway.override"] == "the old one is unsafe"
        good = gates.mlflow.add("churn", {"f1": 0.9})
        await gates.promote(good, override=True, reason="not needed")
        assert "gateway.override" not in gates.mlflow.tags("churn", good)


ODD: list[tuple[str, dict[str, Any], str, str]] = [
    ("no such version", {}, "version", "there is no version churn 9"),
    ("not READY", {"status": "PENDING_REGISTRATION"}, "version", "version 1 is PENDING_REGISTRATION"),
    ("no run", {"run_id": ""}, "metric f1", "no metric f1"),
    ("a run that is gone", {"run_id": "nope"}, "run", "run nope is not there"),
]


@pytest.mark.parametrize(("more", "rule", "detail"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
async def test_what_is_wrong_with_a_version_is_named(
    servers: TestServers, database: str, more: dict[str, Any], rule: str, detail: str
) -> None:
    async with opened(servers, database) as gates:
        gates.mlflow.add("churn", {"f1": 0.85}, **more)
        blocked = problem(await gates.ask("1" if more else "9"), 409, "blocked")
        failed = {verdict["rule"]: verdict["detail"] for verdict in blocked["verdicts"] if not verdict["passed"]}
        assert failed[rule] == detail
        assert gates.mlflow.writes == []


async def test_a_deleted_run_blocks_and_an_incumbent_whose_run_is_deleted_still_counts(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        first, second = gates.mlflow.add("churn", {"f1": 0.85}), gates.mlflow.add("churn", {"f1": 0.9})
        await gates.promote(first)
        gates.mlflow.runs["churn-run-1"]["info"]["lifecycle_stage"] = "deleted"
        gates.mlflow.runs["churn-run-2"]["info"]["lifecycle_stage"] = "deleted"
        blocked = problem(await gates.ask(second), 409, "blocked")
        assert "run" in [verdict["rule"] for verdict in blocked["verdicts"] if not verdict["passed"]]
        gates.mlflow.runs["churn-run-2"]["info"]["lifecycle_stage"] = "active"
        assert (await gates.promote(second))["verdicts"][-1]["detail"] == "f1 is 0.9, champion.f1 is 0.85"


STAGES = """
promotions:
  - {model: churn, to: staging, require: {params: [depth]}}
  - {model: churn, to: champion, requires: staging, rules: ['f1 > champion.f1']}
"""


async def test_a_version_goes_from_mark_to_mark(servers: TestServers, database: str) -> None:
    async with opened(servers, database, STAGES) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.85}, params={"depth": "3"})
        assert problem(await gates.ask(version), 422, "wrong_mark")["detail"].endswith(
            "staging, champion for this model."
        )
        problem(await gates.ask(version, model="fraud"), 404, "not_found")
        early = problem(await gates.world.post("/api/v1/promotions", body(version, "champion")), 409, "blocked")
        assert early["detail"] == "Not passed: requires staging."
        for mark, status in [("staging", "staging_ready"), ("champion", "promoted")]:
            answer = await gates.world.post("/api/v1/promotions", body(version, mark))
            assert answer.status_code == 200, answer.text
            assert gates.mlflow.tags("churn", version)["validation_status"] == status
        problem(await gates.world.post("/api/v1/promotions", body(version, "production")), 422, "wrong_mark")


def body(version: str, mark: str) -> dict[str, Any]:
    return {"model": "churn", "version": version, "to": mark}


async def test_who_is_blocked_is_told_once_and_the_next_promotion_resolves_it(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        worse, good = gates.mlflow.add("churn", {"f1": 0.5}), gates.mlflow.add("churn", {"f1": 0.9})
        await gates.ask(worse, dry_run=True)
        await gates.world.settle()
        assert gates.pagerduty.opened == []
        for _ in range(2):
            await gates.ask(worse)
        await gates.world.settle()
        [incident] = gates.pagerduty.open()
        assert incident.summary == "The promotion of churn 1 to champion was blocked"
        assert incident.details["detail"] == "f1 >= 0.80: f1 is 0.5"
        assert (incident.severity, incident.triggers) == ("warning", 1)
        await gates.promote(good)
        await gates.world.settle()
        assert (gates.pagerduty.open(), gates.pagerduty.opened) == ([], [incident])


async def test_who_is_merely_not_better_wakes_nobody(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        worse, empty = gates.mlflow.add("churn", {"f1": 0.851}), gates.mlflow.add("churn", {})
        problem(await gates.ask(worse), 409, "blocked")
        await gates.world.settle()
        assert [event.severity for event in gates.pagerduty.open()] == ["info"]
        problem(await gates.ask("44"), 409, "blocked")
        await gates.world.settle()
        assert [event.severity for event in gates.pagerduty.open()] == ["info", "info"]
        problem(await gates.ask(empty), 409, "blocked")
        await gates.world.settle()
        assert [event.severity for event in gates.pagerduty.open()] == ["info", "info", "warning"]


async def test_who_is_refused_for_another_reason_is_told_anew(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.5})
        gates.mlflow.down = True
        problem(await gates.ask(version), 503, "registry_unavailable")
        gates.mlflow.down = False
        problem(await gates.ask(version), 409, "blocked")
        await gates.world.settle()
        assert [event.details["detail"] for event in gates.pagerduty.open()] == ["f1 >= 0.80: f1 is 0.5"]
        gates.mlflow.files["churn-run-1"] = {}
        problem(await gates.ask(version), 409, "blocked")
        await gates.world.settle()
        [event] = gates.pagerduty.open()
        assert event.details["detail"].startswith("artifact model: no artifact model")
        assert len(gates.pagerduty.opened) == 3


async def test_who_was_given_the_mark_by_hand_is_judged_against_whom_the_gate_promoted(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        first, worse, better = (gates.mlflow.add("churn", {"f1": f1}) for f1 in (0.85, 0.5, 0.9))
        gates.mlflow.aliases[("churn", "champion")] = first
        judged = await gates.promote(first)
        assert (judged["state"], len(judged["verdicts"])) == ("unchanged", 7)
        gates.mlflow.aliases.clear()
        await gates.promote(first)
        assert (await gates.promote(first))["verdicts"] == []
        gates.mlflow.aliases[("churn", "champion")] = worse
        blocked = problem(await gates.ask(worse), 409, "blocked")
        assert blocked["verdicts"][-1]["detail"] == "f1 is 0.5, champion.f1 is 0.85"
        gates.mlflow.aliases[("churn", "champion")] = better
        assert (await gates.promote(better))["verdicts"][-1]["detail"] == "f1 is 0.9, champion.f1 is 0.85"


async def test_an_unreadable_registry_is_told_as_well(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.9})
        gates.mlflow.down = True
        problem(await gates.ask(version), 503, "registry_unavailable")
        await gates.world.settle()
        assert [event.summary for event in gates.pagerduty.open()] == [
            "The promotion of churn 1 to champion was not judged"
        ]


async def test_a_rollback_gives_the_mark_back_step_by_step(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        first = await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        second = await gates.promote(gates.mlflow.add("churn", {"f1": 0.9}))
        refused = problem(await roll_back(gates, first), 409, "blocked")
        assert refused["detail"] == "Version 2 holds champion."
        back = (await roll_back(gates, second, reason="complaints")).json()
        assert (back["state"], back["previous"], back["target"], back["reason"]) == (
            "rolled_back",
            "2",
            "1",
            "complaints",
        )
        assert gates.champion() == "1"
        assert gates.mlflow.tags("churn", "2")["validation_status"] == "rolled_back"
        assert (await roll_back(gates, first)).json()["target"] is None
        assert gates.champion() is None
        problem(await roll_back(gates, back), 409, "wrong_state")
        missing = "01936f8e-52a1-7c3e-9d5a-1f0e6c2b7a44"
        problem(await roll_back(gates, {"id": missing}), 404, "not_found")


async def test_a_promotion_that_a_later_one_followed_is_not_the_one_to_roll_back(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        first = await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        await gates.world.pass_by(minutes=1)
        await gates.promote(gates.mlflow.add("churn", {"f1": 0.9}))
        await gates.world.pass_by(minutes=1)
        again = await gates.promote("1", override=True, reason="2 is too slow")
        refused = problem(await roll_back(gates, first), 409, "wrong_state")
        assert (again["id"] in refused["detail"], gates.champion()) == (True, "1")
        assert (await roll_back(gates, again)).json()["target"] == "2"


async def test_there_is_no_way_back_to_a_version_that_is_gone(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        second = await gates.promote(gates.mlflow.add("churn", {"f1": 0.9}))
        del gates.mlflow.versions[("churn", "1")]
        assert problem(await roll_back(gates, second), 409, "blocked")["detail"] == "Version 1 is gone."
        assert gates.champion() == "2"


async def test_a_rollback_that_comes_too_late_leaves_no_incident_open(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await gates.promote(gates.mlflow.add("churn", {"f1": 0.85}))
        second = await gates.promote(gates.mlflow.add("churn", {"f1": 0.9}))

        def somebody_moves_it() -> None:
            gates.mlflow.aliases[("churn", "champion")] = "1"

        gates.mlflow.disturb(meanwhile(somebody_moves_it), on="POST model-versions/set-tag", times=1)
        lost = problem(await roll_back(gates, second), 409, "lost_race")
        assert [each["rule"] for each in lost["verdicts"] if not each["passed"]] == ["holds champion"]
        await gates.world.settle()
        assert gates.pagerduty.open() == []
        gates.mlflow.aliases[("churn", "champion")] = "2"
        gates.mlflow.down = True
        problem(await roll_back(gates, second), 503, "registry_unavailable")
        gates.mlflow.down = False
        await gates.world.settle()
        assert [each.summary for each in gates.pagerduty.open()] == [
            "The rollback of churn 2 from champion was not judged"
        ]
        somebody_moves_it()
        problem(await roll_back(gates, second), 409, "blocked")
        await gates.world.settle()
        assert gates.pagerduty.open() == []


async def roll_back(gates: Gates, promotion: dict[str, Any], **more: Any) -> Any:
    return await gates.world.post(f"/api/v1/promotions/{promotion['id']}/rollback", more)


async def test_promotions_are_listed_by_model_mark_and_state(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        for model in ("churn", "churn-eu"):
            for f1 in (0.85, 0.5):
                gates.mlflow.add(model, {"f1": f1})
        made = [await gates.promote("1", model=model) for model in ("churn", "churn-eu")]
        await gates.ask("2", model="churn-eu")
        assert [row["model"] for row in await gates.rows(state="promoted")] == ["churn", "churn-eu"]
        assert [row["version"] for row in await gates.rows(model="churn-eu")] == ["1", "2"]
        found = await gates.world.clients[0].get("/api/v1/promotions", params={"to": "champion", "version": "1"})
        assert [row["model"] for row in found.json()["items"]] == ["churn-eu", "churn"]
        page = await gates.world.get("/api/v1/promotions", limit=2)
        rest = await gates.world.get("/api/v1/promotions", limit=2, cursor=page["next"])
        assert [len(page["items"]), len(rest["items"]), rest["next"]] == [2, 1, None]
        assert await gates.world.get(f"/api/v1/promotions/{made[0]['id']}") == made[0]
