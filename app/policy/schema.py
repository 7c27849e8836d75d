"""The policy as the rest of the gateway sees it: frozen, complete, with every default filled in.

`app.policy.file.load` builds it, and reports each error with its line.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, InstanceOf, JsonValue

from app.policy.confirm import Confirm
from app.policy.deadman import Instance, Switch, heartbeats_of
from app.policy.file.problems import Problem
from app.policy.intervals import Interval, TimeInterval
from app.policy.language.index import MatcherIndex
from app.policy.lineage import Lineage
from app.policy.mlflow import Mlflow
from app.policy.own_alarms import is_own_alarm
from app.policy.promotions import Probation, Promotion
from app.policy.receivers import NEWS, NO_EFFECT, Notify, Receiver, ReceiverNames, RouteNotify
from app.policy.schedules import Schedule
from app.policy.sources import Source
from app.policy.values import (
    Duration,
    Frozen,
    MatcherValue,
    Name,
    PositiveDuration,
    ServerWithLogin,
    Text,
    Url,
    choice,
)


def _read_group_by(value: tuple[str, ...]) -> tuple[str, ...]:
    if "..." in value:
        raise ValueError("... (every label) would make a group of every alert; name the labels")
    if len(set(value)) < len(value):
        raise ValueError("a label is here twice")
    return value


class Airflow(ServerWithLogin):
    """The Airflows that the gateway may start DAG runs in. At least one is required."""

    _later: ClassVar[frozenset[str]] = frozenset({"headers", "ca_file"})

    name: Text
    """What `dag.airflow` of a route calls this Airflow."""
    url: Url
    """Its address. It may end in a path when Airflow is served below a path."""
    api: Annotated[Literal["v2", "v1"], choice("v2", "v1")] = "v2"
    """`v2` for Airflow 3, `v1` for Airflow 2."""
    max_parallel: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many DAG runs of the gateway may be open at once. More triggers wait as `pending`, the oldest first.
    Without it there is no cap."""


class Dag(Frozen):
    """What a route starts. Placeholders are in app.policy.language.templates."""

    airflow: Text = "default"
    """The entry of `airflow` that has the DAG. With a single Airflow, that one is the default."""
    id: Text
    """The DAG to start. It may hold `{{group.label}}`."""
    conf: dict[str, JsonValue] = Field(default_factory=dict)
    """What the DAG run gets as `conf`, beside the gateway's own key `gateway`. Its strings may hold
    `{{group.label}}`."""


class Limit(Frozen):
    """At most so many triggers of a route in a sliding time, whatever their groups."""

    triggers: Annotated[int, Field(ge=1, le=100_000)]
    """How many triggers may fire in that time."""
    per: PositiveDuration
    """How long the sliding time is."""


class EffectTerms(Frozen):
    """When the gateway judges whether a retrain ended what started it. The time counts from the promotion, or from the
    end of the DAG run where no gate promotes."""

    settle: PositiveDuration = timedelta(hours=6)
    """How long the alerts behind the trigger may still fire after the new model. An alert that goes stale has not
    ended."""
    watch: PositiveDuration = timedelta(days=7)
    """How long no alert of the group may begin after the new model."""


class OnNoEffect(Frozen):
    """What follows when retrains of a group do not help."""

    after: Annotated[int, Field(ge=1, le=100_000)] = 3
    """After how many retrains in a row without effect. One that failed, or whose effect is unknown, does not
    count."""
    then: Annotated[Literal["tell", "hold"], choice("tell", "hold")] = "tell"
    """`tell` sends a notice, and the group goes on. `hold` sends it too, and the group fires no more until it is
    released."""
    receivers: ReceiverNames | None = None
    """Who gets the notice. Without it: as `notify.no_effect` says."""


class Defaults(Frozen):
    """What a route may leave out. The top-level `defaults:` changes these values."""

    group_by: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_read_group_by)] = ()
    """The labels that make a group. Each group has its own debounce, cooldown and run. Without a label the whole
    route is one group."""
    debounce: Duration = timedelta(0)
    """How long the gateway waits before it fires, counted from the group's first alert. When every alert resolves
    meanwhile, nothing fires. Choose more than Alertmanager's `group_interval` (5m), or the end of an alert arrives
    too late."""
    cooldown: Duration = timedelta(hours=24)
    """How long no new trigger of the group fires after one has fired."""
    refire: bool = True
    """Whether an alert that still fires after the cooldown may start the next trigger."""
    on_failure: Annotated[Literal["release", "keep"], choice("release", "keep")] = "release"
    """What a failed DAG run does to the cooldown: `release` ends it early, `keep` does not."""
    failure_backoff: Duration = timedelta(minutes=30)
    """How long a failed group waits before the next trigger. It doubles with each failure in a row, up to the
    cooldown."""
    run_timeout: PositiveDuration = timedelta(hours=24)
    """How long a DAG run may take. A run that is still open then counts as lost, and as failed."""
    stale_after: PositiveDuration = timedelta(hours=6)
    """How long an alert stays valid without a new notification. After that it no longer fires."""
    limit: Limit | None = None
    """A limit for the whole route, whatever the groups. `init` writes 100 a day. `check` warns when a route with
    `group_by` has none: labels come from whoever may send alerts."""
    mute: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Names of `time_intervals`. While one of them holds, nothing fires. The gateway decides again when it ends."""
    confirm: Confirm | None = None
    """A question to Prometheus before each fire. Requests of people and schedules are not confirmed."""
    mode: Annotated[Literal["live", "shadow"], choice("live", "shadow")] = "live"
    """`shadow` decides and records everything, and starts nothing. Use it to try a route."""
    effect: EffectTerms = EffectTerms()
    """When the gateway judges whether a retrain of this route helped."""
    on_no_effect: OnNoEffect = OnNoEffect()
    """What follows when retrains of a group do not help."""
    notify: RouteNotify | None = None
    """Receivers by event for this route. An event without a list follows the top-level `notify`."""
    openlineage: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The namespace of the route's job in OpenLineage. The trigger becomes the parent run in Airflow's events.
    Without it the DAG run gets no parent."""


class Route(Defaults):
    """The ways from alerts to DAGs. The first route that matches an alert takes it."""

    name: Name
    """Lower-case letters, digits, `_` and `-`, at most 63."""
    match: Annotated[tuple[MatcherValue, ...], Field(strict=False)]
    """Alertmanager's matchers. All of them must hold. `[]` takes every alert."""
    dag: Dag
    """The DAG that the route starts."""
    lineage: bool = True
    """Whether a DAG run of this route must leave a run in MLflow. Say `false` for a DAG that trains nothing."""

    @cached_property
    def digest(self) -> str:
        """Changes with the meaning of the entry, except of `notify`. Secrets do not count."""
        meant = self.model_dump(mode="json", exclude={"notify"})
        return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()[:12]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether this route would take an alert with these labels, if it were the only route."""
        return all(matcher.matches(labels) for matcher in self.match)

    def group(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The group of an alert: exactly the labels of `group_by`, in that order. A label that the alert lacks is ""."""
        return {name: labels.get(name, "") for name in self.group_by}


class Policy(Frozen):
    """A whole policy file. `hash`: 12 hex characters without a secret; files of the same meaning have the same hash."""

    version: Literal[1]
    """The version of this format."""
    airflow: tuple[Airflow, ...]
    """The Airflows that run the DAGs."""
    routes: tuple[Route, ...]
    """Which alerts start which DAG, and how often."""
    mlflow: Mlflow | None = None
    """The MLflow server."""
    time_intervals: tuple[TimeInterval, ...] = ()
    """Times in which routes are muted."""
    promotions: tuple[Promotion, ...] = ()
    """What a model version needs for an alias."""
    receivers: tuple[Receiver, ...] = ()
    """Where notices go."""
    notify: Notify | None = None
    """Which receiver gets which event."""
    lineage: Lineage = Lineage()
    """The walk over MLflow that looks for missing lineage."""
    schedules: tuple[Schedule, ...] = ()
    """DAG runs by the clock."""
    sources: tuple[Source, ...] = ()
    """Other monitors, and how to read their alerts."""
    deadman: tuple[Switch, ...] = ()
    """What must happen regularly, and who gets a notice when it does not."""
    hash: str
    warnings: tuple[InstanceOf[Problem], ...] = ()
    text: str = Field("", repr=False)  # of the file, without its secrets

    def route_for(self, labels: Mapping[str, str]) -> Route | None:
        """The first route that takes an alert with these labels; None when no route does, or for a gateway's own alarm."""
        if is_own_alarm(labels):
            return None
        for at in self._route_index.candidates(labels):
            route = self.routes[at]
            for matcher in route.match:
                if not matcher.matches(labels):
                    break
            else:
                return route
        return None

    def heartbeats_for(self, labels: Mapping[str, str]) -> list[Instance]:
        """The switches for which an alert with these labels is a heartbeat."""
        return heartbeats_of([self.heartbeats[at] for at in self._heartbeat_index.candidates(labels)], labels)

    def route(self, name: str) -> Route | None:
        """The route of this name."""
        return self._routes_by_name.get(name)

    def promotion(self, model: str, to: str) -> Promotion | None:
        """The first entry for this model and this alias."""
        return next((entry for entry in self.promotions if entry.to == to and entry.takes(model)), None)

    def aliases(self, model: str) -> tuple[str, ...]:
        """Every alias that a version of this model may be promoted to, in the order of the file."""
        return tuple(dict.fromkeys(entry.to for entry in self.promotions if entry.takes(model)))

    def gates(self, model: str) -> frozenset[str]:
        """The aliases that the gate gives to a version of this model for use, in MLflow. An alias that another entry only
        requires is a step on the way, and an entry in shadow mode gives nothing."""
        entries = [e for e in self.promotions if e.registry == "mlflow" and e.mode == "live" and e.takes(model)]
        return frozenset(e.to for e in entries) - {e.requires for e in entries if e.requires}

    def probation(self, registry: str, model: str, to: str) -> Probation | None:
        """How a version is watched that the gate gave this alias; None: it is not."""
        entry = self.promotion(model, to)
        return entry.probation if entry is not None and (entry.registry, entry.mode) == (registry, "live") else None

    def source(self, name: str) -> Source | None:
        """The source of this name."""
        return next((source for source in self.sources if source.name == name), None)

    def receiver(self, name: str) -> Receiver | None:
        """The receiver of this name."""
        return next((receiver for receiver in self.receivers if receiver.name == name), None)

    def receivers_of(self, event: str, route: str | None = None) -> tuple[str, ...]:
        """The receivers of an event: those that the route names, else those that `notify` names, else every receiver. Good
        news goes only to receivers that are named."""
        of_route = self.route(route) if route else None
        if event == NO_EFFECT and of_route is not None and of_route.on_no_effect.receivers is not None:
            return of_route.on_no_effect.receivers
        for notify in (of_route.notify if of_route else None, self.notify):
            names: tuple[str, ...] | None = getattr(notify, event, None)
            if names is not None:
                return names
        return () if event in NEWS else tuple(receiver.name for receiver in self.receivers)

    def announces(self, event: str) -> bool:
        """Whether somebody gets this good news, from any route."""
        return any(self.receivers_of(event, route) for route in (None, *(each.name for each in self.routes)))

    def reports(self, route: str) -> bool:
        """Whether the DAG runs of a route must leave a run in MLflow. True also for a route that is gone."""
        found = self.route(route)
        return found is None or found.lineage

    def airflow_named(self, name: str) -> Airflow | None:
        """The Airflow of this name. The `dag.airflow` of each route names one that exists."""
        return self._airflow_by_name.get(name)

    def mutes(self, route: Route) -> tuple[tuple[str, Interval], ...]:
        """The intervals that mute a route, each with the name of its `time_intervals` entry."""
        return self._mutes.get(route.name, ())

    @cached_property
    def _mutes(self) -> dict[str, tuple[tuple[str, Interval], ...]]:
        named = {entry.name: entry.time_intervals for entry in self.time_intervals}
        return {r.name: tuple((name, i) for name in r.mute for i in named[name]) for r in self.routes if r.mute}

    @cached_property
    def heartbeats(self) -> tuple[Switch, ...]:
        """The switches whose heartbeat is an alert."""
        return tuple(switch for switch in self.deadman if switch.kind == "alert")

    @cached_property
    def _route_index(self) -> MatcherIndex:
        return MatcherIndex(route.match for route in self.routes)

    @cached_property
    def _heartbeat_index(self) -> MatcherIndex:
        return MatcherIndex(switch.match for switch in self.heartbeats)

    @cached_property
    def _routes_by_name(self) -> dict[str, Route]:
        return {route.name: route for route in self.routes}

    @cached_property
    def _airflow_by_name(self) -> dict[str, Airflow]:
        return {airflow.name: airflow for airflow in self.airflow}
