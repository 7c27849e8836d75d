"""Take metadata: the report of a component, the records of a spool, and the redrive of what MLflow refused. Each is
durable when its method returns."""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.lineage import record_store as store
from app.lineage.rehearsal import fault_of
from app.lineage.report_schemas import HandedOver, HandOver, Report
from app.lineage.reports import records_of, run_of
from app.policy.core import Core
from app.promotion.model import PREFIX, STATUS_TAG
from app.web.tokens import Caller
from mlflow_spool.records import API, CREATES, KEY_TAG, TOKEN, Call, Kind, Record, draft, imported


@dataclass(frozen=True, slots=True)
class Taking:
    """Takes reports and hand-overs, and wakes the relay when there are new records."""

    core: Core

    async def report(self, report: Report, caller: str, key: str | None) -> dict[str, Any]:
        """Keep a report and its records. key: the Idempotency-Key; None: the report itself is the key.

        Raises Problem 422 when the key came with another report before.
        """
        content = report.model_dump(mode="json")
        body = _hash(json.dumps(content, sort_keys=True))
        known_by = _hash(json.dumps([caller, key or body]))
        now, report_id, run = self.core.clock.now(), uuid7(), run_of(report)
        row = {
            "id": report_id,
            "key": known_by,
            "body": body,
            "run": run,
            "component": report.component,
            "state": report.state,
            "who": report.who or caller,
            "trigger_id": report.trigger_id,
            "told": content,
            "at": now,
        }
        records = records_of(report, known_by, report.who or caller, now)

        async def keep(conn: AsyncConnection) -> dict[str, Any]:
            known = await store.take_report(conn, row)
            if known is None:
                new = await store.add(conn, records, now, report_id)
                return {"id": report_id, "run": run, "records": new}
            if known["body"] != body:
                raise Problem(422, "idempotency_mismatch", "This Idempotency-Key was used with another report.")
            return {"id": known["id"], "run": known["run"], "records": 0}

        answer = await with_retries(self.core.engine, keep)
        self._count(answer["records"])
        return answer

    async def hand_over(self, body: HandOver, caller: Caller) -> dict[str, int]:
        """Keep records that a spool could not deliver. Raises Problem 422 for a record that no spool writes. Raises Problem
        403, which names each record, for records that would bypass the promotion gate by the gateway's own login."""
        # Megabytes of records take a while, and other requests go on meanwhile.
        records = await asyncio.to_thread(lambda: [_record(index, handed) for index, handed in enumerate(body.records)])
        if not caller.can("promote"):
            _refuse_promotions(records, caller)
        now = self.core.clock.now()

        async def keep(conn: AsyncConnection) -> int:
            await store.learn(conn, body.names.items(), now)
            return await store.add(conn, records, now)

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
    if any(part in {".", ".."} for part in unquote(record.call.path).split("/")) or "?" in record.call.path:
        raise _invalid(index, "a spool never writes this path")
    again = draft(Call(record.call.method, record.call.path, record.call.body), record.made_at, record.key)
    noun = record.stream.partition(":")[0]
    if again is None or again.kind is not record.kind or again.stream.partition(":")[0] != noun:
        raise _invalid(index, "a spool never keeps such a write")
    tags = record.call.body.get("tags")
    own_tag = {"key": KEY_TAG, "value": record.key}
    if record.kind in CREATES and not (isinstance(tags, list) and own_tag in tags):
        raise _invalid(index, f"it creates something without its key in the tag {KEY_TAG}")
    return record


def _refuse_promotions(records: list[Record], caller: Caller) -> None:
    message = "it moves an alias, deletes from the registry or sets a tag of the gate: this needs the scope promote"
    errors = [
        {"in": "body", "pointer": f"#/records/{index}", "message": message}
        for index, record in enumerate(records)
        if record.kind is not Kind.ARTIFACT and _promotes(record.call)
    ]
    if errors:
        detail = f"The token {caller.name} lacks the scope promote, which {len(errors)} of the records need."
        raise Problem(403, "forbidden", detail, scope="promote", errors=errors)


def _promotes(call: Call) -> bool:
    """Whether a call does what only the gate may do: move an alias, delete from the registry, set a tag of the gate."""
    noun, _, verb = call.path.removeprefix(f"{API}/").partition("/")
    if noun not in ("registered-models", "model-versions"):
        return False
    if call.method == "DELETE" or verb in ("alias", "transition-stage"):
        return True
    tags = call.body.get("tags")
    pairs = [call.body, *(tags if isinstance(tags, list) else [])]
    keys = [str(pair.get("key", "")) for pair in pairs if isinstance(pair, dict)]
    # The sender of the hand-over chose the name that replaces a local id in a key, so such a key can become any tag.
    return any(key == STATUS_TAG or key.startswith(PREFIX) or TOKEN.search(key) for key in keys)


def _invalid(index: int, message: str) -> Problem:
    error = {"in": "body", "pointer": f"#/records/{index}", "message": message}
    return Problem(422, "invalid", "The request has 1 error.", errors=[error])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
