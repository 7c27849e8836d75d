"""The facts of triggers that ended, and their effects, in SQL. Every statement runs in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.drift import Firing
from app.effects.rules import Asked, Deaf, Judgement, Why
from app.groups.wakes import GAP
from app.kit.db import names_of, rows_of
from app.kit.prune import EPOCH, Prune, by_id
from app.kit.times import at
from app.lineage.store import SURVEY
from app.tables import judged_since

#: How often a judgement that waits looks for new facts.
LOOK: Final = timedelta(minutes=5)

# -- what must be judged ------------------------------------------------------------------------------------------------

# The time of the next look is written first: when this process dies, another one looks later.
_CLAIM = text("""
    UPDATE effects SET next_at = :later WHERE trigger_id IN (
        SELECT trigger_id FROM effects WHERE next_at <= :now ORDER BY next_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING trigger_id
""")

# A later fact: MLflow shows a version of a run that seemed to have none, or a promotion came after the judgement.
_MOVE = text("""
    UPDATE effects SET next_at = :now WHERE trigger_id IN (
        SELECT e.trigger_id FROM effects e
        JOIN runs r ON r.trigger_id = e.trigger_id AND NOT r.deleted JOIN versions v ON v.run_id = r.run_id
        WHERE e.next_at IS NULL AND e.effect IN ('no_model', 'not_promoted', 'unknown') AND (
            e.effect = 'no_model' OR (e.effect = 'unknown' AND e.reason = 'unheard' AND e.counts_from IS NULL)
            OR (e.effect = 'not_promoted' AND EXISTS (
                SELECT FROM promotions p WHERE p.registry = 'mlflow' AND p.model = v.model AND p.version = v.version
                AND p.kind = 'promote' AND p.state = 'promoted' AND p.ended_at >= e.at
            ))
        )
    )
""")


async def claim(conn: AsyncConnection, now: datetime, most: int) -> list[UUID]:
    """The triggers that must be judged now, each for LOOK. Those come first that have been due longest."""
    parameters = {"now": now, "later": now + LOOK, "most": most}
    return list((await conn.execute(_CLAIM, parameters)).scalars())


async def move(conn: AsyncConnection, now: datetime) -> None:
    """Let the triggers be judged again whose effect a later fact may change."""
    await conn.execute(_MOVE, {"now": now})


# -- the facts ----------------------------------------------------------------------------------------------------------

_TRIGGERS = rows_of(
    f"SELECT {names_of(tables.triggers)} FROM triggers WHERE id = ANY(CAST(:ids AS uuid[]))", tables.triggers
)

# The alerts behind a trigger, and the others of its group that had not ended when it fired, or began later. An alert that
# was over when it arrived, and was behind no trigger, never fired here.
_ALERTS = text("""
    SELECT t.id AS of, a.id, a.severity, a.alert_id, a.first_seen_at, a.last_seen_at, a.closed_at, a.resolved_at, f.behind
    FROM triggers t CROSS JOIN LATERAL (
        SELECT id, bool_or(behind) AS behind FROM (
            SELECT alert AS id, true AS behind FROM decisions
                WHERE trigger_id = t.id AND alert IS NOT NULL AND action IN ('fire', 'hold')
            UNION ALL SELECT id, false FROM alerts
                WHERE group_key = t.group_key AND (closed_at IS NULL OR closed_at >= t.fired_at)
        ) AS named GROUP BY id
    ) f JOIN alerts a ON a.id = f.id
    WHERE t.id = ANY(CAST(:ids AS uuid[])) AND (a.trigger_id IS NOT NULL OR a.closed_at IS DISTINCT FROM a.first_seen_at)
""").columns(of=Uuid(), id=Uuid())

_FIRES = text("""
    SELECT t.id AS of, later.fired_at FROM triggers t JOIN triggers later
        ON later.route = t.route AND later.group_key = t.group_key AND later.fired_at > t.fired_at
    WHERE later.state IN ('submitted', 'running', 'succeeded') AND t.id = ANY(CAST(:ids AS uuid[])) ORDER BY later.fired_at
""").columns(of=Uuid())

_VERSIONS = text("""
    SELECT r.trigger_id AS of, v.model, v.version FROM runs r JOIN versions v ON v.run_id = r.run_id
    WHERE r.trigger_id = ANY(CAST(:ids AS uuid[])) AND NOT r.deleted ORDER BY v.created_at, v.model, v.version
""").columns(of=Uuid())

_PROMOTIONS = text("""
    SELECT r.trigger_id AS of, p.id, p.model, p.version, p.mark, p.state, p.detail, p.ended_at, (
        SELECT min(undone.ended_at) FROM promotions undone WHERE undone.rollback_of = p.id AND undone.state = 'rolled_back'
            AND undone.model = p.model
    ) AS rolled_back_at
    FROM runs r JOIN versions v ON v.run_id = r.run_id
    JOIN promotions p ON p.registry = 'mlflow' AND p.model = v.model AND p.version = v.version
    WHERE r.trigger_id = ANY(CAST(:ids AS uuid[])) AND NOT r.deleted AND p.kind = 'promote' AND NOT p.dry_run
    ORDER BY p.id
""").columns(of=Uuid(), id=Uuid())

_SURVEYED = text("SELECT ended_at FROM surveys WHERE name = :name")

_DOWN = text("""
    SELECT f.switch, f.at, f.after = 'down' AS down, f.id FROM flips f JOIN switches s ON s.name = f.switch
    WHERE s.entry = ANY(CAST(:entries AS text[])) AND f.at <= :now AND 'down' IN (f.before, f.after)
    UNION ALL SELECT name, since, true, NULL FROM switches
    WHERE entry = ANY(CAST(:entries AS text[])) AND state = 'down' AND since <= :now
    ORDER BY 1, 2, 4
""")

_OUTAGES = text("SELECT since, until FROM outages WHERE until >= :since ORDER BY since")


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of one trigger. `behind`: the ids of the alerts that it took; the others are of its group."""

    trigger: RowMapping
    alerts: tuple[Firing, ...]
    behind: frozenset[str]
    fires: tuple[datetime, ...]
    versions: tuple[tuple[str, str], ...]
    promotions: tuple[Asked, ...]


async def known(conn: AsyncConnection, ids: Sequence[UUID]) -> list[Known]:
    """What is known of each of these triggers that there is."""
    asked = {"ids": list(ids)}
    triggers = (await conn.execute(_TRIGGERS, asked)).mappings().all()
    alerts, fires, versions, promotions = [
        _by_trigger((await conn.execute(statement, asked)).mappings().all())
        for statement in (_ALERTS, _FIRES, _VERSIONS, _PROMOTIONS)
    ]
    return [
        Known(
            trigger=row,
            alerts=tuple(firing(a) for a in alerts.get(row["id"], ())),
            behind=frozenset(str(a["id"]) for a in alerts.get(row["id"], ()) if a["behind"]),
            fires=tuple(f["fired_at"] for f in fires.get(row["id"], ())),
            versions=tuple((v["model"], v["version"]) for v in versions.get(row["id"], ())),
            promotions=tuple(_asked(p) for p in promotions.get(row["id"], ())),
        )
        for row in triggers
    ]


def _by_trigger(rows: Sequence[RowMapping]) -> dict[UUID, list[RowMapping]]:
    found: dict[UUID, list[RowMapping]] = {}
    for row in rows:
        found.setdefault(row["of"], []).append(row)
    return found


def firing(row: RowMapping) -> Firing:
    """An alert's row as the rules take it. A repeated "resolved" moves `resolved_at`; `closed_at` keeps the first one."""
    end = row["closed_at"] if row["resolved_at"] is not None else None
    times = (row["first_seen_at"], end, row["last_seen_at"], row["closed_at"])
    return Firing(row["alert_id"], *times, id=str(row["id"]), severity=row["severity"])


def _asked(row: RowMapping) -> Asked:
    names = ("id", "model", "version", "state", "detail", "ended_at", "rolled_back_at")
    return Asked(alias=row["mark"], **{name: row[name] for name in names})


async def surveyed_at(conn: AsyncConnection) -> datetime | None:
    """When the newest whole look at MLflow ended."""
    found: datetime | None = (await conn.execute(_SURVEYED, {"name": SURVEY})).scalar_one_or_none()
    return found


async def deaf_times(conn: AsyncConnection, heartbeats: Sequence[str], since: datetime, now: datetime) -> list[Deaf]:
    """The times since then in which no alert could be heard: no gateway ran, or a heartbeat of a monitor was missing."""
    found = []
    for row in await conn.execute(_OUTAGES, {"since": since}):
        detail = f"no gateway ran from {at(row.since)} to {at(row.until)}"
        found.append(Deaf(Why.UNHEARD, detail, row.since, row.until))
    down: dict[str, datetime] = {}
    for row in await conn.execute(_DOWN, {"entries": list(heartbeats), "now": now}):
        if row.down:
            down.setdefault(row.switch, row.at)
        else:  # It was down before, also when the beginning is so old that it was deleted.
            found.append(_muted(row.switch, down.pop(row.switch, since), row.at))
    return [*found, *(_muted(switch, began, None) for switch, began in down.items())]


def _muted(switch: str, since: datetime, until: datetime | None) -> Deaf:
    return Deaf(Why.MUTED, f"the heartbeat {switch} was missing from {at(since)} on", since, until)


# -- outages of the gateway ---------------------------------------------------------------------------------------------

_ROW: Final = 3  # of the table `watch`: until when the effects were judged
_BEGIN = text(f"INSERT INTO watch (id, watched_until) VALUES ({_ROW}, :now) ON CONFLICT (id) DO NOTHING")
_READ = text(f"SELECT watched_until FROM watch WHERE id = {_ROW} FOR UPDATE SKIP LOCKED")
_KEEP = text(f"UPDATE watch SET watched_until = greatest(watched_until, :now) WHERE id = {_ROW}")
_OUTAGE = text("INSERT INTO outages (since, until) VALUES (:since, :until) ON CONFLICT (since) DO NOTHING")

_OLD = text("SELECT since AS id, until AS at FROM outages WHERE since > :id ORDER BY since LIMIT :most")
_OLD_LOCK = text(f"""
    SELECT since AS id FROM outages WHERE since = ANY(CAST(:ids AS timestamptz[])) AND until < :before
        AND NOT EXISTS ({judged_since("outages.until")}) FOR UPDATE SKIP LOCKED
""")
PRUNE: Final = Prune("outages", _OLD, _OLD_LOCK, (by_id("outages", "since", "timestamptz"),), start={"id": EPOCH})


async def note_outage(conn: AsyncConnection, now: datetime) -> bool:
    """Write until when a gateway ran, and the outage that ends now, if there was one. False: another replica is at it."""
    await conn.execute(_BEGIN, {"now": now})
    until: datetime | None = (await conn.execute(_READ)).scalar_one_or_none()
    if until is None:
        return False
    if now - until > GAP:
        await conn.execute(_OUTAGE, {"since": until, "until": now})
    await conn.execute(_KEEP, {"now": now})
    return True


# -- the effects --------------------------------------------------------------------------------------------------------

# An effect that a later fact replaces stays as a trace, and `at` says until when later facts were looked for. `ended_at`
# says that the trigger was not redriven meanwhile.
_SAME = "(e.effect, e.reason) IS NOT DISTINCT FROM (CAST(:effect AS text), CAST(:reason AS text))"
_WRITE = text(f"""
    UPDATE effects e SET effect = CAST(:effect AS text), reason = CAST(:reason AS text), detail = :detail, until = :until,
        counts_from = :counts_from, model = :model, version = :version, promotion = :promotion, next_at = :next,
        under = :under,
        at = CASE WHEN {_SAME} AND e.effect IS NULL THEN e.at ELSE :now END,
        former = CASE WHEN e.effect IS NULL OR {_SAME} THEN e.former ELSE e.former || jsonb_build_array(
            jsonb_build_object('effect', e.effect, 'reason', e.reason, 'detail', e.detail, 'at', e.at)) END
    FROM (SELECT effect FROM effects WHERE trigger_id = :id FOR UPDATE) old
    WHERE e.trigger_id = :id AND EXISTS (
        SELECT FROM triggers WHERE id = :id AND ended_at IS NOT DISTINCT FROM CAST(:ended_at AS timestamptz)
    ) RETURNING old.effect AS before, e.former
""").columns(before=Text(), former=JSONB())


async def write(
    conn: AsyncConnection,
    trigger: RowMapping,
    judgement: Judgement,
    next_at: datetime | None,
    under: str | None,
    now: datetime,
) -> RowMapping | None:
    """Write a judgement, made under the digest of a route. Returns the effect before it; None: the trigger was
    redriven, or is gone."""
    parameters: dict[str, Any] = {
        "id": trigger["id"],
        "ended_at": trigger["ended_at"],
        "effect": str(judgement.effect) if judgement.effect else None,
        "reason": str(judgement.why),
        "detail": judgement.detail[:1000],
        "until": judgement.until,
        "counts_from": judgement.counts_from,
        "model": judgement.made.model if judgement.made else None,
        "version": judgement.made.version if judgement.made else None,
        "promotion": judgement.promotion,
        "next": next_at,
        "under": under,
        "now": now,
    }
    return (await conn.execute(_WRITE, parameters)).mappings().one_or_none()
