"""How a group fires: as a whole, with each of its alerts that fires behind one trigger. Pure."""

from dataclasses import replace

from app.decide import facts, rules
from app.decide.books import Books
from app.decide.state import SHADOW, Action, Ask, Decision, Episode, Group, NewTrigger, Reason, TriggerState
from app.policy.schema import Route


def firing(books: Books, group: Group, route: Route) -> list[Episode]:
    """The alerts of the group that may start a DAG run, the first alert first."""
    able = (m for m in books.mates_of(group.key) if facts.may_fire(m, route, books.now))
    return sorted(able, key=lambda m: (m.firing_since, m.id))


def start(
    books: Books, group: Group, route: Route, decision: Decision, ask: Ask | None, first: Episode | None = None
) -> NewTrigger:
    """Fire: a new trigger, or the held one under its id. The caller decides the alert `first`; the others are decided
    here."""
    trigger_id = group.open_trigger or books.new_id()
    earlier = books.triggers.get(trigger_id)
    is_new = earlier.is_new if earlier is not None else group.open_trigger is None
    trigger = NewTrigger(trigger_id, group, TriggerState.PENDING, decision.reason, is_new, [], decision.detail, ask)
    books.triggers[trigger_id] = trigger
    mates = (mate for mate in firing(books, group, route) if first is None or mate.id != first.id)
    others = [(mate, rules.calm(group, mate).reason) for mate in mates]
    if group.mode == SHADOW:
        trigger.state = TriggerState.CANCELLED
        trigger.detail = f"shadow mode: live it would have started the DAG {route.dag.id}; nothing was started"
        facts.rehearse(group, trigger_id, route, books.now)
    else:
        facts.fire(group, trigger_id, route.on_failure, books.now)
    if route.name in books.fires:
        books.fires[route.name].insert(0, books.now)
    books.mark(group)
    if first is not None:
        put_behind(books, first, trigger)
    for mate, reason in others:
        _join(books, mate, reason, trigger)
    return trigger


def put_behind(books: Books, episode: Episode, trigger: NewTrigger) -> None:
    """The alert stands behind a trigger that fires in this pass."""
    episode.trigger_id = trigger.id
    episode.spent = episode.spent or trigger.rehearsed
    trigger.alerts.append(episode)
    books.touch(episode)


def _join(books: Books, mate: Episode, reason: Reason, trigger: NewTrigger) -> None:
    put_behind(books, mate, trigger)
    decision = Decision(Action.FIRE, reason, None, trigger.id, "fires together with its group")
    if trigger.rehearsed:
        decision = rules.shadowed(replace(decision, detail="together with its group"), trigger.id)
    books.record(mate, decision, 1, mate.last_seen_at)
