"""The third phase of a start: build each room's part, one after the other, and collect them as the services of a process."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from app.bootstrap.core import Foundation, Urls, constant_loops, open_foundation, watchdog_loops
from app.bootstrap.settings import Settings
from app.deadman import store as deadman_store
from app.deadman.flips import Flips
from app.deadman.pings import Pings
from app.deadman.requests import SwitchRequests
from app.deadman.retrains import Retrains
from app.deadman.service import DeadmanServices
from app.deadman.watch import Watch
from app.deliver.airflows import AirflowClients
from app.deliver.delivery import Delivery
from app.deliver.ending import Endings, TriggerIncidents
from app.deliver.following import Follower
from app.effects import store as effects_store
from app.effects.judging import Judging
from app.effects.outcomes import Outcomes
from app.effects.probation import Probations
from app.effects.service import EffectServices
from app.groups import gauges, heard, retention, wakes
from app.groups.gauges import Gauges
from app.groups.pauses import Pauses
from app.groups.prometheus import Prometheus
from app.groups.requests import Requests
from app.groups.retention import Retention
from app.groups.schedules import Schedules
from app.groups.service import GroupServices
from app.groups.wakes import Waker
from app.intake import quarantine
from app.intake.batcher import Batcher
from app.intake.intake import Intake
from app.intake.service import IntakeServices
from app.kit.clock import Clock
from app.kit.http import Http
from app.kit.loop import Loop
from app.kit.mlflow.client import Mlflow
from app.kit.outbox import store as outbox
from app.kit.outbox.relay import Destination, Limits, Relay
from app.lineage import retention as lineage_retention
from app.lineage import store as lineage_store
from app.lineage.chain import Lineage
from app.lineage.delivery import Delivery as MetadataDelivery
from app.lineage.incidents import OrphanIncidents
from app.lineage.mlflow_client import MlflowOf
from app.lineage.service import LineageServices
from app.lineage.survey import LEASE, Survey
from app.lineage.taking import Taking
from app.notices import store as notices_store
from app.notices.delivery import Delivery as NoticeDelivery
from app.notices.incidents import Incidents
from app.notices.receivers.send import Sender
from app.notices.requests import NoticeRequests
from app.notices.service import NoticeServices
from app.policy import in_force
from app.policy.core import Core
from app.policy.reload import Reloader
from app.policy.schema import Policy
from app.promotion import store as promotion_store
from app.promotion.change import Change, Sweeper
from app.promotion.incidents import PromotionIncidents
from app.promotion.mlflow import MlflowRegistry
from app.promotion.model import Registry
from app.promotion.promote import Gate
from app.promotion.sagemaker import SagemakerRegistry
from app.promotion.service import PromotionServices
from app.replay.jobs.api import BacktestServices
from app.replay.jobs.work import Backtests, bounds_here
from app.tables import audit_log
from app.ui.kept import KeptPages
from app.ui.service import UiServices
from app.ui.sessions import Sessions
from app.web.bodies import budget_of
from app.web.probes import Probes
from app.web.tokens import Tokens

S = TypeVar("S")

#: The tables whose old rows are deleted, in this order.
PRUNES = (
    *retention.PRUNES,
    heard.PRUNE,
    notices_store.PRUNE,
    audit_log.PRUNE,
    *in_force.PRUNES,
    wakes.PRUNE,
    quarantine.PRUNE,
    *lineage_retention.PRUNES,
    deadman_store.PRUNE,
    effects_store.PRUNE,
)
GAUGES = {
    "triggers": gauges.set_gauges,
    "the outbox": outbox.set_gauges,
    "incidents": notices_store.set_gauges,
    "lineage": lineage_store.set_gauges,
    "switches": deadman_store.set_gauges,
    "promotions": promotion_store.set_gauges,
}

MlflowInForce = Callable[[], Mlflow | None]


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """One room: what its HTTP routes need, its loops, and where the relay delivers its items."""

    services: S
    loops: tuple[Loop, ...] = ()
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that runs in a process. The worker runs `loops`, every process runs `constant`, and each web process runs
    the batcher of `intake`."""

    settings: Settings
    foundation: Foundation
    reloader: Reloader
    intake: IntakeServices
    groups: GroupServices
    notices: NoticeServices
    lineage: LineageServices
    promotion: PromotionServices
    deadman: DeadmanServices
    effects: EffectServices
    backtests: BacktestServices
    ui: UiServices
    probes: Probes
    loops: tuple[Loop, ...]
    constant: tuple[Loop, ...]

    @property
    def core(self) -> Core:
        return self.foundation.core

    @property
    def tokens(self) -> Tokens:
        return self.foundation.tokens

    @property
    def running(self) -> tuple[Loop, ...]:
        """The loops that run in this process; `serve --no-worker` has only the constant ones."""
        return tuple(loop for loop in (*self.constant, *self.loops) if loop.started)

    def loop(self, name: str) -> Loop:
        """The loop of this name."""
        return next(loop for loop in (*self.constant, *self.loops) if loop.name == name)

    def reload_soon(self) -> None:
        """Read the policy file again, changed or not. For a signal handler."""
        self.reloader.ask()
        self.loop("policy").bell.ring()


@asynccontextmanager
async def open_services(
    settings: Settings, policy: Policy, urls: Urls, *, clock: Clock | None = None, http: Http | None = None
) -> AsyncIterator[Services]:
    """Build everything on migrated servers; it is closed in reverse order. Tests replace `clock` and `http`."""
    async with open_foundation(settings, policy, urls, clock=clock, http=http) as foundation:
        services = assemble(foundation)
        await services.reloader.in_force.keep()
        yield services


def assemble(base: Foundation) -> Services:
    """Build every part. A part comes after the parts that it needs."""
    core = base.core
    incidents = Incidents(core, base.settings.repeat)
    airflows = AirflowClients(core, base.http)
    mlflow = MlflowOf(core, base.http)
    notices = notices_part(base, incidents)
    lineage = lineage_part(base, incidents, mlflow)
    promotion = promotion_part(base, incidents, mlflow)
    deadman = deadman_part(base, incidents, airflows)
    effects = effects_part(base, incidents, mlflow, promotion.services.gate)
    backtests = backtests_part(base)
    intake = intake_part(base)
    groups = groups_part(base)
    deliver = deliver_part(base, incidents, airflows, (*notices.destinations, *lineage.destinations))
    probes = Probes(core, airflows, mlflow, base.settings)
    ui = _ui(base, probes, intake.services, groups.services, deadman.services, backtests.services)
    reloader = Reloader(core, base.settings.policy_file)
    constant = constant_loops(core, reloader)
    loops = tuple(
        loop
        for part in (notices, groups, deliver, lineage, promotion, deadman, effects, backtests)
        for loop in part.loops
    )
    loops += watchdog_loops(base, (*constant, *loops), intake.services.batcher)
    for loop in (*constant, *loops):
        core.metrics.loop_failures.labels(loop.name).set_function(partial(getattr, loop, "failures"))
    return Services(
        settings=base.settings,
        foundation=base,
        reloader=reloader,
        intake=intake.services,
        groups=groups.services,
        notices=notices.services,
        lineage=lineage.services,
        promotion=promotion.services,
        deadman=deadman.services,
        effects=effects.services,
        backtests=backtests.services,
        ui=ui,
        probes=probes,
        loops=loops,
        constant=constant,
    )


def _ui(
    base: Foundation,
    probes: Probes,
    intake: IntakeServices,
    groups: GroupServices,
    deadman: DeadmanServices,
    backtests: BacktestServices,
) -> UiServices:
    return UiServices(
        name=base.settings.name,
        core=base.core,
        reader=base.reader,
        tokens=base.tokens,
        sessions=Sessions(base.core, base.tokens),
        proxy=base.settings.proxy,
        groups=groups,
        deadman=deadman,
        backtests=backtests,
        probes={"Airflow": probes.orchestrator, "MLflow": probes.metadata, "Switches": probes.deadman},
        kept=KeptPages(intake.batcher),
    )


def intake_part(base: Foundation) -> Part[IntakeServices]:
    """Taking alerts. It gives the worker no loop: each web process runs the batcher."""
    settings = base.settings
    limits = quarantine.Limits(settings.quarantine_rows, settings.quarantine_body)
    intake = Intake(base.intake, base.memory, base.aftermath, limits)
    budget = budget_of(settings.body_budget, settings.max_body)
    batcher = Batcher(intake, max_queue=settings.intake_queue, max_bytes=budget).shown_in(base.core.metrics)
    return Part(
        IntakeServices(
            core=base.core,
            batcher=batcher,
            memory=base.memory,
            limiter=base.limiter,
            signatures=settings.signatures,
            max_alerts=settings.max_alerts,
            timeout=settings.intake_timeout,
        )
    )


def groups_part(base: Foundation) -> Part[GroupServices]:
    """Everything but alerts that changes a group: wakes, schedules, and requests of people."""
    core, aftermath, bells = base.core, base.aftermath, base.core.bells
    waker, confirmer = Waker(core, aftermath), Waker(core, aftermath, Prometheus(base.http, core.clock))
    schedules = Schedules(core, aftermath)
    counting, pruning = Gauges(core, GAUGES), Retention(core, PRUNES, keep=base.settings.retention)
    return Part(
        GroupServices(core, base.reader, base.limiter, Requests(core, aftermath), Pauses(core)),
        (
            Loop("waker", waker.step, idle=1.0, bell=bells.waker),
            Loop("confirmer", confirmer.step, idle=1.0, patience=_patience(base), bell=bells.confirmer),
            Loop("schedules", schedules.step, idle=1.0),
            Loop("gauges", counting.step, idle=15.0),
            Loop("retention", pruning.step, idle=600.0, pace=0.1),
        ),
    )


def deliver_part(
    base: Foundation, incidents: Incidents, airflows: AirflowClients, others: tuple[Destination, ...]
) -> Part[None]:
    """Starting DAG runs and following them, and the relay that delivers the items of every room."""
    settings, core = base.settings, base.core
    endings = Endings(core, TriggerIncidents(core, incidents))
    delivery = Delivery(
        core,
        airflows,
        endings,
        paused_retry=settings.paused_retry,
        follow_interval=settings.follow_interval,
        incident_after=settings.waiting_notice,
    )
    limits = Limits(
        deadline=settings.delivery_deadline,
        attempt=settings.delivery_timeout,
        retry_max=settings.retry_max,
        parallel=settings.delivery_parallel,
        cap=airflows.cap,
    )
    relay = Relay(core.engine, core.clock, (delivery, *others), limits, core.metrics)
    follower = Follower(
        core,
        airflows,
        endings,
        interval=settings.follow_interval,
        parallel=settings.delivery_parallel,
        incident_after=settings.waiting_notice,
    )
    patience, often = _patience(base), min(1.0, settings.follow_interval)
    return Part(
        None,
        (
            Loop("follower", follower.step, idle=often, patience=patience, bell=core.bells.follower),
            Loop("relay", relay.step, idle=1.0, patience=patience, stop=relay.stop, bell=core.bells.relay),
        ),
    )


def notices_part(base: Foundation, incidents: Incidents) -> Part[NoticeServices]:
    """Sending notices to the receivers, and the loop that repeats the notices of open incidents."""
    core, settings = base.core, base.settings
    sender = Sender(base.http, core.clock)
    delivery = NoticeDelivery(core, sender, gateway=settings.name, external_url=settings.external_url)
    requests = NoticeRequests(core, incidents, patience=base.http.longest + 2)
    return Part(
        NoticeServices(base.reader, requests, base.limiter),
        (Loop("notices", incidents.step, idle=5.0),),
        (delivery,),
    )


def lineage_part(base: Foundation, incidents: Incidents, mlflow: MlflowOf) -> Part[LineageServices]:
    """Taking metadata, delivering it to MLflow, and the survey that reads MLflow and keeps the chains."""
    core, settings = base.core, base.settings
    delivery = MetadataDelivery(core, mlflow, time=settings.delivery_timeout)
    survey = Survey(core, mlflow, OrphanIncidents(core, incidents), retention=settings.retention)
    return Part(
        LineageServices(core, base.reader, base.limiter, Taking(core), Lineage(core, mlflow), mlflow),
        # One page may ask MLflow for each of its runs. A step that outlives its lease is stuck.
        (Loop("survey", survey.step, idle=15.0, pace=0.2, patience=LEASE.total_seconds()),),
        (delivery,),
    )


def promotion_part(base: Foundation, incidents: Incidents, mlflow: MlflowInForce) -> Part[PromotionServices]:
    """The gate, its registries, and the sweeper that finishes the promotions that a crash interrupted."""
    core = base.core
    registries: Mapping[str, Registry] = {"mlflow": MlflowRegistry(mlflow), "sagemaker": SagemakerRegistry()}
    blocked = PromotionIncidents(core, incidents)
    change = Change(core, registries, blocked)
    sweeper = Sweeper(core, change)
    services = PromotionServices(base.reader, Gate(core, registries, change, blocked), base.limiter)
    return Part(services, (Loop("sweeper", sweeper.step, idle=5.0),))


def deadman_part(base: Foundation, incidents: Incidents, airflows: AirflowClients) -> Part[DeadmanServices]:
    """The dead man's switches: the watch, the search for retrains that ended, heartbeats, and requests of people."""
    core, settings = base.core, base.settings
    flips = Flips(core, incidents)
    watch = Watch(core, flips, interval=settings.follow_interval)
    retrains = Retrains(core, airflows, flips, interval=settings.follow_interval, parallel=settings.delivery_parallel)
    pings = Pings(core, flips, max_body=settings.ping_body)
    return Part(
        DeadmanServices(core, base.reader, base.limiter, pings, SwitchRequests(core, flips)),
        (
            Loop("retrains", retrains.step, idle=min(5.0, settings.follow_interval), patience=_patience(base)),
            Loop("watch", watch.step, idle=5.0),
        ),
    )


def effects_part(base: Foundation, incidents: Incidents, mlflow: MlflowInForce, gate: Gate) -> Part[EffectServices]:
    """Announcing the runs that ended well, judging whether each retrain helped, holding groups that none helps, and the
    probation of promoted versions."""
    judging = Judging(base.core, TriggerIncidents(base.core, incidents))
    outcomes = Outcomes(base.core, incidents, MlflowRegistry(mlflow))
    probations = Probations(base.core, gate, PromotionIncidents(base.core, incidents))
    return Part(
        EffectServices(base.core, base.reader),
        (
            Loop("effects", judging.step, idle=5.0),
            Loop("outcomes", outcomes.step, idle=5.0),
            Loop("probations", probations.step, idle=5.0, patience=_patience(base)),
        ),
    )


def backtests_part(base: Foundation) -> Part[BacktestServices]:
    """Backtests over HTTP. They read the copy of the database, if there is one."""
    copy = base.settings.database_read_url
    urls = [copy.get_secret_value(), base.urls.database] if copy is not None else [base.urls.database]
    backtests = Backtests(base.core, base.reader, urls, bounds_here())
    return Part(BacktestServices(backtests, base.limiter), (backtests.loop,))


def _patience(base: Foundation) -> float:
    """Seconds after which a step that waits for somebody else's server counts as stuck: more than twice its time limit."""
    return 2 * base.settings.delivery_timeout + 30
