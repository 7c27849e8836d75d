"""The metrics of a model version beside those of the version that held the alias before it. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from app.promotion.model import Version

#: How many metrics are kept, and how many a sentence names.
KEPT: Final = 50
NAMED: Final = 10

#: By the name of the metric: `{"version": 0.9, "before": 0.8}`. None: the version before had none.
Metrics = Mapping[str, Mapping[str, float | None]]


def beside(version: Version, before: Version | None, first: Iterable[str] = ()) -> dict[str, dict[str, float | None]]:
    """The metrics of a version that are numbers, those of `first` before the others."""
    names = [name for name in dict.fromkeys([*first, *sorted(version.metrics)]) if _number(version, name) is not None]
    return {name: {"version": _number(version, name), "before": _number(before, name)} for name in names[:KEPT]}


def _number(version: Version | None, name: str) -> float | None:
    found = version.metrics.get(name) if version is not None else None
    return found if found is not None and math.isfinite(found) else None


def in_words(metrics: Metrics, before: str | None) -> str:
    """The metrics in one line; "" when there are none. `before`: the version that held the alias before."""
    shown = [f"{name[:60]} {pair['version']:.6g}{_old(pair['before'], before)}" for name, pair in metrics.items()]
    more = [f"{len(shown) - NAMED} more"] if len(shown) > NAMED else []
    return ", ".join(shown[:NAMED] + more)


def _old(value: float | None, before: str | None) -> str:
    return f" (version {before}: {value:.6g})" if before is not None and value is not None else ""
