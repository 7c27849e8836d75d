"""The promotion gate: its registries, and the sweeper that settles what a crash left behind."""

from collections.abc import Mapping
from dataclasses import dataclass

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.kit.loop import Loop
from app.promotion.change import Change, Sweeper
from app.promotion.mlflow import MlflowRegistry
from app.promotion.model import Registry
from app.promotion.promote import Gate
from app.promotion.sagemaker import SagemakerRegistry
from app.promotion.service import PromotionServices
from app.promotion.telling import Telling


@dataclass(frozen=True, slots=True)
class PromotionSide:
    """What is put together here."""

    services: PromotionServices
    loops: tuple[Loop, ...]


def promotion(base: Base) -> PromotionSide:
    """Built straight down."""
    registries: Mapping[str, Registry] = {"mlflow": MlflowRegistry(base.mlflow), "sagemaker": SagemakerRegistry()}
    telling = Telling(base.notices, lambda: base.current().told("promotion_blocked"), base.metrics, base.repeat)
    change = Change(base.engine, base.clock, registries.__getitem__, telling)
    gate = Gate(base.engine, base.current, base.clock, registries.__getitem__, change, telling, uuid7)
    sweeper = Sweeper(base.engine, base.clock, change)
    services = PromotionServices(engine=base.engine, reader=base.reader, gate=gate, limit=base.limit)
    return PromotionSide(services, (Loop("sweeper", sweeper.step, idle=5.0),))
