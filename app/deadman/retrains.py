"""Retrains are read from Airflow: every run of a switch's DAG that ends, no matter who started it.

Our own run names its route and its group in `conf.gateway`. Any other run belongs to a group when its conf has each label
of the group as a key, with the label's value. Labels that fill the DAG's id need no key. A switch without a group counts
every run of the DAG.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import rules, store
from app.deadman.flips import Flips
from app.deadman.store import FORGOTTEN, Record
from app.deadman.watch import Roster
from app.kit.airflow.client import AirflowClient, DagRun
from app.kit.db import transaction
from app.kit.errors import TargetError
from app.kit.loop import each_alone
from app.policy.core import Core
from app.policy.deadman import Instance, Retrain
from app.policy.language.templates import placeholders
from app.policy.schema import Policy

#: Airflow may write the end of a run late, and from several clocks. So each read goes back this far over the last one.
OVERLAP: Final = timedelta(minutes=10)
#: Runs of one DAG that one step reads, the newest first. Of a very busy DAG it may miss older ones after our outage.
MOST_RUNS: Final = 1000

Dag = tuple[str, str]  # Airflow's name and the DAG's id


class Retrains:
    """`step()` reads the DAGs that are due and updates their switches. `interval`: seconds between two reads of a DAG."""

    def __init__(
        self,
        core: Core,
        airflows: Callable[[], Mapping[str, AirflowClient]],
        flips: Flips,
        *,
        interval: float,
        parallel: int,
    ) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._airflows = airflows
        self._flips = flips
        self._interval = timedelta(seconds=interval)
        self._parallel = parallel

    async def step(self) -> bool:
        """Read every DAG that is due."""
        roster, now = Roster(self._policy()), self._clock.now()
        if not any(switch.kind == "retrain" for switch in roster.policy.deadman):
            return False
        async with transaction(self._engine) as conn:
            switches = _by_dag(roster, await store.read(conn))
            due = await store.claim_dags(conn, sorted(switches), now, now + self._interval) if switches else {}

        async def look(dag: Dag) -> None:
            await self._look(roster, dag, due[dag], switches[dag])

        problem = "the runs of a DAG cannot be counted"
        failed = await each_alone(
            due, look, lambda dag: {"airflow": dag[0], "dag_id": dag[1]}, problem, at_once=self._parallel
        )
        if failed:
            self._metrics.items_failed.labels("retrains").inc(len(failed))
            raise ExceptionGroup("DAGs whose runs could not be counted", [error for _, error in failed])
        return False

    async def _look(self, roster: Roster, dag: Dag, newest: datetime, switches: Sequence[str]) -> None:
        client = self._airflows().get(dag[0])
        if client is None:
            return
        read_at = self._clock.now()
        try:
            runs = await client.ended_runs(dag[1], newest - OVERLAP, MOST_RUNS)
        except TargetError as error:
            self._metrics.deadman_reads_failed.labels(error.code).inc()
            async with transaction(self._engine) as conn:
                await store.book_read(conn, dag, newest=None, read_at=None, error=error.detail)
            return
        async with transaction(self._engine) as conn:
            records = await store.lock(conn, switches)

            async def apply(record: Record) -> None:
                async with conn.begin_nested():
                    await self._count(roster, conn, record, runs)

            problem = "the runs of a DAG cannot be counted for a switch"
            failed = await each_alone(records, apply, lambda record: {"switch": record.name}, problem)
            ends = [run.ended_at for run in runs if run.ended_at is not None]
            # Airflow's clock may be ahead of our clock: an end in the future would hide every run that ends before it.
            # When a switch failed, the same runs are read again.
            seen = newest if failed else min(max([newest, *ends]), read_at)
            await store.book_read(conn, dag, newest=seen, read_at=read_at, error="")
        names = {record.name for record, _ in failed}
        self._flips.count(*(record for record in records if record.name not in names))
        if failed:
            raise ExceptionGroup("switches whose runs could not be counted", [error for _, error in failed])

    async def _count(self, roster: Roster, conn: AsyncConnection, record: Record, runs: Sequence[DagRun]) -> None:
        """The newest run that the switch counts is its good sign."""
        instance, now = roster.instance(record), self._clock.now()
        if instance is None or record.state == FORGOTTEN:
            return
        good = [run for run in runs if counts(run, roster.policy, instance) and run.ended_at is not None]
        newest = max(good, key=lambda run: run.ended_at or now, default=None)
        if newest is None or newest.ended_at is None:
            return
        at = min(newest.ended_at, now)  # Airflow's clock may be ahead of our clock.
        if record.facts.last_at is not None and at <= record.facts.last_at:
            return
        rules.succeed(record.facts, at)
        record.last_event = f"DAG run {newest.dag_run_id[:150]} ended with {newest.state}"
        # Only the watch declares a switch overdue.
        await self._flips.settle(conn, record, instance, now, judge=False)


def counts(run: DagRun, policy: Policy, instance: Instance) -> bool:
    """Whether an ended run is what a switch expects."""
    expect = instance.switch.expect
    if not isinstance(expect, Retrain) or run.state not in ("success", "failed"):
        return False
    if expect.outcome == "success" and run.state != "success":
        return False
    ours = run.conf.get("gateway")
    ours = ours if isinstance(ours, Mapping) else None
    if expect.started_by == "gateway" and (ours is None or ours.get("route") != expect.retrain):
        return False
    group = ours.get("group") if ours is not None else run.conf
    group = group if isinstance(group, Mapping) else {}
    route = policy.route(expect.retrain)
    in_dag = set(placeholders(route.dag.id)) if route else set[str]()
    return all(name in in_dag or str(group.get(name)) == value for name, value in instance.labels.items())


def _by_dag(roster: Roster, records: Sequence[Record]) -> dict[Dag, list[str]]:
    """The names of the switches that count the runs of each DAG."""
    found: dict[Dag, list[str]] = {}
    for record in records:
        instance = roster.instance(record) if record.state != FORGOTTEN else None
        dag = roster.dag(instance) if instance is not None else None
        if dag is not None:
            found.setdefault(dag, []).append(record.name)
    return found
