"""The trigger side: alerts in, decisions, wakes, the way to Airflow and the eyes on it, history."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.decide.state import Decision, Reason
from app.deliver.delivery import Delivery
from app.deliver.ending import Endings
from app.deliver.following import Follower
from app.deliver.incidents import Incidents
from app.groups.gauges import Gauges
from app.groups.pauses import Pauses
from app.groups.prometheus import Prometheus
from app.groups.requests import Requests
from app.groups.retention import Retention
from app.groups.schedules import Schedules
from app.groups.service import TriggerServices
from app.groups.wakes import Waker
from app.intake import quarantine
from app.intake.batcher import Batcher
from app.intake.intake import Intake
from app.kit.loop import Loop
from app.kit.outbox.relay import Destination, Limits, Relay


@dataclass(frozen=True, slots=True)
class TriggerSide:
    """What is put together here."""

    services: TriggerServices
    batcher: Batcher
    loops: tuple[Loop, ...]


def triggers(base: Base, destinations: Mapping[str, Destination]) -> TriggerSide:
    """Built straight down: what each part is made of stands before it. destinations: others that the relay delivers to."""
    batcher = Batcher(_intake(base).commit, max_queue=base.settings.intake_queue)
    waker, confirmer = (
        Waker(
            base.engine,
            base.memory,
            base.current,
            base.clock,
            base.metrics,
            ledger=base.ledger,
            fired=lambda: base.ring("relay"),
            prometheus=prometheus,
        )
        for prometheus in (None, Prometheus(base.http, base.clock))
    )
    relay, follower = _airflow(base, destinations)
    schedules = _schedules(base)
    gauges = Gauges(base.engine, base.clock, base.metrics)
    retention = Retention(base.engine, base.clock, base.current, base.metrics, keep=base.settings.retention)
    tidy = Loop("retention", retention.step, idle=600.0, pace=0.1)
    return TriggerSide(
        _requests(base, batcher), batcher, (*_loops(base, waker, confirmer, schedules, relay, follower, gauges), tidy)
    )


def _intake(base: Base) -> Intake:
    return Intake(
        base.intake_engine,
        base.memory,
        base.current,
        base.clock,
        base.metrics,
        ledger=base.ledger,
        fired=lambda: base.ring("relay", "confirmer"),
        limits=quarantine.Limits(base.settings.quarantine_rows, base.settings.quarantine_body),
    )


def _schedules(base: Base) -> Schedules:
    return Schedules(
        base.engine,
        base.current,
        base.clock,
        ledger=base.ledger,
        fired=lambda: base.ring("relay"),
        decided=lambda route, v: base.metrics.decided([(route, v.action, v.reason)]),
    )


def _airflow(base: Base, others: Mapping[str, Destination]) -> tuple[Relay, Follower]:
    """The way to Airflow and the eyes on it."""
    settings, metrics = base.settings, base.metrics
    airflows = base.airflows
    incidents = Incidents(base.notices, base.current, base.repeat)
    endings = Endings(base.current, metrics, incidents, ended=lambda: base.ring("relay", "waker", "confirmer"))
    delivery = Delivery(
        base.engine,
        airflows,
        endings,
        paused_retry=settings.paused_retry,
        follow=lambda: base.ring("follower"),
        follow_interval=settings.follow_interval,
        tell_after=settings.waiting_notice,
    )
    limits = Limits(
        deadline=settings.delivery_deadline,
        attempt=settings.delivery_timeout,
        retry_max=settings.retry_max,
        parallel=settings.delivery_parallel,
        cap=airflows.cap,
    )
    destinations = {"airflow.dag_run": Destination(delivery.deliver, delivery.settled, delivery.after), **others}
    relay = Relay(base.engine, base.clock, destinations, limits, metrics, uuid7)
    follower = Follower(
        base.engine,
        base.clock,
        airflows,
        endings,
        metrics,
        interval=settings.follow_interval,
        parallel=settings.delivery_parallel,
        tell_after=settings.waiting_notice,
    )
    return relay, follower


def _requests(base: Base, batcher: Batcher) -> TriggerServices:
    return TriggerServices(
        engine=base.engine,
        reader=base.reader,
        batcher=batcher,
        requests=Requests(
            base.engine,
            base.current,
            base.clock,
            new_id=uuid7,
            ledger=base.ledger,
            changed=lambda: base.ring("relay", "waker", "confirmer"),
            decided=partial(_count, base),
        ),
        pauses=Pauses(
            base.engine, base.current, base.clock, new_id=uuid7, changed=lambda: base.ring("waker", "confirmer")
        ),
        policy=base.current,
        clock=base.clock,
        metrics=base.metrics,
        limit=base.limit,
        max_alerts=base.settings.max_alerts,
        timeout=base.settings.intake_timeout,
        memory=base.memory,
        signatures=base.settings.signatures,
    )


def _count(base: Base, route: str, decision: Decision) -> None:
    """A request was decided."""
    base.metrics.decided([(route, decision.action, decision.reason)])
    if decision.reason is Reason.SHADOW:
        base.metrics.rehearsed([route])


def _loops(
    base: Base, waker: Waker, confirmer: Waker, schedules: Schedules, relay: Relay, follower: Follower, gauges: Gauges
) -> tuple[Loop, ...]:
    settings = base.settings
    # A step of the relay or the follower may wait for Airflow; longer than twice its time limit is stuck.
    patient = 2 * settings.delivery_timeout + 30
    return (
        Loop("waker", waker.step, idle=1.0),
        Loop("confirmer", confirmer.step, idle=1.0, patience=patient),
        Loop("schedules", schedules.step, idle=1.0),
        Loop("follower", follower.step, idle=min(1.0, settings.follow_interval), patience=patient),
        Loop("relay", relay.step, idle=1.0, patience=patient, stop=relay.stop),
        Loop("gauges", gauges.step, idle=15.0),
    )
