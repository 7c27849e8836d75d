"""Lineage: metadata in, and its way to MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.kit.loop import Loop
from app.kit.outbox.relay import Destination
from app.lineage.delivery import Delivery
from app.lineage.housekeeping import Housekeeping
from app.lineage.service import LineageServices
from app.lineage.taking import Taking


@dataclass(frozen=True, slots=True)
class LineageSide:
    """What is put together here."""

    services: LineageServices
    destinations: Sequence[Destination]
    loops: tuple[Loop, ...]


def lineage(base: Base) -> LineageSide:
    """Built straight down: what each part is made of stands before it."""
    taking = Taking(base.engine, base.clock, base.metrics, uuid7, taken=lambda: base.ring("relay"))
    delivery = Delivery(base.engine, base.mlflow, base.clock, base.metrics, time=base.settings.delivery_timeout)
    tidy = Housekeeping(base.engine, base.clock, base.metrics, keep=base.settings.retention)
    return LineageSide(
        LineageServices(taking, base.limit, base.reader, base.mlflow, base.clock),
        (delivery,),
        (Loop("metadata", tidy.step, idle=15.0, pace=0.1),),
    )
