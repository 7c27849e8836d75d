"""The dead man's switches: the watch, the look at what ended in Airflow, heartbeats, and what a person asks."""

from dataclasses import dataclass

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.deadman.flips import Flips
from app.deadman.pings import Pings
from app.deadman.requests import SwitchRequests
from app.deadman.retrains import Retrains
from app.deadman.service import DeadmanServices
from app.deadman.watch import Watch
from app.kit.loop import Loop


@dataclass(frozen=True, slots=True)
class DeadmanSide:
    """What is put together here."""

    services: DeadmanServices
    loops: tuple[Loop, ...]


def deadman(base: Base) -> DeadmanSide:
    """The switches of the policy in force."""
    settings, metrics = base.settings, base.metrics
    flips = Flips(base.notices, uuid7, metrics, base.repeat)
    watch = Watch(base.engine, base.current, base.clock, flips, metrics, interval=settings.follow_interval)
    retrains = Retrains(
        base.engine,
        base.current,
        base.clock,
        base.airflows,
        flips,
        metrics,
        interval=settings.follow_interval,
        parallel=settings.delivery_parallel,
    )
    services = DeadmanServices(
        reader=base.reader,
        policy=base.current,
        clock=base.clock,
        limit=base.limit,
        pings=Pings(base.engine, base.current, base.clock, flips, metrics, new_id=uuid7, max_body=settings.ping_body),
        requests=SwitchRequests(base.engine, base.current, base.clock, flips),
    )
    patient = 2 * settings.delivery_timeout + 30
    return DeadmanSide(
        services,
        (
            Loop("retrains", retrains.step, idle=min(5.0, settings.follow_interval), patience=patient),
            Loop("watch", watch.step, idle=5.0),
        ),
    )
