"""What each line of a route did: the figures beside the policy, from what is stored. Two statements for all routes, which
read a bounded number of alerts and triggers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.policy.schema import Route

Row = dict[str, Any]

#: The most alerts, and triggers, that all routes together count: of each route the newest.
MOST: Final = 10_000

#: Of an alert `arrived`, the decision that it counts by: a fire since then, else the newest that is no `duplicate` and no
#: `resolved`, for these only repeat an earlier decision.
DECIDED: Final = """
    SELECT action, reason FROM decisions WHERE alert = arrived.id
    ORDER BY action = 'fire' AND first_at >= :since DESC, reason IN ('duplicate', 'resolved'), id DESC LIMIT 1
"""
#: The alerts heard since a time. The first condition is true wherever the second is, and it is indexed.
LATELY: Final = f"""
    (closed_at IS NULL OR (closed_at IS NOT NULL AND {tables.QUIET_SINCE} >= :since)) AND last_seen_at >= :since
"""

_ALERTS = text(f"""
    SELECT r.route, decided.action, decided.reason, count(*) AS alerts, max(arrived.last_seen_at) AS newest
    FROM unnest(CAST(:routes AS text[])) r(route) CROSS JOIN LATERAL (
        SELECT id, last_seen_at FROM alerts WHERE route = r.route AND {LATELY} ORDER BY id DESC LIMIT :most
    ) arrived CROSS JOIN LATERAL ({DECIDED}) decided
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 3
""")

# A trigger that fired within a second of its making was not held. For EXISTS the planner might read every decision.
_TRIGGERS = text("""
    SELECT t.route, t.state, count(*) AS triggers, count(t.fired_at) AS fired, count(t.lost_at) AS lost,
        count(*) FILTER (WHERE t.called_off OR t.fired_at - t.created_at >= interval '1 second') AS held,
        count(*) FILTER (WHERE t.called_off) AS called_off
    FROM unnest(CAST(:routes AS text[]), CAST(:modes AS text[])) r(route, mode) CROSS JOIN LATERAL (
        SELECT route, state, created_at, fired_at, lost_at, state = 'cancelled' AND fired_at IS NULL AND (
            SELECT true FROM decisions d WHERE d.trigger_id = triggers.id AND d.reason = 'resolved_while_held' LIMIT 1
        ) IS TRUE AS called_off
        FROM triggers WHERE route = r.route AND mode = r.mode AND created_at >= :since ORDER BY id DESC LIMIT :most
    ) t GROUP BY 1, 2 ORDER BY 2
""")


@dataclass(slots=True)
class Did:
    """What one route did. `decisions`: how many alerts arrived, by the decision that each counts by. `triggers`: how many,
    by state. Of those that were `held` and are so no more, some were `called_off`: everything behind them resolved."""

    decisions: list[Row] = field(default_factory=list)
    triggers: dict[str, int] = field(default_factory=dict)
    fired: int = 0
    held: int = 0
    called_off: int = 0
    lost: int = 0

    @property
    def alerts(self) -> int:
        return sum(row["alerts"] for row in self.decisions)

    def kept_back(self, reason: str) -> int:
        """How many alerts count by this reason."""
        return sum(row["alerts"] for row in self.decisions if row["reason"] == reason)


async def read(conn: AsyncConnection, routes: Sequence[Route], since: datetime) -> tuple[dict[str, Did], int]:
    """What these routes did since a time, by their names; and how many alerts, and triggers, of each route it counts at
    most."""
    found = {route.name: Did() for route in routes}
    most = max(MOST // max(len(routes), 1), 1)
    asked = {"routes": list(found), "modes": [route.mode for route in routes], "since": since, "most": most}
    for row in (await conn.execute(_ALERTS, {name: asked[name] for name in ("routes", "since", "most")})).mappings():
        found[row["route"]].decisions.append({name: row[name] for name in ("action", "reason", "alerts", "newest")})
    for row in (await conn.execute(_TRIGGERS, asked)).mappings():
        did = found[row["route"]]
        did.triggers[row["state"]] = row["triggers"]
        did.fired += row["fired"]
        did.held += row["held"]
        did.called_off += row["called_off"]
        did.lost += row["lost"]
    return found, most


def figures(route: Route, did: Did) -> dict[str, str]:
    """What stands beside the lines of a route, by their keys. A line that did nothing says so only where a person set it."""
    found = {"match": f"{_number(did.alerts, 'alert')} arrived", "dag": f"started {_number(did.fired, 'time')}"}
    if route.mode == "shadow":
        found["dag"] = f"would have started {_number(did.fired, 'time')}"
    if route.debounce:
        found["debounce"] = f"called off {did.called_off} of {did.held}" if did.held else "held nothing"
    for key, reason, is_set in (
        ("cooldown", "cooldown", bool(route.cooldown)),
        ("limit", "limit", route.limit is not None),
        ("mute", "muted", bool(route.mute)),
        ("confirm", "unconfirmed", route.confirm is not None),
        ("on_no_effect", "ineffective", route.on_no_effect.then == "hold"),
    ):
        if is_set or did.kept_back(reason):
            found[key] = f"kept back {_number(did.kept_back(reason), 'alert')}"
    again, failed = did.kept_back("still_firing"), did.triggers.get("failed", 0)
    return found | _some(
        {
            "refire": (again, f"{_number(again, 'alert')} fired again"),
            "on_failure": (failed, f"{failed} of {_number(did.fired, 'run')} failed"),
            "run_timeout": (did.lost, f"{did.lost} of {_number(did.fired, 'run')} lost"),
        }.items()
    )


def _some(found: Iterable[tuple[str, tuple[int, str]]]) -> dict[str, str]:
    return {key: sentence for key, (number, sentence) in found if number}


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
