"""When each alert was heard, to the minute: what a replay needs and the row of an alert does not keep.

A row of `alerts` has the first notification, the newest, and the newest resolved. What that row forgets is written here:
the last notification of each minute, each that ended or reopened an episode, and each that fired or held its group. So most
repeats of a storm write nothing, and an alert that came twice has no row here. A row holds six hours of one alert.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.books import Heard
from app.kit.db import insert_rows
from app.kit.prune import Deleted, Prune

SPAN: Final = timedelta(hours=6)  # of one row. A row that is heard every minute has 360 entries: about 1.5 KB
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_CONFLICT: Final = "ON CONFLICT (alert, since) DO UPDATE SET times = heard.times || excluded.times"

#: For a statement with the CTE `locked` of rows of `alerts` and the CTE `fresh`: what these rows forget when `:now` becomes
#: their newest notification. The same rule is in `Books.forget`.
KEEP_REPEATS: Final = f"""
    INSERT INTO heard (alert, since, times)
    SELECT id, since, ARRAY[2 * CAST(floor(extract(epoch FROM last_seen_at - since) * 1000) AS integer)]
    FROM (
        SELECT l.*, date_bin('6 hours', l.last_seen_at, TIMESTAMPTZ '2000-01-01 00:00:00+00') AS since FROM locked l
        WHERE last_seen_at <> first_seen_at AND (
            date_trunc('minute', last_seen_at) <> date_trunc('minute', CAST(:now AS timestamptz))
            OR last_seen_at = firing_since
        )
    ) l WHERE (SELECT yes FROM fresh)
    {_CONFLICT}
"""

_PAGE = text("""
    SELECT alert AS id, since AS at FROM heard WHERE (since, alert) > (:at, :id) ORDER BY since, alert LIMIT :most
""")
_DELETE = text("""
    DELETE FROM heard WHERE (alert, since) IN (
        SELECT alert, since FROM heard WHERE alert = ANY(CAST(:ids AS uuid[]))
          AND since < CAST(:before AS timestamptz) - interval '6 hours' FOR UPDATE SKIP LOCKED
    ) RETURNING alert AS id
""")


async def _count(_conn: AsyncConnection, rows: Sequence[RowMapping]) -> Deleted:
    return {"heard": len(rows)}


#: For alerts that stay. The rows of an alert that is deleted go with it.
PRUNE: Final = Prune("heard", _PAGE, _DELETE, also=_count)


async def keep(conn: AsyncConnection, forgotten: Iterable[Heard]) -> None:
    """Write down what rows of alerts forget. Their alerts are locked."""
    times: defaultdict[tuple[UUID, datetime], list[int]] = defaultdict(list)
    for heard in forgotten:
        since, code = packed(heard.at, resolved=heard.resolved)
        times[heard.alert, since].append(code)
    rows = [{"alert": alert, "since": since, "times": codes} for (alert, since), codes in sorted(times.items())]
    await insert_rows(conn, tables.heard, rows, conflict=_CONFLICT)


def packed(at: datetime, *, resolved: bool) -> tuple[datetime, int]:
    """The beginning of the row of a moment, and its entry there: twice the milliseconds since then, and one for resolved."""
    since = at - (at - _BEGINNING) % SPAN
    return since, 2 * ((at - since) // _MS) + resolved


def unpacked(since: datetime, codes: Iterable[int]) -> list[tuple[datetime, bool]]:
    """The moments of a row, each with whether it was a resolved."""
    return [(since + (code >> 1) * _MS, bool(code & 1)) for code in codes]
