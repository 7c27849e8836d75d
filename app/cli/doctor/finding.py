"""One line of the doctor's answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warn", "fail"]
_ORDER: Final[tuple[Level, ...]] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, how it is, and what to do. `next_step` is empty when there is nothing to do."""

    check: str
    level: Level
    detail: str
    next_step: str = ""


def good(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", detail)


def warn(check: str, detail: str, next_step: str) -> Finding:
    """It works, but not as well as it could; or it could not be checked."""
    return Finding(check, "warn", detail, next_step)


def fail(check: str, detail: str, next_step: str) -> Finding:
    """Alerts would be lost, or DAG runs would not start as the policy says."""
    return Finding(check, "fail", detail, next_step)


def worst(findings: Iterable[Finding]) -> Level:
    """The level of all findings together: the worst of them."""
    return max((finding.level for finding in findings), key=_ORDER.index, default="ok")
