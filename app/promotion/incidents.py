"""The incidents of promotions: of one that was refused, and of a version that failed its probation. And the news of one that
succeeded. Each is written in the transaction that found it out."""

import hashlib
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deliver.ending import run_time
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
    have another reason. The next promotion to that alias resolves all incidents of the alias."""

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
            notice = _notice(row, Severity.INFO if routine else Severity.WARNING)
            await self._incidents.resolve_below(conn, _of_version(row), now, row.detail, but=notice.key)
            await self._incidents.open(conn, self._policy().receivers_of(EVENT), notice, now)
        elif row.state in _DONE:
            await self._incidents.resolve_below(conn, _of_alias(row), now, row.detail)
        if row.state in ("promoted", "rolled_back"):
            failed = await self._incidents.open_below(conn, _of_probation(row))
            await self._incidents.resolve_all(conn, sorted(failed), now, row.detail)
        if row.state == "promoted":
            await self._announce(conn, row, now)

    async def fail(self, conn: AsyncConnection, row: Promotion, now: datetime) -> None:
        """Open the incident of a promotion whose probation failed. It is open until the next change of the alias."""
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
        link=f"/api/v1/explain/{trigger['id']}" if trigger is not None else f"/api/v1/promotions/{row.id}",
    )


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
        link=f"/ui/promotions?{urlencode({'model': row.model})}",
    )


def _notice(row: Promotion, severity: Severity) -> Notice:
    failed = [verdict for verdict in row.verdicts if not verdict["passed"]]
    words = {"blocked": "blocked", "lost": "overtaken", "undone": "undone", "unreadable": "not judged"}
    of = f"of {row.model} {row.version}"
    change = f"promotion {of} to" if row.kind == "promote" else f"rollback {of} from"
    return Notice(
        key=_of_version(row) + _hash(row.state, *(verdict["rule"] for verdict in failed)),
        event=EVENT,
        severity=severity,
        title=f"The {change} {row.alias} was {words[row.state]}",
        detail="; ".join(f"{verdict['rule']}: {verdict['detail']}" for verdict in failed)[:1000] or row.detail,
        labels={"model": row.model, "version": row.version, "to": row.alias, "promotion": str(row.id)},
        link=f"/ui/promotions?{urlencode({'model': row.model})}",
    )
