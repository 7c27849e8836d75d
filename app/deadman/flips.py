"""The one place where the state of a switch changes: its row, the flip and the incident, in one transaction."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.deadman import rules, sentences, store
from app.deadman.rules import Expectation, State
from app.deadman.store import Record
from app.kit.links import page
from app.notices.incidents import Incidents
from app.notices.model import MOST_ALIKE, SWITCH_DOWN, Notice, Severity
from app.policy.core import Core
from app.policy.deadman import (
    LONGEST_NAME,
    MOST_BROUGHT,
    Instance,
    Switch,
    incident_key,
    shared_key,
)


def expectation(instance: Instance) -> Expectation:
    """What the policy in force expects of a switch."""
    return Expectation(instance.switch.every, instance.switch.grace)


class Flips:
    """Every method works on a switch that the caller has locked, in the caller's transaction."""

    def __init__(self, core: Core, incidents: Incidents) -> None:
        self._incidents = incidents
        self._metrics = core.metrics

    async def settle(
        self, conn: AsyncConnection, record: Record, instance: Instance, now: datetime, *, judge: bool = True
    ) -> None:
        """Write the switch, with the state that follows from its facts. Without `judge` it does not go down."""
        after = rules.shown(record.state, rules.state_at(record.facts, expectation(instance), now), judge=judge)
        if after != record.state:
            detail = sentences.flip(record, instance, after, now)
            await self._flip(conn, record, after, detail, now)
            if after is State.DOWN:
                await self._open(conn, record, instance, detail, now)
        await store.save(conn, record)

    async def pause(
        self, conn: AsyncConnection, record: Record, until: datetime | None, note: str, now: datetime
    ) -> None:
        """Expect nothing until `until`, or until a person resumes it. Its open incident is resolved."""
        record.paused_until, record.note, record.facts.paused = until, note, True
        if record.state != State.PAUSED:
            await self._flip(conn, record, State.PAUSED, note, now)
        await store.save(conn, record)

    async def resume(self, conn: AsyncConnection, record: Record, note: str, now: datetime) -> None:
        """Start its period again."""
        record.paused_until, record.note = None, ""
        rules.resume(record.facts, now)
        await self._flip(conn, record, State.NEW, note, now)
        await store.save(conn, record)

    async def forget(
        self, conn: AsyncConnection, record: Record, note: str, now: datetime, *, begin_anew: bool
    ) -> None:
        """Forget what it has received. With `begin_anew` it is new; otherwise it is hidden until its value is seen again."""
        record.paused_until, record.note, record.last_event, record.facts.last_at = None, "", "", None
        rules.resume(record.facts, now)
        await self._flip(conn, record, State.NEW if begin_anew else store.FORGOTTEN, note, now)
        await store.save(conn, record)

    async def drop(self, conn: AsyncConnection, record: Record, now: datetime) -> None:
        """Remove a switch that is no longer in the policy."""
        await self._flip(conn, record, store.FORGOTTEN, "it is no longer in the policy", now)
        await store.remove(conn, record.name)

    async def _flip(self, conn: AsyncConnection, record: Record, after: str, detail: str, now: datetime) -> None:
        await store.add_flip(conn, uuid7(), record, str(after), detail, now)
        if record.state == State.DOWN:
            await self._incidents.resolve(conn, incident_key(record.name), now, detail)
            if await store.count_down(conn, record.entry) <= 1:  # This row still says that it is down.
                await self._incidents.resolve(conn, shared_key("flood", record.entry), now, "none of them is down now")
        record.state, record.since = str(after), now
        record.flipped.append(record.state)

    def count(self, *records: Record) -> None:
        """Count the flips of switches, after the commit: a transaction that is done again flips only once."""
        for record in records:
            for state in record.flipped:
                self._metrics.deadman_flips.labels(state).inc()

    async def full(self, conn: AsyncConnection, switch: Switch, now: datetime, *, number: int) -> None:
        """Open or resolve the incident that an entry has so many switches that new values are left out."""
        key = shared_key("full", switch.name)
        if number < switch.most:
            await self._incidents.resolve(conn, key, now, f"it has {number} switches now")
            return
        detail = f"Alerts have brought {MOST_BROUGHT} values, and later ones make no switch. Forget what nobody needs"
        notice = _of_entry(key, Severity.WARNING, f"{switch.name[:100]} takes no new values", detail, switch)
        await self._incidents.open(conn, switch.receivers, notice, now, switch.repeat)

    async def _open(
        self, conn: AsyncConnection, record: Record, instance: Instance, detail: str, now: datetime
    ) -> None:
        notice = Notice(
            key=incident_key(record.name),
            event=SWITCH_DOWN,
            severity=Severity.CRITICAL,
            title=f"{record.name} is down",
            detail=detail,
            labels={"switch": record.name, **record.labels},
            link=page("switches", record.name),
        )
        switch = instance.switch
        named = instance.identity in {each.identity for each in switch.instances()}
        if not named and await store.count_down(conn, record.entry) >= MOST_ALIKE:
            title = f"more than {MOST_ALIKE} switches of {switch.name[:100]} are down"
            detail = "The others have no incident of their own: see the list of switches"
            notice = _of_entry(shared_key("flood", switch.name), Severity.CRITICAL, title, detail, switch)
        await self._incidents.open(conn, switch.receivers, notice, now, switch.repeat)


def _of_entry(key: str, severity: Severity, title: str, detail: str, switch: Switch) -> Notice:
    """A notice about all switches of an entry."""
    labels = {"switch": switch.name[:LONGEST_NAME]}
    return Notice(key, SWITCH_DOWN, severity, title, detail, labels, page("house"))
