"""The watch: every few seconds it judges each switch, and adds our own outages to the time that switches have.

Any number of replicas may watch. A lock on the one row of `watch` lets one at a time do so. A flip is written in the
transaction that opens its incident: a crash loses neither, and many replicas open one incident.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import rules, store
from app.deadman.flips import Flips, expectation
from app.deadman.rules import State
from app.deadman.store import FORGOTTEN, Record, Watched
from app.groups.wakes import GAP
from app.kit.db import transaction
from app.kit.loop import each_alone
from app.policy.core import Core
from app.policy.deadman import Instance, Retrain, Switch
from app.policy.language.templates import render_text
from app.policy.schema import Policy

log = logging.getLogger(__name__)

_SEEN_EVERY: Final = timedelta(seconds=60)  # between two searches for new values of for_each
_MOST_SEEN: Final = 5000  # groups of a route that one search reads


@dataclass(frozen=True)
class Roster:
    """The switches of the policy in force: those that it names, and those whose values alerts brought."""

    policy: Policy

    def named(self) -> dict[str, Instance]:
        """The switches that the policy names, by name."""
        return {instance.name: instance for switch in self.policy.deadman for instance in switch.instances()}

    def instance(self, record: Record) -> Instance | None:
        """A switch as the policy describes it; None: the policy no longer has it."""
        switch = next((s for s in self.policy.deadman if s.name == record.entry), None)
        found = switch.seen(record.labels) if switch else None
        return found if found is not None and record.name in (found.name, found.apart) else None

    def names(self, record: Record) -> bool:
        """Whether the policy itself names this switch: an alert did not bring its values."""
        found = self.instance(record)
        return found is not None and found.identity in {named.identity for named in self.named().values()}

    def known(self, records: Iterable[Record]) -> dict[tuple[str, ...], Record]:
        """Switches of the policy, by what they are. One that cannot be read is left out: the watch says so."""
        found = {}
        for record in records:
            with suppress(Exception):
                if (instance := self.instance(record)) is not None:
                    found[instance.identity] = record
        return found

    def dag(self, instance: Instance) -> tuple[str, str] | None:
        """(Airflow, DAG) whose runs a switch counts; None: it expects no retrain, or its route is gone."""
        expect = instance.switch.expect
        route = self.policy.route(expect.retrain) if isinstance(expect, Retrain) else None
        return (route.dag.airflow, render_text(route.dag.id, instance.labels)) if route else None


class Watch:
    """`step()` judges every switch. `interval` is seconds between two reads of a DAG."""

    def __init__(self, core: Core, flips: Flips, *, interval: float) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._flips = flips
        self._interval = timedelta(seconds=interval)
        self._seen_at: datetime | None = None

    async def step(self) -> bool:
        """Judge every switch, in one transaction.

        A switch that cannot be judged stops no other switch. Its error is raised at the end.
        """
        now, roster = self._clock.now(), Roster(self._policy())
        failed: list[Exception] = []
        async with transaction(self._engine) as conn:
            watched = await store.take_watch(conn, now)
            if watched is None:
                return False
            gap = self._gap(watched, now)
            records = await self._enrolled(conn, roster, now, failed)
            reads = await store.dag_reads(conn) if any(s.kind == "retrain" for s in roster.policy.deadman) else {}
            gap_until = now if gap else watched.gap_until
            look = _Look(roster, reads, self._interval, gap_until, watched.until if gap else None, now)
            locked = await store.lock(conn, [r.name for r in records if look.changes(r)])

            async def judge(record: Record) -> None:
                async with conn.begin_nested():
                    await self._judge(conn, record, look)

            unjudged = await each_alone(locked, judge, _named, "a switch cannot be judged")
            await store.keep_watch(conn, Watched(max(now, watched.until), gap_until))
        names = {record.name for record, _ in unjudged}
        self._flips.count(*(record for record in locked if record.name not in names))
        failed += (error for _, error in unjudged)
        if failed:
            self._metrics.items_failed.labels("watch").inc(len(failed))
            raise ExceptionGroup("switches that could not be judged", failed)
        return False

    def _gap(self, watched: Watched, now: datetime) -> timedelta:
        """How long our own outage was, or zero."""
        gap = now - watched.until
        if gap <= GAP:
            return timedelta(0)
        self._metrics.watch_gaps.inc(gap.total_seconds())
        log.warning("nobody watched for a while", extra={"seconds": gap.total_seconds()})
        return gap

    async def _enrolled(
        self, conn: AsyncConnection, roster: Roster, now: datetime, failed: list[Exception]
    ) -> list[Record]:
        """Every switch, with those that are new now."""
        records = await store.read(conn)
        known = roster.known(records)
        wanted = {each.identity: each for each in roster.named().values() if each.identity not in known}
        if self._seen_at is None or now - self._seen_at >= _SEEN_EVERY:

            async def look(switch: Switch) -> None:
                number = sum(record.entry == switch.name and record.state != FORGOTTEN for record in records)
                # Those that the policy names come first.
                number += sum(each.switch.name == switch.name for each in wanted.values())
                async with conn.begin_nested():
                    free = max(0, switch.most - number)
                    wanted.update({each.identity: each for each in (await _seen(conn, switch, known))[:free]})
                    await self._flips.full(conn, switch, now, number=number)

            switches = [switch for switch in roster.policy.deadman if switch.for_each]
            unseen = await each_alone(switches, look, _named, "the values of a switch cannot be read")
            failed += (error for _, error in unseen)
            self._seen_at = now

        # What is no longer in the policy is removed below, and frees its name for the next step.
        leaving = {record.name for record in records} - {record.name for record in known.values()}

        async def create(instance: Instance) -> None:
            async with conn.begin_nested():
                new = await store.create(conn, instance, now, instance.name, instance.apart)
            records.extend([new] if new else [])

        new = sorted((each for each in wanted.values() if each.name not in leaving), key=lambda each: each.name)
        failed += (error for _, error in await each_alone(new, create, _named, "a switch cannot be enrolled"))
        return records

    async def _judge(self, conn: AsyncConnection, record: Record, look: "_Look") -> None:
        instance = look.roster.instance(record)
        if instance is None:
            await self._flips.drop(conn, record, look.now)
            return
        if look.resumes(record):
            await self._flips.resume(conn, record, "its pause is over", look.now)
        if look.gap_since is not None and instance.switch.kind != "retrain":
            rules.allow(record.facts, State(record.state), look.gap_since, look.now)
        await self._flips.settle(conn, record, instance, look.now, judge=look.may_judge(record, instance))


@dataclass(frozen=True)
class _Look:
    """What one step knows. `gap_since`: when our outage began, if one ends with this step."""

    roster: Roster
    reads: dict[tuple[str, str], RowMapping]
    interval: timedelta
    gap_until: datetime | None
    gap_since: datetime | None
    now: datetime

    def changes(self, record: Record) -> bool:
        """Whether a switch must be locked and judged. True also on an error: its own judgement then fails, and no other."""
        if record.state == FORGOTTEN:
            return False
        try:
            return self._changes(record)
        except Exception:
            return True

    def _changes(self, record: Record) -> bool:
        instance = self.roster.instance(record)
        if instance is None or self.gap_since is not None or self.resumes(record):
            return True
        state = rules.state_at(record.facts, expectation(instance), self.now)
        return rules.shown(record.state, state, judge=self.may_judge(record, instance)) != record.state

    def resumes(self, record: Record) -> bool:
        """Whether its pause ends now."""
        return record.state == State.PAUSED and record.paused_until is not None and record.paused_until <= self.now

    def may_judge(self, record: Record, instance: Instance) -> bool:
        """Whether enough is known to let it go down."""
        dag = self.roster.dag(instance)
        if dag is None:
            return True
        read = self.reads.get(dag)
        deadline = rules.down_at(record.facts, expectation(instance))
        return rules.may_judge(deadline, read["read_at"] if read else None, self.gap_until, self.now, self.interval)


def _named(item: Record | Switch | Instance) -> dict[str, object]:
    return {"switch": item.name}


async def _seen(conn: AsyncConnection, switch: Switch, known: Mapping[tuple[str, ...], Record]) -> list[Instance]:
    """The switches that groups of the route make, with the values of for_each that alerts brought."""
    if not isinstance(switch.expect, Retrain):
        return []
    groups = await store.groups_seen(conn, switch.expect.retrain, _MOST_SEEN)
    if len(groups) == _MOST_SEEN:
        most = {"switch": switch.name, "groups": _MOST_SEEN}
        log.warning("only the newest groups of a route were looked at", extra=most)
    found: list[Instance] = []
    for group in groups:
        instance = _instance_of(switch, switch.expect, group["labels"])
        if instance is None:
            continue
        record = known.get(instance.identity)
        if record is None:
            found.append(instance)
        elif record.state == FORGOTTEN and group["at"] is not None and group["at"] > record.since:
            await store.remove(conn, record.name)
            found.append(instance)
    return found


def _instance_of(switch: Switch, expect: Retrain, labels: dict[str, str]) -> Instance | None:
    """The switch of a group, if the entry takes this group."""
    if any(labels.get(name) != value for name, value in expect.group.items()):
        return None
    instance = switch.seen(labels)
    return instance if instance is not None and instance.usable else None
