"""Why, and why not: the decisions on an alert or a trigger, and what would be decided at this moment."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide import facts, rules
from app.decide.placing import no_route
from app.decide.rules import mute_of
from app.decide.state import SHADOW, Action, Decision, Episode, Group, Reason, group_key
from app.explain import history, sentences
from app.groups import live, pauses, store
from app.policy.language.durations import format_duration
from app.policy.own_alarms import is_own_alarm
from app.policy.schema import Policy, Route

Row = dict[str, Any]

#: Codes of attempts that say nothing about the Airflow as a whole.
_ITS_OWN = ("dag_paused", "no_airflow")


async def explain(conn: AsyncConnection, subject: str, policy: Policy, now: datetime) -> Row | None:
    """Everything known about an alert (by its id, alert_id or fingerprint) or a trigger (by its id). None: there is no such
    alert or trigger."""
    ident = _uuid(subject)
    if ident is not None:
        trigger = await history.get_trigger(conn, ident)
        if trigger is not None:
            return await _of_trigger(conn, trigger, policy, now)
    alert = await history.get_alert(conn, ident) if ident is not None else None
    if alert is None:  # Senders choose alert_ids and fingerprints, so these may look like our ids.
        found = await history.find_alert(conn, subject)
        alert = await history.get_alert(conn, found) if found is not None else None
    return await _of_alert(conn, alert, policy, now) if alert else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def _of_alert(conn: AsyncConnection, alert: Row, policy: Policy, now: datetime) -> Row:
    route = policy.route(alert["route"]) if alert["route"] else None
    group = await _group(conn, route, alert["group"]) if route else None
    answer = {"subject": "alert", "alert": alert, "decisions": alert["decisions"], "group": None}
    p = tables.promotions
    against = await _of_probations(conn, p.c.probation_alert == alert["id"])
    if route is None or group is None:
        named = f"its route {alert['route']!r} left the policy" if alert["route"] else no_route(alert["labels"])
        hint = "A route whose matchers its labels satisfy: add one to the policy, and `check` the file first."
        if is_own_alarm(alert["labels"]):
            hint = "Nothing: an alarm of the gateway itself is for people and starts no DAG run."
        decision = Decision(Action.IGNORE, Reason.NO_ROUTE, detail=named)
        summary = f"{sentences.of_alert(alert, None)} At this moment {named}.{against}"
        return answer | {"now": shown_decision(decision), "summary": summary, "would_fire": hint}
    episode = await load_episode(conn, alert["id"])
    decision = at_this_moment(group, episode, route, now, await obstacles_of(conn, policy, route, now))
    answer["group"] = live.group_state(group, route, now)
    trigger = await history.get_trigger(conn, alert["trigger_id"]) if alert["trigger_id"] else None
    return answer | {
        "now": shown_decision(decision),
        "summary": sentences.of_alert(alert, trigger) + against,
        "would_fire": sentences.would_fire(decision, group, episode, route),
        "next_step": sentences.next_step(trigger, answer["group"]) if trigger else None,
        "trigger": trigger,
    }


async def obstacles_of(conn: AsyncConnection, policy: Policy, route: Route, now: datetime) -> rules.Obstacles:
    """What may keep a route from firing: its fires and its mute. It takes no lock, because it only informs people."""
    return rules.Obstacles(await store.fires(conn, route, now), mute_of(policy, route, await pauses.read(conn), now))


def at_this_moment(group: Group, episode: Episode, route: Route, now: datetime, obstacles: rules.Obstacles) -> Decision:
    """What the rules decide on an alert at this moment, without a new notification."""
    if not episode.firing:
        return Decision(Action.IGNORE, Reason.RESOLVED, detail="it is resolved")
    if facts.is_stale(episode, route, now):
        detail = f"no notification for more than {format_duration(route.stale_after)}: it no longer counts as firing"
        return Decision(Action.IGNORE, Reason.RESOLVED, detail=detail)
    decision = rules.decide(group, episode, route, now, obstacles)
    would_fire = decision.action is Action.FIRE and route.mode == SHADOW
    return rules.shadowed(decision) if would_fire else decision


async def _of_trigger(conn: AsyncConnection, trigger: Row, policy: Policy, now: datetime) -> Row:
    d = tables.decisions
    statement = select(d).where(d.c.trigger_id == trigger["id"]).order_by(d.c.id).limit(history.SHOWN)
    decisions = [dict(row) for row in (await conn.execute(statement)).mappings()]
    route = policy.route(trigger["route"])
    group = await _group(conn, route, trigger["group"]) if route and route.mode == trigger["mode"] else None
    shown = live.group_state(group, route, now) if group and route else None
    summary = sentences.of_trigger(trigger)
    if trigger["state"] == "pending":
        summary += await _waiting(conn, trigger, policy)
    p = tables.promotions
    summary += await _of_probations(conn, and_(p.c.trigger_id == trigger["id"], p.c.probation.is_not(None)))
    return {
        "subject": "trigger",
        "trigger": trigger,
        "decisions": decisions,
        "group": shown,
        "summary": summary,
        "next_step": sentences.next_step(trigger, shown),
    }


async def _of_probations(conn: AsyncConnection, which: ColumnElement[bool]) -> str:
    """What became of promotions that an alert spoke against, or that a trigger led to."""
    p = tables.promotions
    wanted = (
        select(p.c.model, p.c.version, p.c.mark, p.c.probation).where(which).order_by(p.c.ended_at).limit(history.SHOWN)
    )
    return "".join(f" {sentences.of_probation(dict(row))}" for row in (await conn.execute(wanted)).mappings())


async def _waiting(conn: AsyncConnection, trigger: Row, policy: Policy) -> str:
    """Why a pending trigger is not in Airflow yet, when its own attempts do not say so."""
    airflow = policy.airflow_named(trigger["airflow"])
    if airflow is None or trigger["attempts"]:
        return ""
    o, a = tables.outbox, tables.attempts
    target = f"airflow:{airflow.name}"
    taken = select(func.count()).where(o.c.target == target, o.c.slot)
    slots = (await conn.execute(taken)).scalar_one()
    if airflow.max_parallel is not None and slots >= airflow.max_parallel:
        return f" It waits for one of the {slots} open DAG runs to end (max_parallel: {airflow.max_parallel})."
    # While Airflow does not answer, the relay tries one item at a time. Its error holds up the other items too.
    unanswered = (
        select(a.c.detail)
        .join(o, o.c.id == a.c.item)
        .where(o.c.target == target, o.c.state == "pending", o.c.answered_at.is_(None), a.c.code.not_in(_ITS_OWN))
        .order_by(a.c.last_at.desc())
        .limit(1)
    )
    detail = (await conn.execute(unanswered)).scalar_one_or_none()
    return f" It waits for Airflow, because another trigger could not be delivered: {detail}." if detail else ""


async def _group(conn: AsyncConnection, route: Route, labels: Mapping[str, str]) -> Group:
    """The group in the mode that its route has now; an empty one when the table has no row for it."""
    key = group_key(route.name, route.mode, labels)
    row = (await conn.execute(select(tables.groups).where(tables.groups.c.key == key))).mappings().one_or_none()
    return Group(**row) if row else Group(key, route.name, route.mode, dict(labels))


async def load_episode(conn: AsyncConnection, alert: UUID) -> Episode:
    """The episode, as the rules take it."""
    a, d = tables.alerts, tables.decisions
    columns = (d.c.action, d.c.trigger_id.label("decided_trigger"))
    statement = select(a, *columns).join(d, d.c.id == a.c.decision_id).where(a.c.id == alert)
    return Episode(**(await conn.execute(statement)).mappings().one())


def shown_decision(decision: Decision) -> Row:
    """A decision as the API shows it."""
    return {
        "action": decision.action,
        "reason": decision.reason,
        "until": decision.until,
        "trigger_id": decision.trigger_id,
        "detail": decision.detail,
    }
