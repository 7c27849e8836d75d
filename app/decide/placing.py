"""Where an alert belongs: its route and group by the policy in force, and the episode that goes on or begins. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.decide import episodes
from app.decide.alert import Alert
from app.decide.books import Books
from app.decide.episodes import Move
from app.decide.state import LIVE, SHADOW, Episode, group_key
from app.policy.own_alarms import is_own_alarm
from app.policy.schema import Policy, Route


@dataclass(frozen=True, slots=True)
class Intent:
    """One alert of a batch with the route and group it would go to if its fingerprint had no open episode."""

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


#: Route, mode and labels of a group.
GroupName = tuple[str, str, dict[str, str]]


@dataclass
class Placing(Books):
    """The part of a Ledger that finds the place of an alert."""

    def homes(self, episode: Episode) -> Iterator[tuple[str, GroupName]]:
        """The group of an episode, by its key, and the one that takes it over when its route has changed its mode."""
        if episode.route is None or episode.group_key is None:
            return
        route = self.policy.route(episode.route)
        for mode in (LIVE, SHADOW):
            key = group_key(episode.route, mode, episode.group_labels)
            if key == episode.group_key or (route is not None and route.mode == mode):
                yield key, (episode.route, mode, episode.group_labels)

    def _route_of(self, last: Episode | None, intent: Intent) -> Route | None:
        """An open episode keeps the route that took it, as long as the policy has that route."""
        if last is not None and last.firing and last.route is not None:
            return self.policy.route(last.route) or intent.route
        return intent.route

    def _assign(self, episode: Episode, intent: Intent, route: Route | None) -> None:
        if route is None:
            return
        if episode.group_key is None or episode.route != route.name:
            episode.route, episode.group_labels, episode.group_key = route.name, intent.labels, intent.key
            self._keep_mate(episode)
        elif self.groups[episode.group_key].mode != route.mode:
            self._start_clean(episode, group_key(route.name, route.mode, episode.group_labels))

    def _start_clean(self, episode: Episode, key: str) -> None:
        """Its route has changed its mode: in the group of the other one it is as if it had begun now."""
        self.mates.get(episode.group_key or "", {}).pop(episode.id, None)
        episode.group_key, episode.trigger_id, episode.firing_since = key, None, self.now
        episode.spent = episode.dismissed = False
        self._touch(episode)
        self._keep_mate(episode)
        group = self.groups[key]
        group.wake_at = min(self.now, group.wake_at or self.now)  # What is told of it now may decide nothing.
        self._mark(group)

    def _place(self, kind: Move, last: Episode | None, alert: Alert) -> Episode:
        if last is not None and kind is not Move.BEGIN:
            self._touch(last)
            episodes.move(kind, last, alert, self.now)
            self._keep_mate(last)
            return last
        if last is not None:
            self._touch(last)
            episodes.supersede(last, self.now)
        episode = episodes.begin(alert, self.new_id(), self.now)
        self.created[episode.id] = self.latest[alert.fingerprint] = episode
        return episode
