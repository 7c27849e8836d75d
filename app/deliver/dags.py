"""The DAGs that the policy can start, and the triggers that do not get into them."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.groups.store import KIND
from app.policy.language.templates import placeholders, render_text
from app.policy.schema import Policy, Route

_MOST: Final = 50  # DAGs of a route whose `dag.id` names group labels: those of the groups that fired last

_GROUPS = text("""
    SELECT labels FROM groups WHERE route = :route AND mode = 'live' ORDER BY fired_at DESC NULLS LAST, key LIMIT :most
""")

# The oldest trigger of each Airflow whose newest attempts failed. What waits for a paused DAG is named by that DAG.
_STUCK = text("""
    SELECT DISTINCT ON (o.target) t.airflow, t.id, t.route, t.dag_id, t.detail, o.attempts FROM outbox o
    JOIN triggers t ON t.id = o.id
    WHERE o.state = 'pending' AND o.kind = :kind AND o.attempts >= 3 AND t.blocked <> 'dag_paused'
    ORDER BY o.target, o.created_at, o.id
""")


async def stuck_triggers(conn: AsyncConnection) -> dict[str, str]:
    """One sentence about the oldest trigger whose delivery failed three times in a row, by the name of its Airflow."""
    return {
        row.airflow: f"trigger {row.id} of the route {row.route} has no run of the DAG {row.dag_id} after {row.attempts} "
        f"attempts: {row.detail}"
        for row in await conn.execute(_STUCK, {"kind": KIND})
    }


async def dags_of(conn: AsyncConnection, policy: Policy) -> dict[str, list[str]]:
    """The ids by the name of their Airflow, each once. Routes in shadow mode start nothing and are left out."""
    found: dict[str, dict[str, None]] = {airflow.name: {} for airflow in policy.airflow}
    for route in policy.routes:
        if route.mode == "live":
            groups = await _groups(conn, route) if placeholders(route.dag.id) else [{}]
            found[route.dag.airflow] |= {render_text(route.dag.id, group): None for group in groups}
    return {name: list(ids) for name, ids in found.items()}


async def _groups(conn: AsyncConnection, route: Route) -> Sequence[dict[str, str]]:
    rows: Sequence[Any] = (await conn.execute(_GROUPS, {"route": route.name, "most": _MOST})).scalars().all()
    return [labels for labels in rows if all(name in labels for name in route.group_by)]
