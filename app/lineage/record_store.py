"""Metadata on its way to MLflow, in SQL: the records of each stream in their order, local ids with MLflow's, reports.

An item of the outbox stands for a stream that has pending records. Its row is the lock between the requests that add to the
stream and the relay that empties it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import bindparam, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.columns import storable
from app.kit.outbox.model import new_item
from app.lineage.model import HERE, Place
from mlflow_spool.records import LOCAL_VERSIONS, Call, Kind, Record, local_version, references

KIND, TARGET = "mlflow.records", "mlflow"
_STREAMS = UUID("6f1d1f0a-2f1c-5a37-9f0e-0f5f3a0c5d11")
_records, _names, _outbox = tables.records, tables.local_ids, tables.outbox


def item_of(stream: str, place: Place = HERE) -> UUID:
    """The id of a stream's outbox item. What goes elsewhere, or as somebody else, has an item of its own."""
    return uuid5(_STREAMS, stream if place == HERE else json.dumps([stream, place.login, place.workspace]))


def place_of(item: Mapping[str, Any]) -> Place:
    """The place of an item's payload, or of a row."""
    return Place(item.get("login") or "", item.get("workspace") or "")


def _at(place: Place) -> tuple[Any, Any]:
    return _records.c.login == place.login, _records.c.workspace == place.workspace


async def add(
    conn: AsyncConnection,
    records: Sequence[Record],
    now: datetime,
    report: UUID | None = None,
    caller: str | None = None,
    place: Place = HERE,
) -> int:
    """Keep records in their order, and wake the items of their streams. A record whose key is known stays as it is.
    They came with a report, or a caller handed them over.

    The record of a file only names it: the file stays on its machine. Returns how many records are new.
    """
    if not records:
        return 0
    own = {"report": report, "caller": caller, "login": place.login, "workspace": place.workspace}
    rows = [_row(record, now) | own for record in records]
    statement = insert(_records).values(rows).on_conflict_do_nothing(index_elements=["key"])
    new = (await conn.execute(statement.returning(_records.c.stream, _records.c.state))).all()
    await _wake(conn, {(row.stream, place) for row in new if row.state == "pending"}, now)
    return len(new)


def _row(record: Record, now: datetime) -> dict[str, Any]:
    attempted = record.attempted_at  # Another machine's clock, which may be ahead: no delivery waits for that time.
    return {
        "key": record.key,
        "stream": record.stream,
        "kind": record.kind.value,
        "method": record.call.method,
        "path": record.call.path,
        "body": json.dumps(record.call.body),
        "made_at": record.made_at,
        "attempted_at": attempted if attempted is None else min(attempted, int(now.timestamp() * 1000)),
        "attempts": 0,
        "state": "elsewhere" if record.kind is Kind.ARTIFACT else "pending",
        "at": now,
    }


async def handed_over(conn: AsyncConnection, keys: Sequence[str]) -> frozenset[str]:
    """Those of the keys whose records did not come with a report."""
    found = select(_records.c.key).where(_records.c.key.in_(list(keys)), _records.c.report.is_(None))
    return frozenset((await conn.execute(found)).scalars())


async def made_by_caller(conn: AsyncConnection, records: Iterable[Record], caller: str) -> set[str]:
    """The local ids in the streams of records whose creation this caller handed over earlier."""
    tokens = {record.stream.partition(":")[2] for record in records}
    keys = {token.rpartition("spool-")[2]: token for token in tokens if "spool-" in token}
    found = select(_records.c.key).where(_records.c.key.in_(list(keys)), _records.c.caller == caller)
    return {keys[key] for key in (await conn.execute(found)).scalars()}


async def streams_of(conn: AsyncConnection, streams: Iterable[str]) -> frozenset[str]:
    """Those of the streams that have records here."""
    found = select(_records.c.stream).where(_records.c.stream.in_(list(streams))).distinct()
    return frozenset((await conn.execute(found)).scalars())


async def _wake(conn: AsyncConnection, streams: Iterable[tuple[str, Place]], now: datetime) -> None:
    """Make the items of streams pending. An item that is pending already keeps its turn and its pause."""
    rows = [
        new_item(item_of(stream, place), KIND, TARGET, {"stream": stream} | _shown(place), now)
        for stream, place in sorted(streams, key=lambda each: (each[0], each[1].login, each[1].workspace))
    ]
    if not rows:
        return
    fresh = insert(_outbox).values(rows)
    again = {name: fresh.excluded[name] for name in ("state", "detail", "created_at", "available_at", "attempts")}
    # ON CONFLICT DO UPDATE locks the row before it looks at WHERE, so it also locks a row that is pending already. A relay
    # that settles the row at this moment waits for our commit, and then sees the new records.
    await conn.execute(
        fresh.on_conflict_do_update(index_elements=["id"], set_=again, where=_outbox.c.state != "pending")
    )


def _shown(place: Place) -> dict[str, str]:
    return {name: value for name, value in (("login", place.login), ("workspace", place.workspace)) if value}


async def wake_again(conn: AsyncConnection, item: UUID, stream: str, now: datetime, place: Place = HERE) -> None:
    """Make a delivered item pending again when its stream still has pending records. Call it where the item is settled."""
    waiting = (_records.c.stream == stream, _records.c.state == "pending", *_at(place))
    more = select(_records.c.seq).where(*waiting).exists()
    await conn.execute(
        update(_outbox)
        .where(_outbox.c.id == item, more)
        .values(state="pending", available_at=now, created_at=now, attempts=0)
    )


async def pending(conn: AsyncConnection, stream: str, place: Place, most: int) -> list[Record]:
    """The pending records of a stream, the oldest first, at most `most`."""
    return await _read(conn, _records.c.stream == stream, _records.c.state == "pending", *_at(place), most=most)


async def _read(conn: AsyncConnection, *where: Any, most: int | None = None) -> list[Record]:
    statement = select(_records).where(*where).order_by(_records.c.seq)
    rows = await conn.execute(statement if most is None else statement.limit(most))
    return [record_of(row) for row in rows.mappings()]


def record_of(row: Mapping[Any, Any]) -> Record:
    """A row as a record of the spool's code."""
    call = Call(row["method"], row["path"], json.loads(row["body"]))
    return Record(
        row["key"],
        row["stream"],
        Kind(row["kind"]),
        call,
        row["made_at"],
        row["seq"],
        row["attempted_at"],
        row["attempts"],
    )


async def names_for(conn: AsyncConnection, records: Sequence[Record]) -> dict[str, str]:
    """MLflow's ids for the local ids in records, and the artifact roots of these, as far as they are known."""
    tokens = {token for record in records for token in references(record.call)}
    tokens |= {f"root:{token}" for token in tokens}
    streams = {record.stream for record in records}
    numbers = {f"{token}@{stream}" for token in tokens if token.startswith("version:") for stream in streams}
    found = await names(conn, tokens | numbers)
    if len(streams) == 1:  # A number of the model's own version counts before that of another model.
        found |= {token.partition("@")[0]: found[token] for token in numbers & found.keys()}
    return found


async def names(conn: AsyncConnection, tokens: Iterable[str]) -> dict[str, str]:
    """MLflow's ids by local id, for those that have one."""
    statement = select(_names.c.token, _names.c.name).where(_names.c.token.in_(list(tokens)))
    return {row.token: row.name for row in await conn.execute(statement)}


async def learn(conn: AsyncConnection, learned: Iterable[tuple[str, str]], now: datetime) -> None:
    """Keep MLflow's ids of local ids. An id never changes. A version's local number can come twice: the newest counts."""
    rows = [{"token": token, "name": name, "at": now} for token, name in sorted(dict(learned).items())]
    if rows:
        fresh = insert(_names).values(rows)
        newest = {"name": fresh.excluded.name, "at": fresh.excluded.at}
        await conn.execute(
            fresh.on_conflict_do_update(index_elements=["token"], set_=newest, where=_names.c.token.like("version:%"))
        )


async def attempting(conn: AsyncConnection, record: Record, now: int) -> None:
    """Note, before a request leaves, that its end may stay unknown. now: milliseconds since 1970."""
    await conn.execute(update(_records).where(_records.c.key == record.key).values(attempted_at=now))


async def delivered(conn: AsyncConnection, records: Sequence[Record]) -> None:
    """Note that MLflow has these records."""
    keys = [record.key for record in records]
    statement = update(_records).where(_records.c.key.in_(keys), _records.c.state == "pending")
    await conn.execute(statement.values(state="delivered", problem=None))


async def failed(conn: AsyncConnection, record: Record, problem: str, *, maybe: bool, most: int | None = None) -> int:
    """Note that an attempt failed; returns how many were counted so far.

    maybe: MLflow may have acted all the same. most: MLflow had a problem, so this attempt does not count beyond that number.
    """
    attempts: Any = _records.c.attempts + 1
    if most is not None:
        attempts = func.greatest(_records.c.attempts, func.least(attempts, most))
    values: dict[str, Any] = {"attempts": attempts, "problem": storable(problem)[:1000]}
    if not maybe:
        values["attempted_at"] = None
    statement = update(_records).where(_records.c.key == record.key).values(values).returning(_records.c.attempts)
    return int((await conn.execute(statement)).scalar_one())


_BROKE = text("""
    UPDATE records SET attempts = attempts + 1, problem = :problem,
        state = CASE WHEN attempts + 1 >= :most THEN 'aside' ELSE state END
    WHERE seq = (SELECT min(seq) FROM records
                 WHERE stream = :stream AND state = 'pending' AND login = :login AND workspace = :workspace)
    RETURNING key, stream, kind, state
""")


async def broke(conn: AsyncConnection, stream: str, place: Place, problem: str, most: int) -> Mapping[str, Any] | None:
    """Note that the first pending record of a stream broke the delivery; set it aside when it did so `most` times. Its row
    is not read: that may be what breaks. Returns its key, stream, kind and state; None when no record is pending."""
    values: dict[str, Any] = {"stream": stream, "login": place.login, "workspace": place.workspace}
    values |= {"problem": storable(problem)[:1000], "most": most}
    row = (await conn.execute(_BROKE, values)).mappings().one_or_none()
    return None if row is None else dict(row)


async def note(conn: AsyncConnection, stream: str, place: Place, problem: str) -> None:
    """Note why the first pending record of a stream waits, until a person acts."""
    first = select(func.min(_records.c.seq)).where(
        _records.c.stream == stream, _records.c.state == "pending", *_at(place)
    )
    named = update(_records).where(_records.c.seq == first.scalar_subquery())
    await conn.execute(named.values(problem=storable(problem)[:1000]))


async def missing(conn: AsyncConnection, record: Record, now: datetime | None) -> datetime | None:
    """Note that MLflow does not know an id in a record; returns since when. now: None when MLflow did not answer."""
    since = func.coalesce(_records.c.missing_since, now) if now else None
    statement = update(_records).where(_records.c.key == record.key).values(missing_since=since)
    found: datetime | None = (await conn.execute(statement.returning(_records.c.missing_since))).scalar_one()
    return found


async def set_aside(conn: AsyncConnection, record: Record, problem: str) -> None:
    """Set aside a record that MLflow will never take. The records after it go on."""
    statement = update(_records).where(_records.c.key == record.key)
    await conn.execute(statement.values(state="aside", problem=storable(problem)[:1000]))


_REDRIVE = text("""
    UPDATE records SET state = 'pending', attempts = 0, problem = NULL, missing_since = NULL
    WHERE seq IN (SELECT seq FROM records WHERE state = 'aside' AND (CAST(:stream AS text) IS NULL OR stream = :stream)
                  ORDER BY seq LIMIT :most) AND state = 'aside'
    RETURNING stream, login, workspace
""")


async def redrive(conn: AsyncConnection, stream: str | None, now: datetime, most: int = 10_000) -> int:
    """Make what was set aside pending again, each record in its old place; returns how many. None: of every stream."""
    rows = (await conn.execute(_REDRIVE, {"stream": stream, "most": most})).mappings().all()
    await _wake(conn, {(row["stream"], place_of(dict(row))) for row in rows}, now)
    return len(rows)


async def makers(conn: AsyncConnection, tokens: Iterable[str]) -> dict[str, str]:
    """The state of the record that creates each local id, for the ids whose record is here."""
    wanted = set(tokens)
    keys = {token.rpartition("spool-")[2]: token for token in wanted if "spool-" in token}
    rows = await conn.execute(select(_records.c.key, _records.c.state).where(_records.c.key.in_(list(keys))))
    found = {keys[row.key]: str(row.state) for row in rows}
    numbers = {token for token in wanted if token.startswith("version:")}
    if numbers:
        starts = [f"{int(token.partition(':')[2]) - LOCAL_VERSIONS:06x}" for token in numbers]
        made = select(_records.c.key, _records.c.state).where(
            _records.c.kind == Kind.VERSION.value, func.left(_records.c.key, 6).in_(starts)
        )
        found |= {f"version:{local_version(row.key)}": str(row.state) for row in await conn.execute(made)}
    return found


_KNOWN_REPORT = select(tables.reports).where(tables.reports.c.key == bindparam("key"))


async def take_report(conn: AsyncConnection, row: Mapping[str, Any]) -> Mapping[Any, Any] | None:
    """Keep a report. None: it is new; else the earlier report with the same key."""
    new = insert(tables.reports).values(dict(row)).on_conflict_do_nothing(index_elements=["key"])
    if (await conn.execute(new)).rowcount:
        return None
    return (await conn.execute(_KNOWN_REPORT, {"key": row["key"]})).mappings().one()


async def has_other_trigger(conn: AsyncConnection, runs: Sequence[str], trigger: UUID) -> bool:
    """Whether one of these runs was seen in MLflow, or reported, with a trigger other than this one."""
    seen = select(tables.runs.c.trigger_id).where(tables.runs.c.run_id.in_(runs))
    first = select(tables.reports.c.trigger_id).where(
        tables.reports.c.run.in_(runs), tables.reports.c.trigger_id.is_not(None), tables.reports.c.trigger_id != trigger
    )
    found = [*(await conn.execute(seen)).scalars(), *(await conn.execute(first.limit(1))).scalars()]
    return any(each is not None and each != trigger for each in found)


async def move_report(conn: AsyncConnection, report: UUID, run: str) -> None:
    """Note that the run of a report has another local id than usual."""
    await conn.execute(update(tables.reports).where(tables.reports.c.id == report).values(run=run))


# -- what the API shows ----------------------------------------------------------------------------------------------


async def ids_of(conn: AsyncConnection, run: str) -> tuple[str | None, str | None]:
    """The local id and MLflow's id of a run, by one of them."""
    if run.startswith("spool-"):
        return run, (await names(conn, [run])).get(run)
    known = select(_names.c.token).where(_names.c.name == run, _names.c.token.like("spool-%")).limit(1)
    return (await conn.execute(known)).scalar_one_or_none(), run


async def counts_of(conn: AsyncConnection, streams: Sequence[str]) -> dict[str, int]:
    """How many records of these streams are in each state."""
    counted = (
        select(_records.c.state, func.count().label("number"))
        .where(_records.c.stream.in_(streams))
        .group_by(_records.c.state)
    )
    return {row.state: int(row.number) for row in await conn.execute(counted)}


async def of_streams(conn: AsyncConnection, streams: Sequence[str]) -> list[Record]:
    """The records of these streams that were not set aside, in order."""
    return await _read(conn, _records.c.stream.in_(streams), _records.c.state != "aside")


async def asides_of(conn: AsyncConnection, streams: Sequence[str]) -> list[tuple[str, str, str]]:
    """Stream, kind and problem of each record of these streams that MLflow refused for good."""
    columns = (_records.c.stream, _records.c.kind, _records.c.problem)
    rows = await conn.execute(select(*columns).where(_records.c.stream.in_(streams), _records.c.state == "aside"))
    return [(row.stream, row.kind, row.problem or "") for row in rows]


async def made_by(conn: AsyncConnection, ids: Sequence[str]) -> list[Record]:
    """The records that create logged models and model versions, and that name one of `ids`."""
    named = or_(*(_records.c.body.contains(ident, autoescape=True) for ident in ids))
    kinds = (Kind.LOGGED_MODEL.value, Kind.VERSION.value)
    return await _read(conn, _records.c.kind.in_(kinds), named, _records.c.state != "aside")


def versions_of(records: Iterable[Record]) -> list[str]:
    """The local ids (`version:<number>`) of the model versions among records, for `names`."""
    return [f"version:{local_version(record.key)}" for record in records if record.kind is Kind.VERSION]


async def list_records(conn: AsyncConnection, state: str, after: int, most: int) -> list[Mapping[str, Any]]:
    """The records in a state whose `seq` is above `after`, the oldest first."""
    shown = ("seq", "key", "stream", "kind", "attempts", "problem", "report", "login", "workspace", "at")
    columns = [_records.c[name] for name in shown]
    where = (_records.c.state == state, _records.c.seq > after)
    rows = await conn.execute(select(*columns).where(*where).order_by(_records.c.seq).limit(most))
    return [dict(row) for row in rows.mappings()]


_OLDEST = text("SELECT min(at) FROM records WHERE state = 'pending'")


async def oldest_waiting(conn: AsyncConnection) -> datetime | None:
    """When the oldest pending record arrived (UTC); None when none is pending."""
    found: datetime | None = (await conn.execute(_OLDEST)).scalar_one()
    return found


_STUCK = text("""
    SELECT key, stream, kind, attempts, problem FROM records
    WHERE state = 'pending' AND (attempts >= 3 OR attempts = 0 AND problem IS NOT NULL) ORDER BY stream, seq LIMIT 1
""")


async def stuck_record(conn: AsyncConnection) -> str | None:
    """One sentence about a record whose delivery failed three times, or that waits until a person acts (see `note`)."""
    row = (await conn.execute(_STUCK)).one_or_none()
    if row is None:
        return None
    tried = f" after {row.attempts} attempts" if row.attempts else ""
    return f"record {row.key} ({row.kind}) of {row.stream} waits{tried}: {row.problem}"
