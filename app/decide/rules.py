"""Does this alert start a DAG run? Pure: facts, policy and one `now` go in, an action with its reason comes out.

A decision says no with the first reason that holds of: no_route, resolved, duplicate, joined, in_flight, cooldown,
ineffective, limit, muted, unconfirmed, shadow. The ledger finds no_route, resolved and shadow; the others are found here. An
alert is a duplicate when it stands behind the trigger that is in the way. Without a no, the alert holds (debouncing) or
fires (new_alert, still_firing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.decide import facts
from app.decide.facts import backing_off, clear_at, held_until, is_spent, redrive_at
from app.decide.state import DEAD, SHADOW, Action, Confirmation, Decision, Episode, Group, Reason, RunRequest
from app.kit.times import at
from app.policy.intervals import end_of
from app.policy.language.durations import format_duration
from app.policy.schema import Policy, Route

#: If Prometheus does not confirm an alert, it is asked again after this time, as long as the alert fires.
ASK_AGAIN = timedelta(minutes=5)

_FIRE, _HOLD, _SUPPRESS = Action.FIRE, Action.HOLD, Action.SUPPRESS


#: As the name of a route: every route.
EVERY_ROUTE = "-"


@dataclass(frozen=True, slots=True)
class Pause:
    """A person mutes a route, or every route, until a time. None: until somebody lifts it."""

    route: str
    until: datetime | None
    reason: str
    by: str
    at: datetime

    def is_in_force(self, now: datetime) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Mute:
    """What mutes a route, in words, and until when. None: no end is known."""

    by: str
    until: datetime | None

    def __str__(self) -> str:
        """For people."""
        end = f"muted until {at(self.until)}" if self.until else "muted, without a known end"
        return f"{end}: {self.by}"


def mute_of(policy: Policy, route: Route, pauses: Mapping[str, Pause], now: datetime) -> Mute | None:
    """What mutes the route now. If several things mute it one after the other, `until` is the end of the last one."""
    paused = [p for name in (route.name, EVERY_ROUTE) if (p := pauses.get(name)) is not None]
    named = policy.mutes(route)
    if not paused and not named:
        return None
    by = next((f"{p.by} has paused it: {p.reason}" for p in paused if p.is_in_force(now)), None)
    if by is None:
        by = next((f"the time interval {name!r} holds" for name, i in named if i.contains(now)), None)
    if by is None:
        return None
    intervals = tuple(interval for _, interval in named)
    until: datetime | None = now
    while until is not None:
        later = end_of(intervals, until)
        for pause in paused:
            if later is not None and pause.is_in_force(later):
                later = pause.until
        if later == until:
            break
        until = later
    return Mute(by, until)


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What may stand in the way of a route: its newest fires if it has a limit, what mutes it, and the answer of
    Prometheus (None: it was not asked)."""

    fires: Sequence[datetime] = ()
    mute: Mute | None = None
    answer: Confirmation | None = None


FREE = Obstacles()


def decide(group: Group, episode: Episode, route: Route, now: datetime, obstacles: Obstacles = FREE) -> Decision:
    """What to do about a firing episode. FIRE and HOLD without a trigger_id ask for a new trigger."""
    if episode.dismissed:
        detail = "a person cancelled its held trigger; it counts again when it fires anew"
        return Decision(Action.CANCEL, Reason.BY_REQUEST, None, None, detail)
    if is_spent(episode, route):
        return Decision(
            _SUPPRESS, Reason.DUPLICATE, None, episode.trigger_id, "it has had its retrain, and refire is off"
        )
    held = group.held
    if held and now < (due := held_until(group, route)):
        if episode.trigger_id == group.open_trigger:
            return Decision(_SUPPRESS, Reason.DUPLICATE, due, group.open_trigger, f"already held until {at(due)}")
        return Decision(_HOLD, Reason.JOINED, due, group.open_trigger, f"joins the group held until {at(due)}")
    if group.open_trigger is not None and not held:
        if episode.trigger_id == group.open_trigger:
            return Decision(_SUPPRESS, Reason.DUPLICATE, None, group.open_trigger, "its trigger is already under way")
        return Decision(
            _SUPPRESS, Reason.IN_FLIGHT, None, group.open_trigger, "another trigger of this group is under way"
        )
    clear = clear_at(group, route)
    if clear is not None and now < clear:
        return _cooling(group, episode, clear)
    if (hopeless := ineffective(group, route)) is not None:
        return hopeless
    if (full := limited(route, obstacles.fires, now)) is not None:
        return full
    if obstacles.mute is not None:
        return _muted(obstacles.mute)
    if route.confirm is not None and (unconfirmed := _unconfirmed(group, obstacles.answer, now)) is not None:
        return unconfirmed
    return _clear(group, episode, route, now, obstacles.answer)


def _cooling(group: Group, episode: Episode, clear: datetime) -> Decision:
    if backing_off(group):
        run = "trigger died" if group.outcome == DEAD else f"DAG run ended as {group.outcome}"
        detail = f"the {run}, failure {group.failures} in a row: next not before {at(clear)}"
        return Decision(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)
    if episode.trigger_id is not None and episode.trigger_id == group.last_trigger:
        detail = f"its trigger {_has(group)} fired; the group cools down until {at(clear)}"
        return Decision(_SUPPRESS, Reason.DUPLICATE, clear, group.last_trigger, detail)
    detail = f"the group {_has(group)} fired and cools down until {at(clear)}"
    return Decision(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)


def _has(group: Group) -> str:
    return "would have" if group.mode == SHADOW else "has"


def _unconfirmed(group: Group, answer: Confirmation | None, now: datetime) -> Decision | None:
    if answer is not None:
        if answer.confirmed:
            return None
        return Decision(_SUPPRESS, Reason.UNCONFIRMED, now + ASK_AGAIN, None, answer.detail)
    again = group.unconfirmed_at + ASK_AGAIN if group.unconfirmed_at is not None else None
    if again is None or now >= again:
        return None
    return Decision(
        _SUPPRESS, Reason.UNCONFIRMED, again, None, f"not confirmed by Prometheus; asked again at {at(again)}"
    )


def _asking(group: Group, episode: Episode, now: datetime) -> Decision:
    """Only the answer of Prometheus is missing: the group is held, and due, until a wake has asked."""
    if not group.held:
        return Decision(_HOLD, Reason.DEBOUNCING, now, None, "held until Prometheus has been asked")
    if episode.trigger_id == group.open_trigger:
        return Decision(
            _SUPPRESS, Reason.DUPLICATE, now, group.open_trigger, "already held until Prometheus has been asked"
        )
    return Decision(
        _HOLD, Reason.JOINED, now, group.open_trigger, "joins the group held until Prometheus has been asked"
    )


def _clear(group: Group, episode: Episode, route: Route, now: datetime, answer: Confirmation | None) -> Decision:
    """Nothing stands in the way: fire, or wait for calm first."""
    due = episode.firing_since + route.debounce
    if not group.held and now < due:
        return debouncing(due)
    if route.confirm is not None and answer is None:
        return _asking(group, episode, now)
    return fire_for(group, episode)


def fire_for(group: Group, episode: Episode) -> Decision:
    """Fire: the debounce is over, by this alert or by another one of its group."""
    # An alert from before the last fire has been held since then, to be confirmed.
    fired_before = group.fired_at is not None and episode.firing_since <= group.fired_at
    if episode.trigger_id is not None and (episode.trigger_id != group.open_trigger or fired_before):
        detail = "the alert still fires after its cooldown"
        return Decision(_FIRE, Reason.STILL_FIRING, None, group.open_trigger, detail)
    return Decision(_FIRE, Reason.NEW_ALERT, None, group.open_trigger, "a new alert fires")


def ineffective(group: Group, route: Route) -> Decision | None:
    """The refusal of a group whose newest retrains did not help; None: it may fire. A person, a quiet `watch`, a
    late `fixed` or another entry of the policy ends it, no time does."""
    if not facts.is_ineffective(group, route):
        return None
    return Decision(_SUPPRESS, Reason.INEFFECTIVE, None, group.last_trigger, in_vain(group))


def in_vain(group: Group) -> str:
    """How many retrains did not help, and since when."""
    since = group.ineffective_since
    day = f" since {since.day} {since:%b}" if since is not None else ""
    retrains = f"{group.ineffective} retrain{'s' if group.ineffective > 1 else ''}{day}"
    return f"{retrains} did not end it: look at the data"


def limited(route: Route, fires: Sequence[datetime], now: datetime) -> Decision | None:
    """The refusal of a route whose limit is used up, until the oldest fire that counts is old enough; None: there is
    room."""
    limit = route.limit
    if limit is None or len(fires) < limit.triggers or now >= (leaves := fires[limit.triggers - 1] + limit.per):
        return None
    per = format_duration(limit.per)
    detail = f"the route has fired {limit.triggers} times in {per}, its limit: next not before {at(leaves)}"
    return Decision(_SUPPRESS, Reason.LIMIT, leaves, None, detail)


def _muted(mute: Mute) -> Decision:
    return Decision(_SUPPRESS, Reason.MUTED, mute.until, None, str(mute))


def decide_request(
    group: Group, route: Route, request: RunRequest, now: datetime, obstacles: Obstacles = FREE
) -> Decision:
    """What to do about a request. It needs no calm and no alert. It obeys a run in flight, cooldown, `ineffective` and
    limit, and takes a held group over. A forced one overrides all of them but a run in flight. A mute stops a
    schedule, not a person."""
    if group.open_trigger is not None and not group.held:
        return Decision(
            _SUPPRESS, Reason.IN_FLIGHT, None, group.open_trigger, "another trigger of this group is under way"
        )
    clear = clear_at(group, route)
    if clear is not None and now < clear and not request.force:
        detail = f"the group {_has(group)} fired and cools down until {at(clear)}"
        if backing_off(group):
            detail = f"failure {group.failures} in a row: next not before {at(clear)}"
        return Decision(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)
    full = ineffective(group, route) or limited(route, obstacles.fires, now)
    if full is not None and not request.force:
        return full
    if obstacles.mute is not None and request.reason is Reason.SCHEDULED:
        return _muted(obstacles.mute)
    return Decision(_FIRE, request.reason, None, group.open_trigger, f"asked for by {request.by}: {request.why}")


def refuse_redrive(
    group: Group, trigger_id: UUID, route: Route | None, fires: Sequence[datetime], now: datetime
) -> Decision | None:
    """What keeps a dead trigger from firing again; None: nothing does. It passes its group and its route's limit like a
    fire. A route that left the policy sets no conditions."""
    if group.open_trigger is not None:
        detail = "its group has another open trigger"
        return Decision(_SUPPRESS, Reason.IN_FLIGHT, None, group.open_trigger, detail)
    if route is None:
        return None
    until = redrive_at(group, trigger_id, route, now)
    if until is not None:
        detail = "a newer trigger of its group cools down or backs off; reset the group to redrive this one"
        return Decision(_SUPPRESS, Reason.COOLDOWN, until, group.last_trigger, detail)
    return ineffective(group, route) or limited(route, fires, now)


def debouncing(due: datetime) -> Decision:
    """Hold until `due`, in a new trigger."""
    return Decision(_HOLD, Reason.DEBOUNCING, due, None, f"held until {at(due)} to see whether it lasts")


def shadowed(decision: Decision, trigger_id: UUID | None = None) -> Decision:
    """The decision that stands for a fire in shadow mode."""
    return Decision(
        _SUPPRESS, Reason.SHADOW, None, trigger_id, f"in shadow mode; live it would fire: {decision.detail}"
    )
