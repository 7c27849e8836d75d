"""Where two policies differ, key by key, and policies between them that have some of the keys of the other. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel

from app.policy.language.durations import format_duration
from app.policy.schema import Policy, Route

#: Keys of a route that change no decision of a replay, which does not know whether a run helps.
_SILENT: Final = frozenset({"name", "notify", "openlineage", "lineage", "effect", "on_no_effect"})
#: Sections of a policy whose keys count as one.
_SECTIONS: Final = ("airflow", "time_intervals", "schedules")


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that the candidate changes. `route` is "" for what stands beside the routes."""

    route: str
    key: str
    now: Any
    proposed: Any

    @property
    def name(self) -> str:
        """As a report names it."""
        return f"{self.route}.{self.key}" if self.route else self.key

    def __str__(self) -> str:
        """For people: the key, and both values when they are short."""
        now, proposed = _shown(self.now), _shown(self.proposed)
        return f"{self.key} {now} → {proposed}" if now and proposed else self.key


def differences(now: Policy, proposed: Policy) -> list[Difference]:
    """Every key that may change a decision."""
    found = []
    for section in _SECTIONS:
        before, after = _meaning(now, section), _meaning(proposed, section)
        if before != after:
            found.append(Difference("", section, before, after))
    if [route.name for route in now.routes] != [route.name for route in proposed.routes]:
        found.append(Difference("", "routes", _names(now), _names(proposed)))
    for route in proposed.routes:
        earlier = now.route(route.name)
        for key in Route.model_fields if earlier is not None else ():
            before, after = getattr(earlier, key), getattr(route, key)
            if key not in _SILENT and _plain(before) != _plain(after):
                found.append(Difference(route.name, key, before, after))
    return found


def between(now: Policy, proposed: Policy, chosen: Iterable[Difference]) -> Policy:
    """The policy `now`, with only the `chosen` keys as the candidate has them."""
    keys = {(difference.route, difference.key) for difference in chosen}
    skeleton = proposed.routes if ("", "routes") in keys else now.routes
    routes = []
    for route in skeleton:
        earlier, later = now.route(route.name), proposed.route(route.name)
        if earlier is None or later is None:
            routes.append(route)
            continue
        changed = {key: getattr(later, key) for name, key in keys if name == route.name}
        routes.append(earlier.model_copy(update=changed))
    sections = {key: getattr(proposed, key) for name, key in keys if not name and key != "routes"}
    # A route may name what only one of the files has.
    intervals = {entry.name: entry for entry in (*proposed.time_intervals, *now.time_intervals)}
    intervals |= {entry.name: entry for entry in sections.get("time_intervals", ())}
    return with_sections(now, **sections | {"routes": tuple(routes), "time_intervals": tuple(intervals.values())})


def with_sections(policy: Policy, **sections: Any) -> Policy:
    """The policy with other sections. A copy would keep what the old one has computed from its routes."""
    return Policy.model_construct(**{name: getattr(policy, name) for name in Policy.model_fields} | sections)


def _meaning(policy: Policy, section: str) -> Any:
    if section == "airflow":  # Of an Airflow only this decides when a run begins.
        return {airflow.name: airflow.max_parallel for airflow in policy.airflow}
    return _plain(getattr(policy, section))


def _names(policy: Policy) -> str:
    return ", ".join(route.name for route in policy.routes)


def _plain(value: Any) -> Any:
    """A value that can be compared: matchers and models by what they mean."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, timedelta | bool | int | str | None) else str(value)


def _shown(value: Any) -> str:
    match value:
        case timedelta():
            return format_duration(value)
        case bool():
            return str(value).lower()
        case None:
            return "none"
        case str() | int():
            return str(value)
        case tuple():
            return "[" + ", ".join(str(item) for item in value) + "]"
    text = getattr(value, "id", None) or _limit(value)
    return text if isinstance(text, str) and len(text) <= 60 else ""


def _limit(value: Any) -> str:
    if hasattr(value, "triggers") and hasattr(value, "per"):
        return f"{value.triggers} per {format_duration(value.per)}"
    return ""
