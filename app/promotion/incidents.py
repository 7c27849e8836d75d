"""The incidents of promotions: of one that was refused, and of a version that failed its probation. And the news of one that
succeeded. Each is written in the transaction that found it out."""

import hashlib
from datetime import datetime
from typing import Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deliver.ending import run_time
from app.kit.links import page
from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core
from app.policy.language.durations import format_duration
from app.policy.receivers import PROBATION_FAILED, PROMOTED
from app.promotion import store
from app.promotion.beside import in_words
from app.promotion.model import BY_PROBATION, Standing
from app.promotion.store import Promotion

EVENT: Final = "promotion_blocked"
_DONE: Final = ("promoted", "rolled_back", "unchanged")


class PromotionIncidents:
    """A refusal opens one incident for its version, alias and reason. It resolves the open incidents of that version that
    have another reason. The next promotion to that alias resolves all incidents of the alias. A rollback that comes late,
    because somebody else moved the alias, opens none: nothing is left to do."""

    def __init__(self, core: Core, incidents: Incidents) -> None:
        self._policy = core.policies.current
        self._incidents = incidents

    async def open_or_resolve(
        self, conn: AsyncConnection, row: Promotion, now: datetime, *, routine: bool = False
    ) -> None:
        """Open or resolve the incidents of a promotion that has ended. A dry run and shadow mode have none.
        `routine`: the refusal is part of a normal day, and its severity is `info`."""
        if row.dry_run or row.mode == "shadow":
            return
        if row.state in store.REFUSED:
            await self._refuse(conn, row, now, Severity.INFO if routine else Severity.WARNING)
        elif row.state in _DONE:
            await self._incidents.resolve_below(conn, _of_alias(row), now, row.detail)
        if row.state in ("promoted", "rolled_back"):
            failed = await self._incidents.open_below(conn, _of_probation(row))
            await self._incidents.resolve_all(conn, sorted(failed), now, row.detail)
        if row.state == "promoted":
            await self._announce(conn, row, now)

    async def _refuse(self, conn: AsyncConnection, row: Promotion, now: datetime, severity: Severity) -> None:
        if row.came_late:
            await self._incidents.resolve_below(conn, _of_version(row), now, row.detail)
            if row.previous != row.version:
                failed = await self._incidents.open_below(conn, _of_probation(row))
                await self._incidents.resolve_all(conn, sorted(failed), now, row.detail)
            return
        if row.requested_by == BY_PROBATION and row.state in ("blocked", "lost"):
            return  # The probation acts on it, and has an incident of its own.
        notice = _notice(row, severity)
        await self._incidents.resolve_below(conn, _of_version(row), now, row.detail, but=notice.key)
        await self._incidents.open(conn, self._policy().receivers_of(EVENT), notice, now)

    async def end_probation(self, conn: AsyncConnection, row: Promotion, now: datetime) -> None:
        """Resolve the incidents of the rollbacks that a probation asked for. When it failed, open its own incident, which is
        open until the alias moves."""
        standing = row.probation or {}
        await self._incidents.resolve_below(conn, _of_tries(row), now, str(standing.get("detail", "")))
        if standing.get("state") not in (Standing.FAILED, Standing.ROLLED_BACK):
            return
        # This waits for a change of the alias that ends now, and whoever ends one later waits for this.
        await self._incidents.open_below(conn, _of_probation(row))
        later = await store.since(conn, row)
        if any(each.state in _DONE and each.requested_by != BY_PROBATION for each in later):
            return
        await self._incidents.open(conn, self._policy().receivers_of(PROBATION_FAILED), _failure(row), now)

    async def _announce(self, conn: AsyncConnection, row: Promotion, now: datetime) -> None:
        policy = self._policy()
        if not policy.announces(PROMOTED):
            return
        trigger = await store.trigger_of(conn, row)
        receivers = policy.receivers_of(PROMOTED, trigger["route"] if trigger else None)
        await self._incidents.announce(conn, receivers, _news(row, trigger, now), now)


def _of_alias(row: Promotion) -> str:
    """The beginning of the keys of all incidents of an alias."""
    return f"promotion:{_hash(row.registry, row.model, row.alias)}:"


def _of_version(row: Promotion) -> str:
    return f"{_of_alias(row)}{_hash(row.version)}:"


def _of_tries(row: Promotion) -> str:
    """The beginning of the keys of the incidents of the rollbacks that the probation of a version asked for."""
    return f"{_of_version(row)}probation:"


def _of_probation(row: Promotion) -> str:
    return f"probation:{_hash(row.registry, row.model, row.alias)}"


def _hash(*parts: str) -> str:
    """A short hash: names and rules may be longer than a key can be."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _news(row: Promotion, trigger: RowMapping | None, now: datetime) -> Notice:
    labels = {"model": row.model, "version": row.version, "to": row.alias, "promotion": str(row.id)}
    before = f"Before, version {row.previous} held {row.alias}." if row.previous else f"No version held {row.alias}."
    metrics = in_words(row.metrics or {}, row.previous)
    sentences = [before, f"Metrics: {metrics}." if metrics else "It has no metrics."]
    if trigger is not None:
        ran = format_duration(run_time(trigger, now))
        sentences.append(f"Its DAG run took {ran}." if trigger["ended_at"] else f"Its DAG run has taken {ran} so far.")
        labels |= {"route": trigger["route"]}
    return Notice(
        key=f"{PROMOTED}:{row.id}",
        event=PROMOTED,
        severity=Severity.INFO,
        title=f"Version {row.version} of {row.model} is {row.alias}",
        detail=" ".join(sentences),
        labels=labels,
        link=page("triggers", str(trigger["id"])) if trigger is not None else page_of(row),
    )


def page_of(row: Promotion) -> str:
    """The path of the page that shows this request, among those of its model."""
    return f"{page('promotions', model=row.model)}#promotion-{row.id}"


def _failure(row: Promotion) -> Notice:
    standing = row.probation or {}
    back = standing.get("state") == Standing.ROLLED_BACK
    version = f"Version {row.version} of {row.model}"
    title = f"{version} failed its probation: version {row.previous} is {row.alias} again"
    return Notice(
        key=_of_probation(row),
        event=PROBATION_FAILED,
        severity=Severity.WARNING if back else Severity.ERROR,
        title=title if back else f"{version} fails its probation, and is still {row.alias}",
        detail=str(standing.get("detail", "")),
        labels={"model": row.model, "version": row.version, "to": row.alias, "promotion": str(row.id)},
        link=page_of(row),
    )


def _notice(row: Promotion, severity: Severity) -> Notice:
    failed = [verdict for verdict in row.verdicts if not verdict["passed"]]
    words = {"blocked": "blocked", "lost": "overtaken", "undone": "undone", "unreadable": "not judged"}
    of = f"of {row.model} {row.version}"
    change = f"promotion {of} to" if row.kind == "promote" else f"rollback {of} from"
    of_whom = _of_tries(row) if row.requested_by == BY_PROBATION else _of_version(row)
    return Notice(
        key=of_whom + _hash(row.state, *(verdict["rule"] for verdict in failed)),
        event=EVENT,
        severity=severity,
        title=f"The {change} {row.alias} was {words[row.state]}",
        detail="; ".join(f"{verdict['rule']}: {verdict['detail']}" for verdict in failed)[:1000] or row.detail,
        labels={"model": row.model, "version": row.version, "to": row.alias, "promotion": str(row.id)},
        link=page_of(row),
    )
