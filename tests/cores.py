"""A Core for parts that a test builds by itself."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.groups.aftermath import Aftermath
from app.groups.memory import Memory
from app.kit.clock import Clock
from app.kit.db import open_engine
from app.kit.metrics import Metrics
from app.kit.redis.client import open_redis
from app.policy.core import Bells, Core
from app.policy.file.load import parse_policy
from app.policy.holder import Holder
from app.policy.schema import Policy
from tests.fakes.clock import ManualClock

#: A policy for parts that ask it nothing.
ANY = """
version: 1
airflow: [{name: default, url: "http://airflow.test:8080"}]
routes: [{name: all, match: [], dag: {id: d}}]
"""


def core_of(policy: Policy | None = None, engine: AsyncEngine | None = None, clock: Clock | None = None) -> Core:
    """A Core of its own metrics and bells. Without an engine it has one that nothing may connect."""
    clock = clock or ManualClock()
    held = Holder(policy or parse_policy(ANY, "policy.yaml", {}), clock.now())
    engine = engine or open_engine("postgresql://nobody@localhost:1/none")
    return Core(engine, clock, held, Metrics(), Bells(), timedelta(minutes=2))


def aftermath_of(core: Core) -> Aftermath:
    """What follows a commit, where no Redis answers."""
    redis = open_redis("redis://localhost:1", 0.2, prefix="none")
    return Aftermath(core, Memory(redis, core.metrics, ttl=60.0))
