"""Switches in SQL: their facts and flips, the reads of their DAGs, and until when the watch was kept."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.deadman.rules import Facts, State
from app.kit.metrics import Metrics
from app.kit.prune import Prune, by_id
from app.policy.deadman import Instance
from app.tables import judged_since

_switches, _flips, _pings = tables.switches, tables.flips, tables.pings

#: The state of a switch that a person forgot. It is hidden until its value is seen again.
FORGOTTEN: Final = "forgotten"
#: How many pings of a switch are kept.
MOST_PINGS: Final = 100


@dataclass(slots=True)
class Record:
    """A switch as its row holds it. `state` is the state after the newest flip; the facts may be newer."""

    name: str
    entry: str
    labels: dict[str, str]
    state: str
    since: datetime
    facts: Facts
    last_event: str = ""
    paused_until: datetime | None = None
    note: str = ""
    flipped: list[str] = field(default_factory=list)  # the states it changed to in this transaction; in no column


def record_of(row: RowMapping) -> Record:
    """The switch of a row."""
    facts = Facts(
        counts_from=row["counts_from"],
        last_at=row["last_at"],
        failed_at=row["failed_at"],
        starts={run: datetime.fromisoformat(at) for run, at in row["starts"].items()},
        allowance=timedelta(seconds=row["allowance"]),
        paused=row["state"] == State.PAUSED,
    )
    own = ("name", "entry", "labels", "state", "since", "last_event", "paused_until", "note")
    return Record(**{key: row[key] for key in own}, facts=facts)


def _row_of(record: Record) -> dict[str, Any]:
    facts = record.facts
    return {
        "name": record.name,
        "entry": record.entry,
        "labels": record.labels,
        "state": str(record.state),
        "since": record.since,
        "counts_from": facts.counts_from,
        "last_at": facts.last_at,
        "last_event": record.last_event,
        "failed_at": facts.failed_at,
        "starts": {run: at.isoformat() for run, at in facts.starts.items()},
        "allowance": facts.allowance.total_seconds(),
        "paused_until": record.paused_until,
        "note": record.note,
    }


# -- switches -----------------------------------------------------------------------------------------------------------


def new_record(instance: Instance, now: datetime) -> Record:
    """A new switch: the policy named it now, or an alert brought its value now."""
    return Record(instance.name, instance.switch.name, instance.labels, State.NEW, now, Facts(now))


async def create(conn: AsyncConnection, instance: Instance, now: datetime, *names: str) -> Record | None:
    """Write the row of a switch under the first of `names` that is free. None: it has a row, or no name is free."""
    row = _row_of(new_record(instance, now))
    for name in names:
        made = insert(_switches).values(row | {"name": name}).on_conflict_do_nothing().returning(_switches)
        found = (await conn.execute(made)).mappings().one_or_none()
        if found is not None:
            return record_of(found)
    return None


async def read(conn: AsyncConnection) -> list[Record]:
    """Every switch, by name, with the forgotten ones."""
    return [record_of(row) for row in (await conn.execute(select(_switches).order_by(_switches.c.name))).mappings()]


async def lock(conn: AsyncConnection, names: Iterable[str]) -> list[Record]:
    """These switches, by name, locked in that order."""
    statement = select(_switches).where(_switches.c.name.in_(list(names))).order_by(_switches.c.name)
    return [record_of(row) for row in (await conn.execute(statement.with_for_update())).mappings()]


async def lock_one(conn: AsyncConnection, name: str) -> Record | None:
    """One switch, locked."""
    found = await lock(conn, [name])
    return found[0] if found else None


async def page(conn: AsyncConnection, *, after: str, state: str | None, most: int) -> list[Record]:
    """Switches by name, without the forgotten ones."""
    statement = select(_switches).where(_switches.c.name > after, _switches.c.state != FORGOTTEN)
    if state is not None:
        statement = statement.where(_switches.c.state == state)
    rows = (await conn.execute(statement.order_by(_switches.c.name).limit(most))).mappings()
    return [record_of(row) for row in rows]


async def named(conn: AsyncConnection, names: Iterable[str]) -> list[Record]:
    """The switches of these names, without the forgotten ones."""
    wanted = select(_switches).where(_switches.c.name.in_(list(names)), _switches.c.state != FORGOTTEN)
    return [record_of(row) for row in (await conn.execute(wanted)).mappings()]


async def down(conn: AsyncConnection) -> list[Record]:
    """The switches that are down."""
    rows = (await conn.execute(select(_switches).where(_switches.c.state == State.DOWN))).mappings()
    return [record_of(row) for row in rows]


async def count_down(conn: AsyncConnection, entry: str) -> int:
    """How many switches of an entry are down."""
    of_entry = (_switches.c.entry == entry, _switches.c.state == State.DOWN)
    return int((await conn.execute(select(func.count()).where(*of_entry))).scalar_one())


async def find(conn: AsyncConnection, name: str) -> Record | None:
    """One switch."""
    row = (await conn.execute(select(_switches).where(_switches.c.name == name))).mappings().one_or_none()
    return record_of(row) if row else None


async def save(conn: AsyncConnection, record: Record) -> None:
    """Write a locked switch."""
    values = {key: value for key, value in _row_of(record).items() if key not in ("name", "entry")}
    await conn.execute(update(_switches).where(_switches.c.name == record.name).values(**values))


async def remove(conn: AsyncConnection, name: str) -> None:
    """Delete a switch and its pings. Its flips stay."""
    await conn.execute(delete(_switches).where(_switches.c.name == name))
    await conn.execute(delete(_pings).where(_pings.c.switch == name))


# One statement, after all other locks of a batch of alerts, with its rows in the order of their names: no deadlock. A name
# that another switch of the policy has is no longer free. The row of an entry that is gone is removed by the watch.
_HEARTBEATS = text("""
    WITH heard AS (
        SELECT v.*, s.entry AS taken_by,
            EXISTS (SELECT FROM switches k WHERE (k.entry, k.labels) = (v.entry, v.labels)) AS known
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS v(name text, apart text, entry text, labels jsonb, most int)
        LEFT JOIN switches s ON s.name = v.name AND (s.entry, s.labels) <> (v.entry, v.labels)
    ), beats AS (
        SELECT *, row_number() OVER (PARTITION BY name ORDER BY entry, labels) > 1 AS twin,
            row_number() OVER (PARTITION BY entry, known ORDER BY labels) AS nth
        FROM heard
    )
    INSERT INTO switches (name, entry, labels, state, since, counts_from, last_at, last_event, starts, allowance, note)
    SELECT CASE WHEN twin OR taken_by IS NOT NULL THEN apart ELSE name END, entry, labels, 'new', :now, :now, :now, 'alert',
        '{}', 0, ''
    FROM beats b WHERE known OR (
        (taken_by IS NULL OR taken_by = ANY(CAST(:entries AS text[])))
        AND nth + (SELECT count(*) FROM switches s WHERE s.entry = b.entry AND s.state <> 'forgotten') <= most
    )
    ORDER BY name, entry, labels
    ON CONFLICT (entry, labels) DO UPDATE SET last_at = greatest(switches.last_at, excluded.last_at), last_event = 'alert',
        failed_at = NULL, allowance = 0,
        counts_from = CASE WHEN switches.state = 'forgotten' THEN excluded.counts_from ELSE switches.counts_from END,
        since = CASE WHEN switches.state = 'forgotten' THEN excluded.since ELSE switches.since END,
        state = CASE WHEN switches.state = 'forgotten' THEN 'new' ELSE switches.state END
""")


async def record_heartbeats(
    conn: AsyncConnection, switches: Iterable[Instance], entries: Iterable[str], now: datetime
) -> None:
    """Record an alert that is a heartbeat of these switches. New label values make new switches, until an entry has its
    most. `entries`: the names of every entry of the policy."""
    rows = [
        {"name": s.name, "apart": s.apart, "entry": s.switch.name, "labels": s.labels, "most": s.switch.most}
        for s in switches
    ]
    await conn.execute(_HEARTBEATS, {"rows": json.dumps(rows), "entries": list(entries), "now": now})


# -- what happened ------------------------------------------------------------------------------------------------------


async def add_flip(conn: AsyncConnection, ident: UUID, record: Record, after: str, detail: str, now: datetime) -> None:
    """Record a change of state."""
    row = {"id": ident, "switch": record.name, "at": now, "before": str(record.state), "after": after, "detail": detail}
    await conn.execute(_flips.insert(), row)


async def flips(conn: AsyncConnection, name: str, most: int) -> Sequence[RowMapping]:
    """The newest flips, the newest first."""
    statement = select(_flips).where(_flips.c.switch == name).order_by(_flips.c.id.desc()).limit(most)
    return (await conn.execute(statement)).mappings().all()


# Ids sort by the time at which they were made, so the old flips come first.
_FLIPS_PAGE = text("SELECT id, at FROM flips WHERE id > :id ORDER BY id LIMIT :most")
_FLIPS_LOCK = text(f"""
    SELECT id FROM flips WHERE id = ANY(CAST(:ids AS uuid[])) AND at < :before
        AND NOT EXISTS ({judged_since("flips.at")}) FOR UPDATE SKIP LOCKED
""")
PRUNE: Final = Prune("flips", _FLIPS_PAGE, _FLIPS_LOCK, (by_id("flips"),))


_PRUNE_PINGS = text("""
    DELETE FROM pings WHERE switch = :switch AND id <= (
        SELECT id FROM pings WHERE switch = :switch ORDER BY id DESC OFFSET :most LIMIT 1
    )
""")


async def add_ping(conn: AsyncConnection, row: dict[str, Any]) -> None:
    """Record a ping, and delete all but the newest hundred of its switch."""
    await conn.execute(_pings.insert(), row)
    await conn.execute(_PRUNE_PINGS, {"switch": row["switch"], "most": MOST_PINGS})


async def pings(conn: AsyncConnection, name: str, most: int) -> Sequence[RowMapping]:
    """The newest pings, the newest first."""
    statement = select(_pings).where(_pings.c.switch == name).order_by(_pings.c.id.desc()).limit(most)
    return (await conn.execute(statement)).mappings().all()


_SEEN = text("""
    SELECT labels, greatest(fired_at, held_since) AS at FROM groups
    WHERE route = :route AND mode = 'live' ORDER BY at DESC NULLS LAST LIMIT :most
""")


async def groups_seen(conn: AsyncConnection, route: str, most: int) -> Sequence[RowMapping]:
    """The groups of a route, each with the time of its last trigger or hold, the newest first."""
    return (await conn.execute(_SEEN, {"route": route, "most": most})).mappings().all()


# -- reading DAGs -------------------------------------------------------------------------------------------------------

# The next read is booked before this one is made: when this process dies, another one reads later.
_CLAIM = text("""
    INSERT INTO dag_reads (airflow, dag_id, newest, next_at, error)
    SELECT v.airflow, v.dag_id, :now, :next, '' FROM unnest(CAST(:airflows AS text[]), CAST(:dags AS text[]))
    AS v(airflow, dag_id) ORDER BY 1, 2
    ON CONFLICT (airflow, dag_id) DO UPDATE SET next_at = excluded.next_at WHERE dag_reads.next_at <= :now
    RETURNING airflow, dag_id, newest
""")


async def claim_dags(
    conn: AsyncConnection, dags: Sequence[tuple[str, str]], now: datetime, next_at: datetime
) -> dict[tuple[str, str], datetime]:
    """The DAGs among these, as (Airflow, DAG), that must be read now, each with the end of the newest run that is known."""
    parameters = {"airflows": [a for a, _ in dags], "dags": [d for _, d in dags], "now": now, "next": next_at}
    return {(row.airflow, row.dag_id): row.newest for row in await conn.execute(_CLAIM, parameters)}


async def book_read(
    conn: AsyncConnection, dag: tuple[str, str], *, newest: datetime | None, read_at: datetime | None, error: str
) -> None:
    """Record a read. Without `read_at` Airflow gave no answer, and only `error` is written."""
    d = tables.dag_reads
    values: dict[str, Any] = {"error": error[:1000]}
    if read_at is not None:
        values |= {"read_at": read_at, "newest": newest}
    await conn.execute(update(d).where(d.c.airflow == dag[0], d.c.dag_id == dag[1]).values(**values))


async def dag_reads(conn: AsyncConnection) -> dict[tuple[str, str], RowMapping]:
    """The last read of each DAG, by (Airflow, DAG)."""
    rows = (await conn.execute(select(tables.dag_reads))).mappings()
    return {(row["airflow"], row["dag_id"]): row for row in rows}


# -- the watch ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watched:
    """Until when a replica watched, and when our newest outage ended."""

    until: datetime
    gap_until: datetime | None


_TAKE = text("SELECT watched_until, gap_until FROM watch WHERE id = 1 FOR UPDATE SKIP LOCKED")
_BEGIN = text("INSERT INTO watch (id, watched_until) VALUES (1, :now) ON CONFLICT (id) DO NOTHING RETURNING id")


async def take_watch(conn: AsyncConnection, now: datetime) -> Watched | None:
    """Take the watch for this transaction; None: another replica has it."""
    row = (await conn.execute(_TAKE)).one_or_none()
    if row is not None:
        return Watched(row.watched_until, row.gap_until)
    begun = (await conn.execute(_BEGIN, {"now": now})).one_or_none()
    return Watched(now, None) if begun else None


async def read_watch(conn: AsyncConnection) -> Watched | None:
    """Until when a replica watched; None: none ever did."""
    row = (await conn.execute(select(tables.watch).where(tables.watch.c.id == 1))).one_or_none()
    return Watched(row.watched_until, row.gap_until) if row else None


async def keep_watch(conn: AsyncConnection, watched: Watched) -> None:
    """Write until when this replica watched. The end of the transaction frees the watch."""
    row = update(tables.watch).where(tables.watch.c.id == 1)
    await conn.execute(row.values(watched_until=watched.until, gap_until=watched.gap_until))


# -- gauges -------------------------------------------------------------------------------------------------------------


async def set_gauges(conn: AsyncConnection, _now: datetime, metrics: Metrics) -> None:
    """Set the gauges: which switches are down, how many are in each state, and until when they were watched."""
    records = [record for record in await read(conn) if record.state != FORGOTTEN]
    watched = await read_watch(conn)
    metrics.deadman_down.clear()
    metrics.deadman_switches.clear()
    for record in records:
        metrics.deadman_down.labels(record.name).set(record.state == State.DOWN)
    for state, number in Counter(record.state for record in records).items():
        metrics.deadman_switches.labels(state).set(number)
    if watched is not None:
        metrics.watched_until.set(watched.until.timestamp())
