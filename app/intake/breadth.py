"""How many groups one request may name: whoever sends alerts invents their labels, and each group has a row. Pure."""

from dataclasses import replace
from typing import Final

from app.decide.alert import Bad, Parsed
from app.policy.schema import Policy

#: Firing alerts of further groups are quarantined, each alone. A sender with more groups sends several requests.
MOST_GROUPS: Final = 1000


def bounded(parsed: Parsed, policy: Policy, most: int = MOST_GROUPS) -> Parsed:
    """The same body, without the firing alerts of groups after the first `most`."""
    if len(parsed.alerts) <= most:
        return parsed
    seen: set[tuple[str, ...]] = set()
    kept, left = [], []
    for alert, place in zip(parsed.alerts, parsed.order, strict=True):
        route = policy.route_for(alert.labels) if alert.firing else None
        group = (route.name, *route.group(alert.labels).values()) if route is not None else None
        if group is None or group in seen or len(seen) < most:
            seen |= {group} if group is not None else set()
            kept.append((alert, place))
        else:
            error = f"this request names more than {most} groups of alerts: send fewer at a time"
            left.append(Bad(place, alert.alert_id, error, parsed.sent(place)))
    bad = sorted([*parsed.bad, *left], key=lambda each: each.index)
    return replace(parsed, alerts=[alert for alert, _ in kept], order=[place for _, place in kept], bad=bad)
