"""Why a switch is in its state, and why it changed: one sentence each. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from app.deadman import rules
from app.deadman.rules import Expectation, State
from app.deadman.store import Record
from app.kit.times import at
from app.policy.deadman import Instance, Retrain
from app.policy.language.durations import format_duration


def flip(record: Record, instance: Instance, after: State, now: datetime) -> str:
    """Why the state changes."""
    expected = Expectation(instance.switch.every, instance.switch.grace)
    match after:
        case State.DOWN:
            return _down(record, instance, expected, now)
        case State.GRACE:
            return f"{expected_event(instance)} was due at {at(rules.due_at(record.facts, expected))}"
        case State.UP if record.state in (State.DOWN, State.GRACE):
            return f"up again after {span(now - record.since)} {record.state}: {record.last_event}"
        case State.UP:
            return f"the first good sign: {record.last_event}"
    return "its period starts again"


def expected_event(instance: Instance) -> str:
    """What is expected, in words."""
    expect = instance.switch.expect
    if not isinstance(expect, Retrain):
        return "its alert" if instance.switch.kind == "alert" else "a ping"
    kind = "successful run" if expect.outcome == "success" else "run"
    by = " of the gateway's" if expect.started_by == "gateway" else ""
    group = ", ".join(f"{name}={value}" for name, value in instance.labels.items())
    return f"a {kind}{by} of route {expect.retrain}" + (f" for {group}" if group else "")


def standing(record: Record, instance: Instance, expected: Expectation, now: datetime) -> str:
    """Why it is in its state at this moment, as a sentence."""
    facts = record.facts
    match record.state:
        case State.PAUSED:
            until = f", until {at(record.paused_until)}" if record.paused_until else ""
            return f"It is {record.note}{until}."
        case State.DOWN:
            return f"{_capital(_down(record, instance, expected, now))}."
        case State.GRACE:
            overdue = f"{expected_event(instance)} was due at {at(rules.due_at(facts, expected))}"
            return f"{_capital(overdue)}; it goes down at {at(rules.down_at(facts, expected))}."
    due = at(rules.due_at(facts, expected))
    if facts.last_at is None:
        return f"Nothing has arrived yet: {expected_event(instance)} is due by {due}."
    came = f"The last good sign came {span(now - facts.last_at)} ago ({record.last_event})"
    return f"{came}: {expected_event(instance)} is due by {due}."


#: What to do about a switch that is overdue or down, by what it expects.
_MISSED = {
    "retrain": "Look at why no run of its group does what is expected. Start a run if the model cannot wait.",
    "alert": "Find out why its alert no longer comes. Its monitor, or the way from there to the gateway, does not work, "
    "so other alerts may be lost too.",
    "ping": "Look at the job that should ping it, and at the way from there to the gateway.",
}


def next_step(switch: Mapping[str, Any]) -> str:
    """What a person should do about a switch, as the API shows it."""
    if switch["kind"] not in _MISSED:
        return "Nothing. It goes away by itself."
    if switch["state"] in (State.GRACE, State.DOWN):
        return _MISSED[switch["kind"]]
    if switch["state"] == State.PAUSED:
        return "Nothing, unless it should count again: `trigger-gateway deadman resume` ends the pause."
    return "Nothing. It sends a notice when what it expects does not come in time."


def _down(record: Record, instance: Instance, expected: Expectation, now: datetime) -> str:
    facts, grace = record.facts, format_duration(expected.grace)
    if facts.failed_at is not None:
        return f"a failure was reported at {at(facts.failed_at)}"
    due = rules.due_at(facts, expected)
    overrun = min(facts.starts.values(), default=None) if expected.grace else None
    if overrun is not None and overrun < due:
        return f"a run that began at {at(overrun)} has not ended within {grace}"
    since = facts.last_at
    if since is None or since < facts.counts_from:
        return f"no {_bare(instance)} in the {span(now - facts.counts_from)} since it began to count: due at {at(due)}"
    return f"no {_bare(instance)} for {span(now - since)}: due at {at(due)}, down after a grace of {grace}"


def _bare(instance: Instance) -> str:
    return expected_event(instance).removeprefix("a ").removeprefix("its ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def span(time: timedelta) -> str:
    """A time in its two largest units, such as 8d9h."""
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    rest, parts = max(0, int(time.total_seconds())), list[str]()
    for unit, seconds in units:
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
