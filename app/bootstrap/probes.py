"""What the probes ask, each kept for a few seconds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.bootstrap.base import Base
from app.deadman import probe
from app.once import Once

Findings = dict[str, str]  # "ok", or what is wrong, by what was looked at


@dataclass(frozen=True, slots=True)
class Probes:
    """One look for all who ask within `GATEWAY_PROBE_CACHE` seconds."""

    deadman: Callable[[], Awaitable[Findings]]


def probes(base: Base) -> Probes:
    """The probes of /health."""
    keep = base.settings.probe_cache
    return Probes(deadman=Once(lambda: probe.look(base.engine, base.current(), base.clock), base.clock, keep).get)
