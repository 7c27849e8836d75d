"""The journal of promotions in SQL: at most one open change a model, with a fence, and every verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, Text, and_, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.db import names_of, rows_of
from app.kit.metrics import Metrics as Gauges
from app.kit.pages import read_page
from app.promotion.beside import Metrics
from app.promotion.model import BY_PROBATION, holds

_promotions = tables.promotions

OPEN: Final = ("open", "moving")
#: The states of a request that changed nothing and never will.
REFUSED: Final = ("blocked", "lost", "undone", "unreadable")

_TAKE = rows_of(
    f"""
    UPDATE promotions SET fence = fence + 1, lease_until = :lease_until WHERE id = (
        SELECT id FROM promotions WHERE state IN ('open', 'moving') AND lease_until <= :now
        ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING {names_of(_promotions)}
""",
    _promotions,
)


# The time of the next look is written first: when this process dies, another one looks later.
_ON_PROBATION = rows_of(
    f"""
    UPDATE promotions SET probation_at = :later WHERE id IN (
        SELECT id FROM promotions WHERE probation_at <= :now ORDER BY probation_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING {names_of(_promotions)}
""",
    _promotions,
)

_OF_GROUPS = rows_of(
    f"""
    SELECT t.group_key, {names_of(_promotions, "p")} FROM triggers t
    JOIN runs r ON r.trigger_id = t.id JOIN versions v ON v.run_id = r.run_id
    JOIN promotions p ON p.registry = 'mlflow' AND p.model = v.model AND p.version = v.version
    WHERE t.group_key = ANY(CAST(:keys AS text[])) AND p.state IN ('promoted', 'rolled_back') AND p.ended_at >= :since
    ORDER BY p.ended_at DESC LIMIT :most
""",
    _promotions,
    group_key=Text(),
)


@dataclass(frozen=True, slots=True)
class Promotion:
    """One row: a request to give `alias` to `version`, or to take it back from it (`kind` rollback). See app.tables."""

    id: UUID
    kind: str
    registry: str
    model: str
    alias: str
    version: str
    state: str
    mode: str
    requested_by: str
    created_at: datetime
    policy: str
    dry_run: bool = False
    override: bool = False
    reason: str | None = None
    expected: str | None = None
    previous: str | None = None
    target: str | None = None
    rollback_of: UUID | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    tags: Mapping[str, str] = field(default_factory=dict)
    tags_before: Mapping[str, str | None] = field(default_factory=dict)
    detail: str = ""
    fence: int = 0
    lease_until: datetime | None = None
    ended_at: datetime | None = None
    trigger_id: UUID | None = None
    metrics: Metrics | None = None
    probation: Mapping[str, Any] | None = None
    probation_alert: UUID | None = None
    probation_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether its change is not settled yet."""
        return self.state in OPEN

    @property
    def came_late(self) -> bool:
        """Whether it is a rollback that stopped because somebody else had moved the alias."""
        late = any(each["rule"] == holds(self.alias) and not each["passed"] for each in self.verdicts)
        return self.kind == "rollback" and late


def _promotion(found: Mapping[Any, Any]) -> Promotion:
    return Promotion(**{"alias" if name == "mark" else name: value for name, value in found.items()})


async def add(conn: AsyncConnection, row: Promotion) -> bool:
    """Keep a request. False: the row is open and another open row of its model exists; nothing was written."""
    values = asdict(row)
    values["mark"] = values.pop("alias")
    statement = insert(_promotions).values(values)
    if row.is_open:
        index = ["registry", "model"]
        statement = statement.on_conflict_do_nothing(index_elements=index, index_where=tables.OPEN_PROMOTION)
    return bool((await conn.execute(statement)).rowcount)


async def advance(conn: AsyncConnection, row: Promotion, **values: Any) -> bool:
    """Write the progress of an open change. False: a newer worker has the row, and the caller must stop."""
    mine = and_(_promotions.c.id == row.id, _promotions.c.fence == row.fence, _promotions.c.state.in_(OPEN))
    return bool((await conn.execute(update(_promotions).where(mine).values(**values))).rowcount)


async def take(conn: AsyncConnection, now: datetime, lease_until: datetime) -> Promotion | None:
    """An open change whose worker let its lease run out. The new fence stops that worker."""
    found = (await conn.execute(_TAKE, {"now": now, "lease_until": lease_until})).mappings().one_or_none()
    return _promotion(found) if found else None


async def get(conn: AsyncConnection, ident: UUID) -> Promotion | None:
    """One promotion; None when there is none of this id."""
    found = (await conn.execute(select(_promotions).where(_promotions.c.id == ident))).mappings().one_or_none()
    return _promotion(found) if found else None


async def trigger_of(conn: AsyncConnection, row: Promotion) -> RowMapping | None:
    """The trigger whose DAG run made the version; None: the gateway does not have it, or nobody knows it."""
    t = tables.triggers
    wanted = select(t.c.id, t.c.route, t.c.group_labels, t.c.accepted_at, t.c.started_at, t.c.ended_at)
    return (await conn.execute(wanted.where(t.c.id == row.trigger_id))).mappings().one_or_none()


async def set_gauges(conn: AsyncConnection, _now: datetime, metrics: Gauges) -> None:
    """Set the number of changes that are not settled."""
    found = await conn.execute(text("SELECT count(*) FROM promotions WHERE state IN ('open', 'moving')"))
    metrics.promotions_open.set(int(found.scalar_one()))


async def page(
    conn: AsyncConnection, limit: int, cursor: UUID | None, equal: Mapping[str, str | None]
) -> tuple[list[Promotion], UUID | None]:
    """A page of the promotions whose columns have the values of `equal`, the newest first; and the next page's cursor."""
    wanted = select(_promotions).order_by(_promotions.c.id.desc())
    for name, value in equal.items():
        if value is not None:
            wanted = wanted.where(_promotions.c[name] == value)
    if cursor is not None:
        wanted = wanted.where(_promotions.c.id < cursor)
    rows, more = await read_page(conn, wanted, limit, "id")
    return [_promotion(row) for row in rows], rows[-1]["id"] if more else None


async def of_groups(
    conn: AsyncConnection, keys: Sequence[str], since: datetime, most: int
) -> dict[str, list[Promotion]]:
    """By group key, the newest promotions and rollbacks since a time of the versions that its triggers made."""
    found: dict[str, list[Promotion]] = {key: [] for key in keys}
    parameters = {"keys": list(keys), "since": since, "most": most}
    for row in (await conn.execute(_OF_GROUPS, parameters)).mappings():
        values = {name: value for name, value in row.items() if name != "group_key"}
        found[row["group_key"]].append(_promotion(values))
    return found


async def later(conn: AsyncConnection, row: Promotion) -> UUID | None:
    """The newest promotion to the alias of `row` that came after `row` and was not rolled back; None when there is none."""
    done = _promotions.alias()
    undone = select(done.c.id).where(done.c.rollback_of == _promotions.c.id, done.c.state == "rolled_back")
    newer = select(_promotions.c.id).where(
        _promotions.c.registry == row.registry,
        _promotions.c.model == row.model,
        _promotions.c.mark == row.alias,
        _promotions.c.state == "promoted",
        _promotions.c.ended_at > row.ended_at,
        ~undone.exists(),
    )
    found: UUID | None = (await conn.execute(newer.order_by(_promotions.c.ended_at.desc()).limit(1))).scalar()
    return found


async def on_probation(conn: AsyncConnection, now: datetime, later: datetime, most: int) -> list[Promotion]:
    """The promotions whose probation must be judged now, each taken until `later`. Those come first that are due longest."""
    found = await conn.execute(_ON_PROBATION, {"now": now, "later": later, "most": most})
    return [_promotion(row) for row in found.mappings()]


async def since(conn: AsyncConnection, row: Promotion) -> list[Promotion]:
    """The rollbacks of a promotion, the later promotions to its alias, and a change of the alias that is open. The oldest
    comes first."""
    later = and_(
        _promotions.c.registry == row.registry,
        _promotions.c.mark == row.alias,
        or_(
            _promotions.c.state.in_(OPEN),
            and_(_promotions.c.state == "promoted", _promotions.c.ended_at > row.ended_at),
        ),
    )
    wanted = select(_promotions).where(
        _promotions.c.model == row.model, or_(_promotions.c.rollback_of == row.id, later)
    )
    found = await conn.execute(wanted.order_by(_promotions.c.created_at, _promotions.c.id))
    return [_promotion(each) for each in found.mappings()]


async def went_back(conn: AsyncConnection, row: Promotion) -> bool:
    """Whether an earlier probation took the alias of `row` from its version."""
    wanted = select(_promotions.c.id).where(
        _promotions.c.registry == row.registry,
        _promotions.c.model == row.model,
        _promotions.c.mark == row.alias,
        _promotions.c.version == row.version,
        _promotions.c.state == "rolled_back",
        _promotions.c.requested_by == BY_PROBATION,
        _promotions.c.rollback_of != row.id,
    )
    return (await conn.execute(wanted.limit(1))).first() is not None


async def keep_probation(conn: AsyncConnection, row: Promotion, **values: Any) -> bool:
    """Write what a look came to. False: another look was faster."""
    same = and_(_promotions.c.id == row.id, _promotions.c.probation_at == row.probation_at)
    return bool((await conn.execute(update(_promotions).where(same).values(**values))).rowcount)


async def in_force(conn: AsyncConnection, row: Promotion) -> str | None:
    """The version that the gate gave the alias of `row` last, if the gate ever promoted that version; else None."""
    of_alias = and_(
        _promotions.c.registry == row.registry, _promotions.c.model == row.model, _promotions.c.mark == row.alias
    )
    newest = (
        select(_promotions.c.target)
        .where(of_alias, _promotions.c.state.in_(("promoted", "rolled_back")))
        .order_by(_promotions.c.ended_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    judged = select(_promotions.c.version).where(
        of_alias, _promotions.c.state == "promoted", _promotions.c.version == newest
    )
    return (await conn.execute(judged.limit(1))).scalar_one_or_none()
