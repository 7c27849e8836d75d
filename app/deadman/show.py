"""A switch as the API shows it, and why it is in its state."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import rules, sentences, store
from app.deadman.flips import expectation
from app.deadman.rules import State
from app.deadman.store import FORGOTTEN, Record
from app.deadman.watch import Roster
from app.explain.why import why
from app.policy.deadman import Instance, Retrain, Switch
from app.policy.language.cron import Cron
from app.policy.language.durations import format_duration
from app.policy.schema import Policy

MOST_FLIPS: Final = 100
#: How far back an explanation looks when the last good sign is older, or never came.
_FARTHEST: Final = timedelta(days=90)


async def page(
    conn: AsyncConnection, policy: Policy, *, state: str | None, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Switches by name, and where the next page begins."""
    records = await store.page(conn, after=cursor or "", state=state, most=limit + 1)
    roster = Roster(policy)
    shown = [_shown(record, roster.instance(record)) for record in records[:limit]]
    return shown, records[limit - 1].name if len(records) > limit else None


async def of_groups(
    conn: AsyncConnection, policy: Policy, groups: Iterable[tuple[str, Mapping[str, str]]]
) -> list[tuple[str, dict[str, Any]]]:
    """The switches that expect a retrain of one of these groups, each with the route. A group is its route and its labels.
    Without such a switch in the policy it asks Postgres nothing."""
    watching: dict[str, list[tuple[Switch, Retrain]]] = {}
    for switch in policy.deadman:
        if isinstance(switch.expect, Retrain):
            watching.setdefault(switch.expect.retrain, []).append((switch, switch.expect))
    routes: dict[str, str] = {}
    for route, labels in groups:
        for switch, expect in watching.get(route, ()):
            instance = switch.seen(labels) if expect.group.items() <= labels.items() else None
            if instance is not None and instance.labels == labels:
                routes |= {instance.name: route, instance.apart: route}
    if not routes:
        return []
    roster = Roster(policy)
    found = [(record, roster.instance(record)) for record in await store.named(conn, routes)]
    return [(routes[record.name], _shown(record, instance)) for record, instance in found if instance is not None]


async def switch(conn: AsyncConnection, name: str, policy: Policy, now: datetime) -> dict[str, Any] | None:
    """One switch with its flips, its pings and its explanation."""
    record = await store.find(conn, name)
    if record is None or record.state == FORGOTTEN:
        return None
    roster = Roster(policy)
    instance = roster.instance(record)
    shown = _shown(record, instance)
    shown["flips"] = [_flip(row) for row in await store.flips(conn, name, MOST_FLIPS)]
    shown["pings"] = [_ping(row) for row in await store.pings(conn, name, store.MOST_PINGS)]
    dag = roster.dag(instance) if instance else None
    read = (await store.dag_reads(conn)).get(dag) if dag else None
    if dag is not None:
        shown["dag"] = {"airflow": dag[0], "id": dag[1], "read_at": None, "error": ""}
        shown["dag"] |= {"read_at": read["read_at"], "error": read["error"]} if read else {}
    shown["explanation"] = await explain(conn, record, instance, read, policy, now)
    return shown


async def explain(
    conn: AsyncConnection,
    record: Record,
    instance: Instance | None,
    read: RowMapping | None,
    policy: Policy,
    now: datetime,
) -> str:
    """Why it is in its state. For a retrain that is overdue also what its route did since the newest good sign."""
    if instance is None:
        return "It is no longer in the policy; the next step of the watch removes it."
    sentence = sentences.standing(record, instance, expectation(instance), now)
    expect = instance.switch.expect
    route = policy.route(expect.retrain) if isinstance(expect, Retrain) else None
    if route is None or record.state not in (State.GRACE, State.DOWN):
        return sentence
    since = max(record.facts.last_at or record.facts.counts_from, now - _FARTHEST)
    history = await why(conn, policy, route, instance.labels, since, now)
    parts = [sentence, history["summary"]]
    if read is not None and read["error"]:
        parts.append(f"Runs that were started in Airflow itself cannot be seen: {read['error']}.")
    return " ".join(parts)


def _shown(record: Record, instance: Instance | None) -> dict[str, Any]:
    facts = record.facts
    shown: dict[str, Any] = {
        "name": record.name,
        "kind": instance.switch.kind if instance else "gone",
        "group": record.labels,
        "state": record.state,
        "since": record.since,
        "counts_from": facts.counts_from,
        "last_at": facts.last_at,
        "last_event": record.last_event,
        "due_at": None,
        "down_at": None,
        "paused_until": record.paused_until,
        "note": record.note,
    }
    if instance is None:
        return shown | {"expects": "", "every": "", "timezone": "UTC", "grace": "", "receivers": []}
    switch = instance.switch
    if record.state != State.PAUSED:
        shown["due_at"] = rules.due_at(facts, expectation(instance))
        shown["down_at"] = rules.down_at(facts, expectation(instance))
    every = switch.every.expression if isinstance(switch.every, Cron) else format_duration(switch.every)
    return shown | {
        "expects": sentences.expected_event(instance),
        "every": every,
        "timezone": switch.timezone,
        "grace": format_duration(switch.grace),
        "receivers": list(switch.receivers),
    }


def _flip(row: RowMapping) -> dict[str, Any]:
    return {key: row[key] for key in ("at", "before", "after", "detail")}


def _ping(row: RowMapping) -> dict[str, Any]:
    shown = {key: row[key] for key in ("at", "kind", "run", "code")}
    return shown | {"body": bytes(row["body"]).decode("utf-8", "replace")}
