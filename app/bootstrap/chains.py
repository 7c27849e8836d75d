"""The chains of lineage: the answers, and the walk over MLflow."""

from dataclasses import dataclass

from uuid_utils.compat import uuid7

from app.bootstrap.base import Base
from app.kit.loop import Loop
from app.lineage.api import ChainServices
from app.lineage.chain import Lineage
from app.lineage.survey import LEASE, Survey
from app.lineage.telling import EVENT, Telling


@dataclass(frozen=True, slots=True)
class ChainSide:
    """What is put together here."""

    services: ChainServices
    loops: tuple[Loop, ...]


def chains(base: Base) -> ChainSide:
    """Built straight down. Without `mlflow` in the policy the loop does nothing."""
    survey = Survey(
        base.engine,
        base.mlflow,
        base.current,
        base.clock,
        Telling(base.notices, lambda: base.current().told(EVENT), base.repeat),
        new_id=uuid7,
        retention=base.settings.retention,
    )
    # A page may have to ask for every one of its runs: longer than its lease is stuck. In between MLflow serves others.
    loop = Loop("survey", survey.step, idle=15.0, pace=0.2, patience=LEASE.total_seconds())
    return ChainSide(ChainServices(Lineage(base.engine, base.mlflow, base.current, base.clock), base.reader), (loop,))
