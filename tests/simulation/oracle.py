"""What must hold, from what went in and what came out. The names of the invariants begin with their number in the design."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from tests.fakes.airflow import FakeAirflow, FakeRun
from tests.simulation.account import Account, ensure
from tests.simulation.schedule import STRAY
from tests.simulation.site import Site

COOLDOWN: Final = timedelta(hours=1)
BACKOFF: Final = timedelta(minutes=5)
LIMIT: Final = 1, timedelta(minutes=40)
#: A group whose alert fires has its next run after a cooldown, or after a backoff that is no longer, by the next look.
LATEST: Final = timedelta(minutes=125)
EVER: Final = timedelta(days=1)  # longer than a life
#: A trigger is over after so long, once nothing goes wrong any more.
LONGEST: Final = timedelta(minutes=50)

ALERTED: Final = ("new_alert", "still_firing")
ANSWERS: Final = {
    "fire": {"new_alert", "still_firing"},
    "hold": {"debouncing", "joined"},
    "suppress": {"duplicate", "cooldown", "in_flight", "limit", "muted"},
    "cancel": {"resolved_while_held", "by_request"},
    "ignore": {"resolved", "no_route"},
}


def model_of(run: FakeRun) -> str:
    return str(run.conf["gateway"]["group"]["model"])


def trigger_of(run: FakeRun) -> str:
    return str(run.conf["gateway"]["trigger_id"])


def check_decisions(decisions: Iterable[Mapping[str, Any]]) -> None:
    """Every answer has a reason of its action, and a sentence."""
    for each in decisions:
        known = each["reason"] in ANSWERS.get(each["action"], ())
        ensure(known and each["detail"], "6 every no has a name", f"{each['action']} {each['reason']!r}")


def check_runs(airflow: FakeAirflow, account: Account, kept: bool) -> None:
    """After each step: what Airflow has seen so far. `kept`: a failed run keeps the cooldown under every policy."""
    triggers: dict[str, FakeRun] = {}
    for run in airflow.runs.values():
        ensure(trigger_of(run) not in triggers, "2 one run per trigger", f"two runs of {trigger_of(run)}")
        triggers[trigger_of(run)] = run
    by_model: dict[str, list[FakeRun]] = {}
    for run in sorted(airflow.runs.values(), key=lambda each: each.queued_at):
        by_model.setdefault(model_of(run), []).append(run)
    for model, runs in by_model.items():
        for before, after in pairwise(runs):
            ended = before.ended_at
            ensure(ended is not None and ended <= after.queued_at, "2 one run at a time", f"two open runs of {model}")
            if ended is None or not account.is_left_alone(model, before.queued_at, after.queued_at):
                continue
            clear = ended + BACKOFF if before.state == "failed" and not kept else before.queued_at + COOLDOWN
            early = f"{model} ran at {before.queued_at:%H:%M:%S} ({before.state}), again at {after.queued_at:%H:%M:%S}"
            ensure(after.queued_at >= clear, "2 one trigger per cooldown", early)


async def check_end(site: Site, account: Account, policies: tuple[str, str]) -> None:
    """Nothing has gone wrong for hours: everything that was acknowledged has come to its end."""
    await _check_counts(site, account)
    await _check_open(site, account)
    triggers = await site.fetch(
        "SELECT id::text, state, reason, fired_at, created_at, ended_at, group_key, group_labels->>'model' AS model"
        " FROM triggers ORDER BY id"
    )
    await _check_triggers(site, account, triggers)
    _check_backoff(account, triggers)
    _check_limit(account, policies, triggers)
    _check_liveness(site, account, policies)
    for answer in await _pages(site):
        check_decisions(answer["decisions"])
        ensure(answer["decisions"], "6 every no has a name", f"no decision on {answer['alert_id']}")


async def _pages(site: Site) -> list[dict[str, Any]]:
    answer = await site.replicas[0].send("GET", "/api/v1/alerts?limit=1000", None)
    ensure(answer.status_code == 200, "6 every no has a name", f"the history is answered {answer.status_code}")
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def _check_counts(site: Site, account: Account) -> None:
    found = await site.fetch("SELECT fingerprint, sum(count)::bigint AS n FROM alerts GROUP BY fingerprint")
    counts = {row["fingerprint"]: row["n"] for row in found}
    for fingerprint in account.received:
        least, most = account.acknowledged[fingerprint], account.received[fingerprint]
        counted = counts.get(fingerprint, 0)
        ensure(
            least <= counted <= most,
            "1 durable before 2xx",
            f"{counted} of {fingerprint} are counted; {least} were acknowledged, {most} sent",
        )


async def _check_open(site: Site, account: Account) -> None:
    """What surely fires is shown as firing, also an alert without a route."""
    rows = await site.fetch("SELECT fingerprint FROM alerts WHERE closed_at IS NULL")
    unseen = account.firing_since.keys() - {row["fingerprint"] for row in rows} - account.overtaken
    for fingerprint in unseen:
        model, since = account.firing_since[fingerprint]
        ensure(False, "7 nothing acknowledged is forgotten", f"an alert of {model} fires since {since:%H:%M}, unseen")


async def _check_triggers(site: Site, account: Account, triggers: list[Mapping[str, Any]]) -> None:
    runs = {trigger_of(run): run for run in site.airflow.runs.values()}
    states = {row["id"]: row["state"] for row in triggers}
    for lost in account.promised - states.keys():
        ensure(False, "1 durable before 2xx", f"the trigger {lost} was answered 201 and is gone")
    for ident in runs.keys() - states.keys():
        ensure(False, "2 one run per trigger", f"a run of the unknown trigger {ident}")
    dead = await site.fetch("SELECT DISTINCT key FROM notices WHERE event = 'trigger_dead'")
    notices = {row["key"] for row in dead}
    for row in triggers:
        name, state = f"the trigger {row['id']} of {row['model']}", row["state"]
        if row["fired_at"] and row["reason"] in ALERTED and not account.had("redrive", row["model"]):
            meant = account.may_have_fired(row["model"], row["fired_at"])
            ensure(meant, "3 a fire has its alert", f"{name} fired at {row['fired_at']:%H:%M:%S}, and no alert did")
        match state:
            case "succeeded" | "failed":
                run = runs.get(row["id"])
                ended = run is not None and run.state == {"succeeded": "success"}.get(state, state)
                ensure(ended, "4 a run is followed to its end", f"{name} is {state}, its run {run and run.state}")
            case "dead":
                ensure(row["id"] not in runs, "3 a run or visibly dead", f"{name} is dead, and has a run")
                key = f"trigger_dead:accuracy:{row['group_key'][:16]}"
                ensure(key in notices, "3 a run or visibly dead", f"{name} is dead, and nobody hears of it")
            case "cancelled":
                ensure(row["id"] not in runs, "3 a run or visibly dead", f"{name} is cancelled, and has a run")
            case _:
                since = row["fired_at"] or row["created_at"]
                ensure(
                    since >= site.now() - LONGEST, "3 a run or visibly dead", f"{name} is {state} since {since:%H:%M}"
                )


def _check_backoff(account: Account, triggers: list[Mapping[str, Any]]) -> None:
    """After a dead trigger the next waits, as after a failed run."""
    for model in {row["model"] for row in triggers}:
        fired = sorted(
            (row for row in triggers if row["model"] == model and row["fired_at"]), key=lambda r: r["fired_at"]
        )
        for before, after in pairwise(fired):
            if before["state"] == "dead" and account.is_left_alone(model, before["fired_at"], after["fired_at"]):
                early = (
                    f"{model} fires at {after['fired_at']:%H:%M:%S}, its trigger died at {before['ended_at']:%H:%M:%S}"
                )
                ensure(after["fired_at"] >= before["ended_at"] + BACKOFF, "2 one trigger per cooldown", early)


def _check_limit(account: Account, policies: tuple[str, str], triggers: list[Mapping[str, Any]]) -> None:
    if set(policies) != {"limited"} or account.had("force") or account.had("redrive"):
        return
    most, per = LIMIT
    fired: list[datetime] = sorted(
        row["fired_at"] for row in triggers if row["fired_at"] and row["state"] not in ("dead", "cancelled")
    )
    for before, after in zip(fired, fired[most:], strict=False):
        ensure(after - before >= per, "2 the limit of a route", f"more than {most} fires from {before:%H:%M} on")


def _check_liveness(site: Site, account: Account, policies: tuple[str, str]) -> None:
    """What fires has its runs, unless something stands in the way for ever."""
    if "limited" in policies:  # Two groups share the places of a route; which of them waits, nobody promises.
        return
    runs = site.airflow.runs.values()
    for model, since in set(account.firing_since.values()):
        if model == STRAY:
            continue
        if account.had("cancel", model):  # Its alerts count again only when they fire anew.
            continue
        # Without `refire` its run may be as old as an episode whose end nobody knows.
        earliest = since - EVER if site.replicas[0].policy == "spent" else site.now() - LATEST
        newest = max((run.queued_at for run in runs if model_of(run) == model), default=None)
        heard = f"{model} fires since {since:%H:%M}, its newest run began at {newest and f'{newest:%H:%M}'}"
        ensure(newest is not None and newest >= earliest, "7 nothing acknowledged is forgotten", heard)
