"""What a backtest is asked: times as people write them, and policies and routes by their names. Pure."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from app.explain.queries import in_utc
from app.kit.errors import UsageError
from app.policy.language.durations import parse_duration
from app.policy.schema import Policy
from app.policy.sources import Source
from app.replay.history import History

#: The form of a policy's hash.
HASH = re.compile("[0-9a-f]{12}")

#: How whoever asks writes the name of a parameter: each error names it so.
Naming = Callable[[str], str]


def as_option(name: str) -> str:
    """As an option of the command line."""
    return f"--{name}"


def as_key(name: str) -> str:
    """As a key of the JSON of a request."""
    return f"`{name}`"


def moment_of(text: str) -> timedelta | datetime:
    """How long before now, or a time: RFC 3339, and UTC without an offset. Raises ValueError."""
    try:
        return parse_duration(text)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a duration such as 90d, or a time such as 2026-11-02T00:00Z") from None
    return in_utc(time) if time.tzinfo else time.replace(tzinfo=UTC)


def before(moment: timedelta | datetime, now: datetime) -> datetime:
    """The time that `moment_of` has read."""
    return now - moment if isinstance(moment, timedelta) else moment


def sources_of(*policies: Policy | None) -> dict[str, Source]:
    """The sources of the policies by name. The first policy that names one decides."""
    return {source.name: source for policy in reversed(policies) if policy is not None for source in policy.sources}


def recorded_policy(history: History, compare: str, naming: Naming = as_option) -> Policy:
    """The policy with this hash; for `live` the first one, over which the later ones come into force."""
    known = [each.policy for each in history.policies]
    if not known:
        raise UsageError(f"the history names no policy that was in force: give another policy as {naming('compare')}")
    found = [policy for policy in known if compare in ("live", policy.hash)]
    if not found:
        hashes = ", ".join(dict.fromkeys(policy.hash for policy in known))
        raise UsageError(f"{naming('compare')} {compare}: no policy of the history has this hash. It has {hashes}")
    return found[0]


def known_route(name: str | None, *policies: Policy | None, naming: Naming = as_option) -> str | None:
    """The name, which a policy must have. None: every route."""
    if name is not None and not any(policy.route(name) for policy in policies if policy is not None):
        raise UsageError(f"{naming('route')} {name}: no policy here has this route")
    return name
