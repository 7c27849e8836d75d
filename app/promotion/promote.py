"""A request to give an alias to a model version: read, judge, keep the verdicts, and only then change the registry."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.kit.db import with_retries
from app.kit.errors import Problem, TargetError
from app.policy.core import Core
from app.policy.language.expressions import metrics_in
from app.policy.promotions import Promotion as Entry
from app.policy.receivers import PROMOTED
from app.policy.schema import Policy
from app.promotion import store
from app.promotion.beside import beside
from app.promotion.change import LEASE, Change
from app.promotion.incidents import PromotionIncidents
from app.promotion.model import PREFIX, STATUS_TAG, Registry, Verdict, Version, holds
from app.promotion.rules import judge, only_not_better, passed
from app.promotion.store import Promotion

READ_WITHIN: Final = 30.0  # seconds for all reads before the verdicts


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as it came. `to` None: the only alias that the policy has for this model. `expected` is the version that
    must hold the alias now; "": no version may hold it; None: any."""

    model: str
    version: str
    to: str | None = None
    expected: str | None = None
    dry_run: bool = False
    override: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    version: Version | None
    holder: str | None
    incumbent: Version | None


class Gate:
    """Judges a promotion or a rollback, and starts its change. Every result is a row of the journal. The methods raise
    Problem 404 and 422 for what the policy or the journal does not know."""

    def __init__(
        self, core: Core, registries: Mapping[str, Registry], change: Change, incidents: PromotionIncidents
    ) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._registries = registries
        self._change = change
        self._incidents = incidents

    async def promote(self, wanted: Wanted, caller: str) -> Promotion:
        """Judge the version, and move the alias when it passes. Returns the row that was kept."""
        policy = self._policy()
        entry = _entry(policy, wanted)
        row = self._row(entry, policy, wanted, caller)
        registry = self._registries[entry.registry]
        try:
            async with self._engine.connect() as conn:
                in_force = await store.in_force(conn, row)
            shows = policy.announces(PROMOTED)
            facts = await _read(registry, entry, wanted, in_force, shows=shows)
        except TargetError as error:
            return await self._end(row, "unreadable", f"nothing was changed: {error.detail}")
        row = replace(row, previous=facts.holder)
        if facts.holder == wanted.version == in_force:
            return await self._end(row, "unchanged", f"version {wanted.version} holds {entry.to} already")
        verdicts = judge(entry, facts.version, facts.incumbent, name=f"{wanted.model} {wanted.version}")
        verdicts += _expected(entry, wanted, facts.holder)
        row = replace(row, verdicts=[asdict(verdict) for verdict in verdicts], **_made(entry, facts))
        if facts.version is None or not passed(verdicts, override=wanted.override):
            failed = ", ".join(verdict.rule for verdict in verdicts if not verdict.passed)
            # A version that does not exist is a mistyped number: the answer says so, and nobody needs a warning.
            routine = facts.version is None or (
                facts.holder != wanted.version and only_not_better(entry, facts.version, facts.incumbent, verdicts)
            )
            return await self._end(row, "blocked", f"not passed: {failed}", routine=routine)
        if facts.holder == wanted.version:
            detail = f"version {wanted.version} passes, and holds {entry.to} already; somebody else gave it the alias"
            return await self._end(row, "unchanged", detail)
        if wanted.dry_run or entry.mode == "shadow":
            return await self._end(row, "passed", "the version passes; nothing was changed")
        tags = registry.fit(_tags(policy, entry, row, facts.version, verdicts))
        return await self._open(replace(row, tags=tags, tags_before=_before(facts.version.own_tags, tags)))

    def automatic(self, model: str) -> tuple[str, ...]:
        """The aliases for which a new version in MLflow is judged by itself, in the order of the policy."""
        policy = self._policy()
        entries = (policy.promotion(model, alias) for alias in policy.aliases(model))
        return tuple(e.to for e in entries if e is not None and e.on_new_version and e.registry == "mlflow")

    async def roll_back(self, ident: UUID, reason: str | None, caller: str) -> Promotion:
        """Give the alias back to the version that held it before a promotion. Refused when another version holds the alias
        now, or when a later promotion to it is in force."""
        async with self._engine.connect() as conn:
            done = await store.get(conn, ident)
            later = await store.later(conn, done) if done else None
        if done is None:
            raise Problem(404, "not_found", f"There is no promotion {ident}.")
        if done.state != "promoted":
            raise Problem(
                409, "wrong_state", f"Only a promotion can be rolled back; this one is {done.state}.", state=done.state
            )
        if later is not None:
            detail = f"A later promotion of {done.model} to {done.alias} is in force: roll back {later}."
            raise Problem(409, "wrong_state", detail, state=done.state)
        row = replace(
            self._blank(done.registry, done.model, done.alias, done.version, caller, reason),
            kind="rollback",
            rollback_of=done.id,
            target=done.previous,
        )
        registry = self._registries[done.registry]
        try:
            async with asyncio.timeout(READ_WITHIN):
                holder = await registry.holder(
                    done.model, done.alias
                )  # Once: the change must begin where the verdict did.
                verdicts = await _may_go_back(registry, done, holder)
                own = await registry.own_tags(done.model, done.version) or {}
        except TargetError as error:
            return await self._end(row, "unreadable", f"nothing was changed: {error.detail}")
        except TimeoutError:
            return await self._end(row, "unreadable", "nothing was changed: the registry was too slow")
        row = replace(row, previous=holder, verdicts=[asdict(verdict) for verdict in verdicts])
        failed = next((verdict for verdict in verdicts if not verdict.passed), None)
        if failed is not None:
            return await self._end(row, "blocked", failed.detail)
        tags = registry.fit({STATUS_TAG: "rolled_back", f"{PREFIX}promotion": str(row.id)})
        return await self._open(replace(row, tags=tags, tags_before=_before(own, tags)))

    async def _open(self, row: Promotion) -> Promotion:
        """Write the row before the first change. A model has one open row, so the second of two promotions is `lost`."""
        now = self._clock.now()
        opened = replace(row, state="open", lease_until=now + LEASE, detail="under way")
        took = await with_retries(self._engine, lambda conn: store.add(conn, opened))
        if not took:
            return await self._end(row, "lost", f"another promotion of {row.model} is under way")
        return await self._change.carry_out(opened)

    async def _end(self, row: Promotion, state: str, detail: str, *, routine: bool = False) -> Promotion:
        now = self._clock.now()
        row = replace(row, state=state, detail=detail[:1000], ended_at=now)

        async def end(conn: AsyncConnection) -> None:
            await store.add(conn, row)
            await self._incidents.open_or_resolve(conn, row, now, routine=routine)

        await with_retries(self._engine, end)
        self._metrics.promotions.labels(row.state).inc()
        return row

    def _row(self, entry: Entry, policy: Policy, wanted: Wanted, caller: str) -> Promotion:
        row = self._blank(entry.registry, wanted.model, entry.to, wanted.version, caller, wanted.reason)
        return replace(
            row,
            mode=entry.mode,
            dry_run=wanted.dry_run,
            override=wanted.override,
            expected=wanted.expected,
            target=wanted.version,
            policy=policy.hash,
        )

    def _blank(self, registry: str, model: str, alias: str, version: str, caller: str, reason: str | None) -> Promotion:
        return Promotion(
            id=uuid7(),
            kind="promote",
            registry=registry,
            model=model,
            alias=alias,
            version=version,
            state="open",
            mode="live",
            requested_by=caller,
            reason=reason,
            created_at=self._clock.now(),
            policy=self._policy().hash,
        )


def _entry(policy: Policy, wanted: Wanted) -> Entry:
    aliases = policy.aliases(wanted.model)
    if not aliases:
        raise Problem(404, "not_found", f"The policy has no promotion for a model named {wanted.model!r}.")
    if wanted.to is None and len(aliases) > 1:
        raise Problem(422, "wrong_mark", f"Name the alias in `to`: the policy has {', '.join(aliases)} for this model.")
    entry = policy.promotion(wanted.model, wanted.to or aliases[0])
    if entry is None:
        raise Problem(422, "wrong_mark", f"The policy has only {', '.join(aliases)} for this model.")
    return entry


async def _read(registry: Registry, entry: Entry, wanted: Wanted, in_force: str | None, *, shows: bool) -> _Facts:
    """Read everything that the verdicts need. When the version holds the alias already, but the gate did not give it, it is
    compared with `in_force`, the version that the gate gave it to last. `shows`: people see its metrics beside those of the
    holder, if they can be read. Raises TargetError when a read fails that a verdict needs."""
    try:
        async with asyncio.timeout(READ_WITHIN):
            holder = await registry.holder(wanted.model, entry.to)
            version = await registry.version(wanted.model, wanted.version, entry.require.artifacts)
            rival = in_force if holder == wanted.version else holder
            compares = any(m.incumbent for rule in entry.rules for m in metrics_in(rule.condition))
            incumbent = await registry.version(wanted.model, rival) if rival is not None and compares else None
            if rival is not None and shows and not compares:
                with suppress(TargetError):
                    incumbent = await registry.version(wanted.model, rival)
    except TimeoutError:
        raise TargetError("timeout", "the registry was too slow") from None
    if incumbent is None and compares and rival is not None and rival == holder:
        raise TargetError("gone", f"version {holder} holds {entry.to}, but the registry does not have that version")
    return _Facts(version, holder, incumbent)


def _made(entry: Entry, facts: _Facts) -> dict[str, Any]:
    """The trigger whose run made the version, and its metrics beside those of the holder."""
    if facts.version is None:
        return {}
    first = [metric.name for rule in entry.rules for metric in metrics_in(rule.condition)]
    before = facts.incumbent if facts.incumbent is not None and facts.incumbent.version == facts.holder else None
    trigger = None
    with suppress(ValueError):  # Anybody may write the tag.
        trigger = UUID(facts.version.tags.get(f"{PREFIX}trigger_id", ""))
    return {"trigger_id": trigger, "metrics": beside(facts.version, before, first)}


def _expected(entry: Entry, wanted: Wanted, holder: str | None) -> tuple[Verdict, ...]:
    if wanted.expected is None:
        return ()
    return (Verdict("expected", wanted.expected == (holder or ""), _holds(holder, entry.to), final=True),)


def _holds(holder: str | None, alias: str) -> str:
    return f"{f'version {holder}' if holder else 'no version'} {holds(alias)}"


async def _may_go_back(registry: Registry, done: Promotion, holder: str | None) -> tuple[Verdict, ...]:
    detail = _holds(holder, done.alias)
    verdicts = (Verdict(holds(done.alias), holder == done.version, detail, final=True),)
    if done.previous is None:
        return verdicts
    before = await registry.version(done.model, done.previous)
    status = before.status if before else "gone"
    ready = Verdict("version", status == "READY", f"version {done.previous} is {status}", final=True)
    return (*verdicts, ready)


def _tags(
    policy: Policy, entry: Entry, row: Promotion, version: Version, verdicts: Sequence[Verdict]
) -> dict[str, str]:
    """The tags to write on the version: its status, its sources, and the promotion that let it pass."""
    waits = any(other.requires == entry.to for other in policy.promotions if other.takes(row.model))
    tags = {
        STATUS_TAG: "staging_ready" if waits or entry.to == "staging" else "promoted",
        f"{PREFIX}promotion": str(row.id),
        f"{PREFIX}promoted_by": row.requested_by,
        f"{PREFIX}source": version.source,
        f"{PREFIX}run": version.run,
    }
    for name, data in version.inputs.items():
        tags[f"{PREFIX}input.{name}"] = "; ".join(map(str, data))
    for name, artifact in version.artifacts.items():
        tags[f"{PREFIX}artifact.{name}"] = f"{artifact.uri} {artifact.digest}".strip()
    if row.override and not all(verdict.passed for verdict in verdicts):
        tags[f"{PREFIX}override"] = row.reason or ""
    return {key: value for key, value in tags.items() if value}


def _before(own: Mapping[str, str], tags: Mapping[str, Any]) -> dict[str, str | None]:
    return {key: own.get(key) for key in tags}


def shown(row: Promotion) -> dict[str, Any]:
    """A promotion as the API shows it."""
    fields: dict[str, Any] = asdict(row)
    hidden = ("tags_before", "fence", "lease_until", "alias", "probation_alert", "probation_at")
    shown = {"to": row.alias} | {name: value for name, value in fields.items() if name not in hidden}
    if row.probation is not None:
        shown["probation"] = {**row.probation, "alert": row.probation_alert}
    return shown
