"""What a switch says for itself: one sentence a change of state. Pure."""

from datetime import datetime, timedelta

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
            return f"{awaited(instance)} was due at {at(rules.due_at(record.facts, expected))}"
        case State.UP if record.state in (State.DOWN, State.GRACE):
            return f"heard of again: {record.last_event}, {span(now - record.since)} after it was {record.state}"
        case State.UP:
            return f"heard of: {record.last_event}"
    return "counts anew"


def awaited(instance: Instance) -> str:
    """What is expected, in words."""
    expect = instance.switch.expect
    if not isinstance(expect, Retrain):
        return "its alert" if instance.switch.kind == "alert" else "a ping"
    kind = "successful run" if expect.outcome == "success" else "run"
    by = " of the gateway's" if expect.started_by == "gateway" else ""
    group = ", ".join(f"{name}={value}" for name, value in instance.labels.items())
    return f"a {kind}{by} of route {expect.retrain}" + (f" for {group}" if group else "")


def standing(record: Record, instance: Instance, expected: Expectation, now: datetime) -> str:
    """How it stands at this moment, as a sentence."""
    facts = record.facts
    match record.state:
        case State.PAUSED:
            until = f", until {at(record.paused_until)}" if record.paused_until else ""
            return f"It is {record.note}{until}."
        case State.DOWN:
            return f"{_capital(_down(record, instance, expected, now))}."
        case State.GRACE:
            told = f"{awaited(instance)} was due at {at(rules.due_at(facts, expected))}"
            return f"{_capital(told)}; it is down at {at(rules.down_at(facts, expected))}."
    due = at(rules.due_at(facts, expected))
    if facts.last_at is None:
        return f"Nothing was heard of it yet: {awaited(instance)} is due by {due}."
    return f"Last heard of {span(now - facts.last_at)} ago ({record.last_event}): {awaited(instance)} is due by {due}."


def _down(record: Record, instance: Instance, expected: Expectation, now: datetime) -> str:
    facts, grace = record.facts, format_duration(expected.grace)
    if facts.failed_at is not None:
        return f"said at {at(facts.failed_at)} that it failed"
    due = rules.due_at(facts, expected)
    overrun = min(facts.starts.values(), default=None) if expected.grace else None
    if overrun is not None and overrun < due:
        return f"a run that began at {at(overrun)} has not ended within {grace}"
    since = facts.last_at
    if since is None or since < facts.counts_from:
        return f"no {_bare(instance)} in the {span(now - facts.counts_from)} since it counts: due at {at(due)}"
    return f"no {_bare(instance)} for {span(now - since)}: due at {at(due)}, given up after a grace of {grace}"


def _bare(instance: Instance) -> str:
    return awaited(instance).removeprefix("a ").removeprefix("its ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def span(time: timedelta) -> str:
    """A time as people say it: its two largest units."""
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    rest, parts = max(0, int(time.total_seconds())), list[str]()
    for unit, seconds in units:
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
