"""The policy as the rest of the gateway sees it: frozen, complete, with every default filled in.

Built by `app.policy.file.load`, which also tells every error at its line.
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, InstanceOf, JsonValue

from app.policy.confirm import Confirm
from app.policy.deadman import Switch
from app.policy.file.problems import Problem
from app.policy.intervals import Interval, TimeInterval
from app.policy.lineage import Lineage
from app.policy.mlflow import Mlflow
from app.policy.own_alarms import is_own_alarm
from app.policy.promotions import Promotion
from app.policy.receivers import Notify, Receiver, RouteNotify
from app.policy.schedules import Schedule
from app.policy.sources import Source
from app.policy.values import Auth, Duration, Frozen, MatcherValue, Name, PositiveDuration, Text, Url, choice


def _read_group_by(value: tuple[str, ...]) -> tuple[str, ...]:
    if "..." in value:
        raise ValueError("... (every label) would make a group of every alert; name the labels")
    if len(set(value)) < len(value):
        raise ValueError("a label stands here twice")
    return value


class Airflow(Frozen):
    """One Airflow. `max_parallel` is the DAG runs of ours that may be open at once; None is no cap."""

    name: Text
    url: Url
    api: Annotated[Literal["v2", "v1"], choice("v2", "v1")] = "v2"
    auth: Auth | None = None
    max_parallel: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Dag(Frozen):
    """What a route starts. `id` and the strings of `conf` may hold `{{group.label}}` (app.policy.language.templates)."""

    airflow: Text = "default"
    id: Text
    conf: dict[str, JsonValue] = Field(default_factory=dict)


class Limit(Frozen):
    """At most so many triggers of a route in a sliding time, whatever their groups."""

    triggers: Annotated[int, Field(ge=1, le=100_000)]
    per: PositiveDuration


class Defaults(Frozen):
    """What a route may leave out; a top-level `defaults:` changes these values. All durations are timedeltas.

    openlineage: the namespace in which the route is a job of OpenLineage; None: the DAG run is told of no parent.
    """

    group_by: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_read_group_by)] = ()
    debounce: Duration = timedelta(0)
    cooldown: Duration = timedelta(hours=24)
    refire: bool = True
    on_failure: Annotated[Literal["release", "keep"], choice("release", "keep")] = "release"
    failure_backoff: Duration = timedelta(minutes=30)
    run_timeout: PositiveDuration = timedelta(hours=24)
    stale_after: PositiveDuration = timedelta(hours=6)
    limit: Limit | None = None
    mute: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    confirm: Confirm | None = None
    mode: Annotated[Literal["live", "shadow"], choice("live", "shadow")] = "live"
    notify: RouteNotify | None = None
    openlineage: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class Route(Defaults):
    """One way from alerts to a DAG. Every matcher must hold; no matcher at all takes every alert.

    lineage: whether a run of it has to report to MLflow.
    """

    name: Name
    match: Annotated[tuple[MatcherValue, ...], Field(strict=False)]
    dag: Dag
    lineage: bool = True

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is this route's, were it the only one."""
        return all(matcher.matches(labels) for matcher in self.match)

    def group(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The group of an alert: exactly `group_by`, in its order; a label that the alert lacks is ""."""
        return {name: labels.get(name, "") for name in self.group_by}


class Policy(Frozen):
    """A whole policy file. `hash` is 12 hex characters; it holds no secret, and the same meaning gives the same."""

    version: Literal[1]
    airflow: tuple[Airflow, ...]
    routes: tuple[Route, ...]
    mlflow: Mlflow | None = None
    time_intervals: tuple[TimeInterval, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    receivers: tuple[Receiver, ...] = ()
    notify: Notify | None = None
    lineage: Lineage = Lineage()
    schedules: tuple[Schedule, ...] = ()
    sources: tuple[Source, ...] = ()
    deadman: tuple[Switch, ...] = ()
    hash: str
    warnings: tuple[InstanceOf[Problem], ...] = ()

    def route_for(self, labels: Mapping[str, str]) -> Route | None:
        """The first route that takes an alert with these labels; None when no route does, as of a gateway's own alarm."""
        if is_own_alarm(labels):
            return None
        for route in self.routes:
            for matcher in route.match:
                if not matcher.matches(labels):
                    break
            else:
                return route
        return None

    def route(self, name: str) -> Route | None:
        """The route of this name."""
        return self._routes_by_name.get(name)

    def promotion(self, model: str, to: str) -> Promotion | None:
        """The first entry that leads this model to this mark."""
        return next((entry for entry in self.promotions if entry.to == to and entry.takes(model)), None)

    def marks(self, model: str) -> tuple[str, ...]:
        """Every mark that a version of this model may be promoted to, in the order of the file."""
        return tuple(dict.fromkeys(entry.to for entry in self.promotions if entry.takes(model)))

    def source(self, name: str) -> Source | None:
        """The monitor of this name, whose body the policy maps."""
        return next((source for source in self.sources if source.name == name), None)

    def receiver(self, name: str) -> Receiver | None:
        """The receiver of this name."""
        return next((receiver for receiver in self.receivers if receiver.name == name), None)

    def told(self, event: str, route: str | None = None) -> tuple[str, ...]:
        """Who is told of an event: as the route says, else as the policy does, else every receiver."""
        of_route = self.route(route) if route else None
        for notify in (of_route.notify if of_route else None, self.notify):
            names: tuple[str, ...] | None = getattr(notify, event, None)
            if names is not None:
                return names
        return tuple(receiver.name for receiver in self.receivers)

    def reports(self, route: str) -> bool:
        """Whether runs of a route have to be found in MLflow; those of one that is gone had to."""
        found = self.route(route)
        return found is None or found.lineage

    def airflow_named(self, name: str) -> Airflow | None:
        """The Airflow of this name. Every `route.dag.airflow` has one."""
        return self._airflow_by_name.get(name)

    def mutes(self, route: Route) -> tuple[tuple[str, Interval], ...]:
        """The intervals that mute a route, each with the name that it stands under."""
        return self._mutes.get(route.name, ())

    @cached_property
    def _mutes(self) -> dict[str, tuple[tuple[str, Interval], ...]]:
        named = {entry.name: entry.time_intervals for entry in self.time_intervals}
        return {r.name: tuple((name, i) for name in r.mute for i in named[name]) for r in self.routes if r.mute}

    @cached_property
    def heartbeats(self) -> tuple[Switch, ...]:
        """The switches that an alert is a heartbeat of."""
        return tuple(switch for switch in self.deadman if switch.kind == "alert")

    @cached_property
    def _routes_by_name(self) -> dict[str, Route]:
        return {route.name: route for route in self.routes}

    @cached_property
    def _airflow_by_name(self) -> dict[str, Airflow]:
        return {airflow.name: airflow for airflow in self.airflow}
