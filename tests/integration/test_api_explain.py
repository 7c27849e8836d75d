"""`explain` for a person at three in the morning: what blocks, until when, what would start a run, and what to do."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.world import World
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import opened
from tests.servers import TestServers

Situation = Callable[[World], Awaitable[None]]
SUBJECT = "ModelAccuracyLow"


async def push(world: World, name: str = SUBJECT, **more: Any) -> Any:
    alert = world.alert(name, model="churn", **more)
    await world.push(alert)
    return alert


async def unmatched(world: World) -> None:
    await push(world, "Nobody")


async def held(world: World) -> None:
    await push(world, "Drift")


async def resolved_while_held(world: World) -> None:
    alert = await push(world, "Drift")
    world.clock.pass_by(timedelta(minutes=1))
    await world.push(alert.resolved(world.clock.now()))


async def running(world: World) -> None:
    await push(world)
    await world.pass_by(seconds=5, steps=5)


async def cooling(world: World) -> None:
    await push(world)
    await world.settle()
    await world.pass_by(minutes=40, steps=4)


async def failed(world: World) -> None:
    await push(world)
    await world.settle()
    for dag_id, run_id in world.airflow.runs:
        del dag_id
        world.airflow.finish(run_id, "failed")
    await world.pass_by(minutes=1, steps=2)


async def paused(world: World) -> None:
    world.airflow.pause("retrain_model")
    await push(world)
    await world.settle()


async def missing(world: World) -> None:
    world.airflow.remove_dag("retrain_model")
    await push(world)
    await world.settle()


async def broken(world: World) -> None:
    world.airflow.break_dag("retrain_model")
    await push(world)
    await world.settle()


async def away(world: World) -> None:
    world.airflow.down = True
    await push(world)
    await world.settle()


async def dead(world: World) -> None:
    world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
    await push(world)
    await world.settle()


async def lost(world: World) -> None:
    world.airflow.auto_finish = None
    await push(world)
    await world.settle()
    [key] = world.airflow.runs
    world.airflow.start_run(key[1])
    await world.pass_by(hours=25, steps=5)


async def spent(world: World) -> None:
    await push(world, "Once")
    await world.pass_by(minutes=90, steps=6)
    await push(world, "Once", ago=timedelta(minutes=90))


async def silent(world: World) -> None:
    await push(world)
    await world.pass_by(hours=25, steps=10)


#: What is asked, after what; words of the summary, of what would start a run, and of what to do (None: not told).
SITUATIONS: list[tuple[Situation, str, str, str, str | None]] = [
    (unmatched, "Nobody", "no route of the policy matches", "add one to the policy", None),
    (
        held,
        "Drift",
        "held until 2026-11-23T12:10:00Z",
        "2026-11-23T12:10:00Z, when the debounce of 10m",
        "at 2026-11-23T12:10",
    ),
    (resolved_while_held, "Drift", "resolved before the debounce was over", "The alert must fire again", None),
    (running, SUBJECT, "running: the DAG run is running", "when the open DAG run of the trigger", "Nothing."),
    (
        cooling,
        SUBJECT,
        "succeeded: the DAG run succeeded",
        "at 2026-11-24T12:00:00Z, when the cooldown of 1d",
        "Nothing.",
    ),
    (
        failed,
        SUBJECT,
        "failed: the DAG run failed",
        "when the backoff after the failure ends",
        "Look at the log of the run gateway__",
    ),
    (
        paused,
        SUBJECT,
        "is paused in Airflow",
        "when the open DAG run of the trigger",
        "Unpause the DAG retrain_model in Airflow",
    ),
    (
        missing,
        SUBJECT,
        "retrain_model",
        "when the open DAG run of the trigger",
        "Deploy the DAG retrain_model to the Airflow default",
    ),
    (
        broken,
        SUBJECT,
        "cannot import the file",
        "when the open DAG run of the trigger",
        "Repair the import error of the DAG retrain_model",
    ),
    (away, SUBJECT, "pending: ", "when the open DAG run of the trigger", "Bring the Airflow default back"),
    (
        dead,
        SUBJECT,
        "dead: ",
        "when the backoff after the failure ends",
        "Correct the error that the summary names, then `redrive`",
    ),
    (
        lost,
        SUBJECT,
        "still running after its run_timeout",
        "The last one arrived at",
        "in Airflow. Until it has ended",
    ),
    (spent, "Once", "succeeded: the DAG run succeeded", "`refire` is off", "Nothing."),
    (silent, SUBJECT, "status is firing", "2026-11-23T12:00:00Z, longer ago than `stale_after` (6h)", "Nothing."),
]
IDS = [situation[0].__name__ for situation in SITUATIONS]


@pytest.mark.parametrize(("bring_about", "alert_id", "says", "would", "do"), SITUATIONS, ids=IDS)
async def test_an_explanation_says_what_blocks_until_when_and_what_to_do(
    servers: TestServers, database: str, bring_about: Situation, alert_id: str, says: str, would: str, do: str | None
) -> None:
    async with opened(servers, database) as world:
        await bring_about(world)
        explained = await world.get(f"/api/v1/explain/{alert_id}")
        for text in filter(None, (explained["summary"], explained["would_fire"], explained.get("next_step"))):
            print(text)
        assert says in explained["summary"]
        assert would in explained["would_fire"]
        assert (explained.get("next_step") is None) if do is None else (do in explained["next_step"])
        reads_well(explained)
        if explained["alert"]["trigger_id"]:
            of_trigger = await world.get(f"/api/v1/explain/{explained['alert']['trigger_id']}")
            assert of_trigger["subject"] == "trigger"
            assert of_trigger["summary"].startswith(of_trigger["trigger"]["state"] + ": ")
            assert of_trigger["next_step"] == explained["next_step"]
            reads_well(of_trigger)


def reads_well(explained: dict[str, Any]) -> None:
    """Sentences with an end, absolute times in UTC, no Python in them."""
    for text in filter(None, (explained["summary"], explained.get("would_fire"), explained.get("next_step"))):
        assert text.endswith("."), text
        assert ".." not in text.replace("...", ""), text
        assert not re.search(r"None|\{|datetime|UUID\(|  ", text), text
        assert all(found.endswith("Z") for found in re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)", text)), text


async def test_an_alert_is_found_by_its_id_its_alert_id_and_its_fingerprint(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await push(world)
        [alert] = (await world.get("/api/v1/alerts"))["items"]
        found = [await world.get(f"/api/v1/explain/{alert[name]}") for name in ("id", "alert_id", "fingerprint")]
        assert found[0] == found[1] == found[2]
        assert list(found[0]["now"]) == ["action", "reason", "until", "trigger_id", "detail"]
