"""Take metadata: the report of a component, the records of a spool, and the redrive of what MLflow refused. Each is
durable when its method returns."""

import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.lineage import record_store as store
from app.lineage.model import Place
from app.lineage.report_schemas import HandedOver, HandOver, Report
from app.lineage.reports import next_keys, records_of, run_of
from app.policy.core import Core
from app.promotion.model import PREFIX, STATUS_TAG
from app.web.heavy import aside
from app.web.tokens import Caller
from mlflow_spool.records import API, CREATES, KEY_TAG, ROOT, TOKEN, Call, Kind, Record, draft, imported, translated
from mlflow_spool.rehearsal import fault_of

_REGISTRY: Final = ("registered-models", "model-versions")
_DELETES: Final = frozenset({"runs/delete", "experiments/delete"})


@dataclass(frozen=True, slots=True)
class Taking:
    """Takes reports and hand-overs, and wakes the relay when there are new records."""

    core: Core

    async def report(self, report: Report, caller: Caller, key: str | None) -> dict[str, Any]:
        """Keep a report and its records. key: the Idempotency-Key; None: the report itself is the key.

        Raises Problem 422 when the key came with another report before, and 403 for a run of another trigger.
        """
        content = report.model_dump(mode="json")
        body = _hash(json.dumps(content, sort_keys=True))
        known_by = _hash(json.dumps([caller.name, key or body]))
        now, report_id = self.core.clock.now(), uuid7()
        row = {
            "id": report_id,
            "key": known_by,
            "body": body,
            "run": run_of(report),
            "component": report.component,
            "state": report.state,
            "who": report.who or caller.name,
            "trigger_id": report.trigger_id,
            "told": content,
            "at": now,
        }

        async def keep(conn: AsyncConnection) -> dict[str, Any]:
            known = await store.take_report(conn, row)
            if known is None:
                if not caller.can("promote") and await _is_of_another_trigger(conn, report):
                    detail = (
                        f"The run {report.run_id} belongs to another trigger: to change that needs the scope promote."
                    )
                    raise Problem(403, "forbidden", detail, scope="promote")
                taken, new = await _add(conn, report, report_id, report.who or caller.name, now)
                run = run_of(report, taken)
                if taken:
                    await store.move_report(conn, report_id, run)
                return {"id": report_id, "run": run, "records": new}
            if known["body"] != body:
                raise Problem(422, "idempotency_mismatch", "This Idempotency-Key was used with another report.")
            return {"id": known["id"], "run": known["run"], "records": 0}

        answer = await with_retries(self.core.engine, keep)
        self._count(answer["records"])
        return answer

    async def hand_over(self, body: HandOver, caller: Caller) -> dict[str, int]:
        """Keep records that a spool could not deliver. `names` count for these records alone: nobody defines an id for the
        records of others. Raises Problem 422 for a record that no spool writes. Raises Problem 403, which names each record,
        for records that delete, or would bypass the promotion gate by the gateway's own login."""
        # Megabytes of records take a while, and other requests go on meanwhile.
        records = await aside(
            caller.name, lambda: [_record(index, handed) for index, handed in enumerate(body.records)]
        )
        now = self.core.clock.now()

        async def keep(conn: AsyncConnection) -> int:
            named = await _named(conn, records, body.names)
            if not caller.can("promote"):
                own = {record.token for record in records if record.kind in CREATES}
                own |= await store.made_by_caller(conn, records, caller.name)
                streams = {record.stream for record in records if record.stream.partition(":")[2] in own}
                moved = {new.stream for new, old in zip(named, records, strict=True) if old.stream in streams}
                _refuse_without_promote(named, streams | moved, caller)
            return await store.add(conn, named, now, caller=caller.name, place=Place(body.login, body.workspace))

        new = await with_retries(self.core.engine, keep)
        self._count(new)
        return {"taken": new, "known": len(records) - new}

    async def redrive(self, stream: str | None, caller: str) -> int:
        """Make the refused records of one stream, or of all, pending again; returns how many."""
        now = self.core.clock.now()

        async def again(conn: AsyncConnection) -> int:
            found = await store.redrive(conn, stream, now)
            if found:
                row = {"id": uuid7(), "at": now, "caller": caller, "action": "redrive"}
                row |= {"subject": f"metadata {stream or '-'}", "detail": {"records": found}}
                await conn.execute(tables.audit.insert().values(row))
            return found

        found = await with_retries(self.core.engine, again)
        if found:
            self.core.bells.relay.ring()
        return found

    def _count(self, new: int) -> None:
        if new:
            self.core.metrics.metadata_records.labels("taken").inc(new)
            self.core.bells.relay.ring()


def _record(index: int, handed: HandedOver) -> Record:
    """The record. Raises Problem 422 for what no spool writes: metadata must not be a way to send MLflow other requests."""
    try:
        record = imported(handed.model_dump(by_alias=True))
    except ValueError as error:
        raise _invalid(index, str(error)) from None
    fault = fault_of(record)
    if fault is not None:
        raise _invalid(index, fault)
    if record.kind is Kind.ARTIFACT:
        return record
    _check(index, record)
    again = draft(Call(record.call.method, record.call.path, record.call.body), record.made_at, record.key)
    noun = record.stream.partition(":")[0]
    if again is None or again.kind is not record.kind or again.stream.partition(":")[0] != noun:
        raise _invalid(index, "a spool never keeps such a write")
    tags = record.call.body.get("tags")
    own_tag = {"key": KEY_TAG, "value": record.key}
    if record.kind in CREATES and not (isinstance(tags, list) and own_tag in tags):
        raise _invalid(index, f"it creates something without its key in the tag {KEY_TAG}")
    return record


async def _is_of_another_trigger(conn: AsyncConnection, report: Report) -> bool:
    """Whether the run that a report names has another trigger, as far as MLflow was seen and runs were reported."""
    if report.run_id is None or report.trigger_id is None:
        return False
    local, real = await store.ids_of(conn, report.run_id)
    return await store.has_other_trigger(conn, [ident for ident in (local, real) if ident], report.trigger_id)


async def _add(
    conn: AsyncConnection, report: Report, report_id: UUID, who: str, now: datetime
) -> tuple[frozenset[str], int]:
    """Keep the records of a report. Anybody can compute the key of its run, and hand over a creation with it before; then
    the report takes another key. Returns the keys that were taken so, and how many records are new."""
    taken: frozenset[str] = frozenset()
    while True:
        records = records_of(report, str(report_id), who, now, taken)
        async with conn.begin_nested() as attempt:
            new = await store.add(conn, records, now, report_id)
            strange = await store.handed_over(conn, [record.key for record in records if record.kind in CREATES])
            if not strange:
                return taken, new
            await attempt.rollback()
        taken |= strange | await store.handed_over(conn, next_keys(report, taken))


async def _named(conn: AsyncConnection, records: list[Record], given: dict[str, str]) -> list[Record]:
    """The records with MLflow's ids for the local ids that `given` knows. What the gateway learned itself counts more, but
    for the numbers of versions: another spool may have used the same. A stream that the gateway has already keeps its name,
    and so its order."""
    if not given:
        return records
    names = given | await store.names(conn, [token for token in given if not token.startswith("version:")])
    kept = await store.streams_of(conn, {record.stream for record in records})

    def stream(name: str) -> str:
        return name if name in kept else TOKEN.sub(lambda found: names.get(found[0], found[0]), name)

    def named(index: int, record: Record) -> Record:
        changed = replace(record, stream=stream(record.stream), call=translated(record.call, names.get))
        if record.kind is not Kind.ARTIFACT:
            _check(index, changed)
        return changed

    return [named(index, record) for index, record in enumerate(records)]


def _check(index: int, record: Record) -> None:
    """Raise Problem 422 when a record leads out of MLflow's API, or sets a tag that nobody may set."""
    if any(part in {".", ".."} for part in unquote(record.call.path).split("/")) or "?" in record.call.path:
        raise _invalid(index, "a spool never writes this path")
    if _sets_a_key(record):
        raise _invalid(index, f"a spool sets the tag {KEY_TAG} only when it creates something")


def _refuse_without_promote(records: Sequence[Record], own: Container[str], caller: Caller) -> None:
    """Raise Problem 403, which names each record that needs the scope promote. own: the streams of what this caller made."""
    message = "it moves an alias, deletes something or sets a tag of the gateway: this needs the scope promote"
    errors = [
        {"in": "body", "pointer": f"#/records/{index}", "message": message}
        for index, record in enumerate(records)
        if record.kind is not Kind.ARTIFACT and _needs_promote(record, own=record.stream in own)
    ]
    if errors:
        detail = f"The token {caller.name} lacks the scope promote, which {len(errors)} of the records need."
        raise Problem(403, "forbidden", detail, scope="promote", errors=errors)


def _sets_a_key(record: Record) -> bool:
    """Whether a record sets the tag by which a creation is found again, other than its own: nobody may do that."""
    given = list(_tags(record.call))
    if record.kind in CREATES:
        given = [(key, value) for key, value in given if value != record.key]
    return any(key == KEY_TAG for key, _ in given)


def _needs_promote(record: Record, *, own: bool) -> bool:
    """Whether a record deletes, or does what only the gate and the gateway may do. own: the caller made what it changes, so
    it may tag it with the trigger."""
    call = record.call
    rest = call.path.removeprefix(f"{API}/")
    noun, _, verb = rest.partition("/")
    keys = [key for key, _ in _tags(call)]
    if noun in _REGISTRY:
        if call.method == "DELETE" or verb in ("alias", "transition-stage"):
            return True
        # The sender of the hand-over chose the name that replaces a local id in a key, so such a key can become any tag.
        return any(key == STATUS_TAG or key.startswith(PREFIX) or TOKEN.search(key) or ROOT.search(key) for key in keys)
    if rest in _DELETES or (noun == "logged-models" and call.method == "DELETE" and "/" not in verb):
        return True
    if own or record.kind in CREATES:
        return False
    return any(key.startswith((PREFIX, KEY_TAG)) or ROOT.match(key) for key in keys)


def _tags(call: Call) -> Iterator[tuple[str, Any]]:
    """The keys and values of the tags that a call sets or deletes."""
    listed = call.body.get("tags")
    for pair in (call.body, *(listed if isinstance(listed, list) else ())):
        if isinstance(pair, dict):
            yield str(pair.get("key", "")), pair.get("value")
    if "/tags/" in call.path:  # of a logged model
        yield unquote(call.path.rpartition("/")[2]), None


def _invalid(index: int, message: str) -> Problem:
    error = {"in": "body", "pointer": f"#/records/{index}", "message": message}
    return Problem(422, "invalid", "The request has 1 error.", errors=[error])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
