"""Lineage: metadata in, and its way to MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.bootstrap.base import Base
from app.kit.outbox.relay import Destination
from app.lineage.delivery import Delivery
from app.lineage.record_store import KIND
from app.lineage.service import LineageServices
from app.lineage.taking import Taking


@dataclass(frozen=True, slots=True)
class LineageSide:
    """What is put together here."""

    services: LineageServices
    destinations: Mapping[str, Destination]


def lineage(base: Base) -> LineageSide:
    """Built straight down: what each part is made of stands before it."""
    taking = Taking(base.engine, base.clock, base.metrics, taken=lambda: base.ring("relay"))
    delivery = Delivery(base.engine, base.mlflow, base.clock, base.metrics, time=base.settings.delivery_timeout)
    return LineageSide(
        LineageServices(taking, base.limit, base.reader, base.mlflow, base.clock),
        {KIND: Destination(delivery.deliver, delivery.settled, delivery.after)},
    )
