"""Effects as the API shows them: a page of triggers, and the sums of each group and each model. Reads only."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, Uuid, column, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deliver.ending import run_time
from app.effects.rules import Effect, Why
from app.effects.sums import Sums, total
from app.kit.db import as_json
from app.kit.pages import MOST_BYTES, Found, read_page

Row = dict[str, Any]

#: The most groups that an answer sums up, those with the newest retrain first, and the bytes of their labels. The sums show
#: a label up to five times: of the group, in the name of its model, and in sentences.
MOST_GROUPS: Final = 1000
_MOST_LABELS: Final = MOST_BYTES // 5

# A trigger that is open waits, also one that was redriven. One that ended before effects were judged has no row.
EFFECT = "CASE WHEN t.ended_at IS NULL THEN NULL WHEN e.trigger_id IS NULL THEN 'unknown' ELSE e.effect END"
# A retrain that registered nothing counts for the only model that its group registered, as in the sums.
_FIRED = """
    FROM triggers t LEFT JOIN effects e ON e.trigger_id = t.id LEFT JOIN (
        SELECT s.route, s.group_key, min(o.model) AS model FROM effects o JOIN triggers s ON s.id = o.trigger_id
        WHERE CAST(:model AS text) IS NOT NULL AND o.model IS NOT NULL GROUP BY 1, 2 HAVING count(DISTINCT o.model) = 1
    ) of ON of.route = t.route AND of.group_key = t.group_key
    WHERE t.fired_at IS NOT NULL AND t.mode = 'live' AND (CAST(:route AS text) IS NULL OR t.route = :route)
      AND t.group_labels @> CAST(:labels AS jsonb)
      AND (CAST(:model AS text) IS NULL OR coalesce(e.model, of.model, t.group_labels ->> 'model') = :model)
      AND (CAST(:since AS timestamptz) IS NULL OR t.fired_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR t.fired_at < :until)
"""
_PLAIN: Final = (
    "route", "fired_for", "state", "outcome", "fired_at", "started_at", "accepted_at", "ended_at", "effect", "reason",
    "detail", "until", "at", "counts_from", "model", "version",
)  # fmt: skip
_PAGE = (
    text(f"""
    SELECT t.id, t.route, t.group_labels, t.reason AS fired_for, t.state, t.outcome, t.fired_at, t.started_at, t.accepted_at,
        t.ended_at, {EFFECT} AS effect, e.reason, e.detail, e.until, e.at, e.counts_from, e.model, e.version, e.promotion,
        coalesce(e.former, '[]') AS former, (
            SELECT p.probation FROM promotions p WHERE p.trigger_id = t.id AND p.probation IS NOT NULL
            ORDER BY p.ended_at DESC LIMIT 1
        ) AS probation {_FIRED}
      AND (CAST(:effect AS text) IS NULL OR coalesce({EFFECT}, 'waiting') = :effect)
      AND (CAST(:cursor AS uuid) IS NULL OR t.id < :cursor)
""")
    .columns(
        *(column(name) for name in _PLAIN),
        column("id", Uuid()),
        column("promotion", Uuid()),
        column("group_labels", JSONB()),
        column("former", JSONB()),
        column("probation", JSONB()),
    )
    .subquery("found")
)
_SUMS = text(f"""
    WITH back AS (
        SELECT DISTINCT trigger_id FROM promotions WHERE trigger_id IS NOT NULL AND probation ->> 'state' = 'rolled_back'
    ), fired AS (
        SELECT t.id, t.route, t.group_key, t.group_labels, {EFFECT} AS effect, e.model, t.fired_at,
            extract(epoch FROM greatest(t.ended_at - coalesce(t.started_at, t.accepted_at), '0 s')) AS seconds {_FIRED}
    ), sized AS (
        SELECT route, group_key, max(fired_at) AS at, max(octet_length(CAST(group_labels AS text))) AS size
        FROM fired GROUP BY 1, 2
    ), newest AS (
        SELECT route, group_key FROM (
            SELECT *, sum(size) OVER (ORDER BY at DESC, route, group_key) - size AS before FROM sized
        ) AS ordered WHERE before < :bytes ORDER BY at DESC, route, group_key LIMIT :groups
    )
    SELECT (SELECT count(*) FROM sized) AS found, route, group_labels, effect, fired.model, count(*) AS triggers,
        count(back.trigger_id) AS rolled_back,
        max(fired_at) AS newest, coalesce(sum(seconds), 0) AS seconds
    FROM fired JOIN newest USING (route, group_key) LEFT JOIN back ON back.trigger_id = fired.id
    GROUP BY 2, 3, 4, 5 ORDER BY 2, 3
""").columns(route=Text(), group_labels=JSONB())

#: As the effect of a filter: those that are not known yet.
WAITING: Final = "waiting"


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a list of effects. `since` and `until` are times of the fire."""

    route: str | None = None
    model: str | None = None
    effect: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    cursor: UUID | None = None


async def page(conn: AsyncConnection, query: Query) -> tuple[list[Row], str | None]:
    """Fired triggers with their effects, the newest first, and the next page's cursor."""
    wanted = select(_PAGE).order_by(_PAGE.c.id.desc())
    wanted = wanted.params(_filters(query) | {"effect": query.effect, "cursor": query.cursor})
    rows, more = await read_page(conn, wanted, query.limit, "id")
    return [_shown(row) for row in rows], str(rows[-1]["id"]) if more else None


async def sums(conn: AsyncConnection, query: Query) -> tuple[list[Row], list[Row], int]:
    """The sums of each group and of each model, over every trigger that the filters take, whatever its effect. Last comes
    how many groups are in no sum, because too many others fired after them."""
    found = 0
    groups: dict[tuple[str, str], Sums] = {}
    shown: dict[tuple[str, str], Row] = {}
    models: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in (await conn.execute(_SUMS, _filters(query) | {"groups": MOST_GROUPS, "bytes": _MOST_LABELS})).mappings():
        key, found = (row["route"], as_json(row["group_labels"])), row["found"]
        if row["model"]:
            models[key].add(row["model"])
        group = groups.setdefault(key, Sums(""))
        effect = Effect(row["effect"]) if row["effect"] else None
        group.add(effect, row["triggers"], float(row["seconds"]), row["newest"])
        group.rolled_back += row["rolled_back"]
        shown[key] = {"route": row["route"], "group": row["group_labels"]}
    newest = sorted(groups, key=lambda key: str(groups[key].newest), reverse=True)
    by_model: defaultdict[str, list[Sums]] = defaultdict(list)
    for key in newest:
        groups[key].name = query.model or name_of(models[key], **shown[key])
        shown[key] |= {"model": groups[key].name}
        by_model[groups[key].name].append(groups[key])
    totals = [{"model": name} | total(parts, name).shown() for name, parts in by_model.items()]
    return [shown[key] | groups[key].shown() for key in newest], totals, found - len(groups)


def name_of(models: set[str], route: str, group: Mapping[str, str]) -> str:
    """What people call the model of a group: the model that its runs registered, else its label `model`, else its route and
    labels."""
    if len(models) == 1:
        return next(iter(models))
    if group.get("model"):
        return group["model"]
    return " ".join([route, *(f"{name}={value}" for name, value in group.items())])


def _filters(query: Query) -> Row:
    return {
        "route": query.route,
        "model": query.model,
        "labels": as_json(dict(query.labels)),
        "since": query.since,
        "until": query.until,
    }


def _shown(row: Found) -> Row:
    names = ("route", "fired_for", "state", "outcome", "fired_at", "ended_at", "effect", "until", "counts_from")
    shown = {name: row[name] for name in names} | {"trigger_id": row["id"], "group": row["group_labels"]}
    shown |= {name: row[name] for name in ("model", "version", "promotion", "former", "probation")}
    reason, detail = row["reason"], row["detail"]
    if row["ended_at"] is None:
        reason, detail = Why.RUNNING, "its DAG run has not ended"
    elif reason is None:
        reason, detail = Why.NOT_JUDGED, "it ended before the gateway judged effects"
    hours = round(run_time(row).total_seconds() / 3600, 4)
    return shown | {"reason": reason, "detail": detail, "judged_at": row["at"], "run_hours": hours}
