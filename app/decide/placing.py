"""Where an alert belongs: its route and group by the policy in force, and the episode that goes on or begins. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from app.decide import episodes, facts
from app.decide.alert import Alert
from app.decide.books import Books
from app.decide.episodes import Move
from app.decide.state import LIVE, SHADOW, Episode, group_key
from app.policy.own_alarms import is_own_alarm
from app.policy.schema import Policy, Route

#: Route, mode and labels of a group.
GroupName = tuple[str, str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Intent:
    """One alert of a batch, with the route and group that it gets if its fingerprint has no open episode."""

    alert: Alert
    route: Route | None
    labels: dict[str, str]
    key: str | None  # of the group; None without a route


def intend(alert: Alert, policy: Policy) -> Intent:
    """Route and group of a new alert by the policy in force."""
    route = policy.route_for(alert.labels)
    if route is None:
        return Intent(alert, None, {}, None)
    labels = route.group(alert.labels)
    return Intent(alert, route, labels, group_key(route.name, route.mode, labels))


def no_route(labels: Mapping[str, str]) -> str:
    """Why no route of the policy takes an alert."""
    return (
        "no route takes a gateway's own alarm" if is_own_alarm(labels) else "no route of the policy matches its labels"
    )


# -- which groups a pass needs ----------------------------------------------------------------------------------------


def groups_of(intents: Iterable[Intent]) -> dict[str, GroupName]:
    """The groups that alerts of a batch go to, by key."""
    known = ((i.key, i.route, i.labels) for i in intents)
    return {key: (r.name, r.mode, labels) for key, r, labels in known if key is not None and r is not None}


def missing(books: Books) -> dict[str, GroupName]:
    """The groups that episodes in the books need and the books do not have. An open episode keeps the group that took
    it, which need not be the one that the policy in force gives it."""
    away = (episode for episode in books.latest.values() if not _is_at_home(episode, books))
    needed = (group for episode in away for group in _homes(episode, books.policy))
    return {key: name for key, name in needed if key not in books.groups}


def _is_at_home(episode: Episode, books: Books) -> bool:
    """Whether the books have the only group that this episode needs, as they nearly always do."""
    group, route = books.groups.get(episode.group_key or ""), books.policy.route(episode.route or "")
    return group is not None and (route is None or route.mode == group.mode)


def deciding(books: Books) -> list[str]:
    """The groups that this pass may decide as a whole, so that it needs all their alerts."""
    groups = books.groups.values()
    return [g.key for g in groups if facts.may_act(g, books.policy.route(g.route), books.now)]


def _homes(episode: Episode, policy: Policy) -> Iterator[tuple[str, GroupName]]:
    """The group of an episode, and the group that takes it over when its route has changed its mode."""
    if episode.route is None or episode.group_key is None:
        return
    route = policy.route(episode.route)
    for mode in (LIVE, SHADOW):
        key = group_key(episode.route, mode, episode.group_labels)
        if key == episode.group_key or (route is not None and route.mode == mode):
            yield key, (episode.route, mode, episode.group_labels)


def successor(name: str, mode: str, labels: dict[str, str], policy: Policy) -> tuple[str, GroupName] | None:
    """The group that takes over the alerts of the group with this route, mode and labels; None unless the route has
    changed its mode."""
    route = policy.route(name)
    if route is None or route.mode == mode:
        return None
    return group_key(name, route.mode, labels), (name, route.mode, labels)


# -- one alert --------------------------------------------------------------------------------------------------------


def place(books: Books, intent: Intent, reorder: timedelta) -> tuple[Move, Episode, Route | None]:
    """Take one notification into the history: what it does to the episode of its fingerprint, that episode, and its
    route."""
    alert = intent.alert
    last = books.latest.get(alert.fingerprint)
    route = _route_of(last, intent, books.policy)
    window = episodes.Window(reorder, route.stale_after if route else None)
    kind = episodes.move_for(last, alert, window, books.now)
    if kind is Move.BEGIN:
        route = intent.route
    episode = _move(books, kind, last, alert)
    if route is not None:
        _assign(books, episode, intent, route)
    return kind, episode, route


def _route_of(last: Episode | None, intent: Intent, policy: Policy) -> Route | None:
    """An open episode keeps the route that took it, as long as the policy has that route."""
    if last is not None and last.firing and last.route is not None:
        return policy.route(last.route) or intent.route
    return intent.route


def _move(books: Books, kind: Move, last: Episode | None, alert: Alert) -> Episode:
    if last is not None and kind is not Move.BEGIN:
        books.touch(last)
        episodes.move(kind, last, alert, books.now)
        books.keep_mate(last)
        return last
    if last is not None:
        books.touch(last)
        episodes.supersede(last, books.now)
    episode = episodes.begin(alert, books.new_id(), books.now)
    books.begin(episode)
    return episode


def _assign(books: Books, episode: Episode, intent: Intent, route: Route) -> None:
    if episode.group_key is None or episode.route != route.name:
        episode.route, episode.group_labels, episode.group_key = route.name, intent.labels, intent.key
        books.keep_mate(episode)
    elif books.groups[episode.group_key].mode != route.mode:
        start_clean(books, episode, group_key(route.name, route.mode, episode.group_labels))


def start_clean(books: Books, episode: Episode, key: str) -> None:
    """The route of an episode has changed its mode. In the group of the new mode the episode begins now."""
    books.mates.get(episode.group_key or "", {}).pop(episode.id, None)
    episode.group_key, episode.trigger_id, episode.firing_since = key, None, books.now
    episode.spent = episode.dismissed = False
    books.touch(episode)
    books.keep_mate(episode)
    group = books.groups[key]
    # The notification that brings it here may decide nothing, so the group must be looked at.
    group.wake_at = min(books.now, group.wake_at or books.now)
    books.mark(group)
