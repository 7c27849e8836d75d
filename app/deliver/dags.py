"""The DAGs that the policy can start."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.policy.language.templates import placeholders, render_text
from app.policy.schema import Policy, Route

_MOST: Final = 50  # DAGs of a route whose `dag.id` names group labels: those of the groups that fired last

_GROUPS = text("""
    SELECT labels FROM groups WHERE route = :route AND mode = 'live' ORDER BY fired_at DESC NULLS LAST, key LIMIT :most
""")


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
