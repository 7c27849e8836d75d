"""`deadman:`, the switches: what must happen, how often, and which receivers get a notice when it does not."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    Tag,
    ValidationInfo,
    field_validator,
)

from app.policy.language.cron import Cron, read_zone
from app.policy.language.durations import format_duration, parse_duration
from app.policy.language.templates import render_text
from app.policy.language.variables import Unexpanded
from app.policy.own_alarms import is_own_alarm
from app.policy.values import (
    UNKNOWN_DURATION,
    Duration,
    Frozen,
    MatcherValue,
    Name,
    PositiveDuration,
    Text,
    choice,
    when_known,
)

#: Characters of a switch's name with its labels filled in. The name is part of addresses and of incident keys.
LONGEST_NAME: Final = 150
#: Switches of one policy. Each is judged every few seconds.
MOST_SWITCHES: Final = 1000
#: Switches that the values of alerts add to one entry. Anybody who may send an alert can bring values.
MOST_BROUGHT: Final = 200

Kind = Literal["retrain", "alert", "ping"]


class Retrain(Frozen):
    """A DAG run of a route's DAG that must end."""

    retrain: Name
    """A route. A run of its DAG must end."""
    group: dict[Text, str] = Field(default_factory=dict)
    """Only runs of this group count."""
    outcome: Annotated[Literal["success", "any"], choice("success", "any")] = "success"
    """Whether the run must succeed, or may end in `any` way."""
    started_by: Annotated[Literal["any", "gateway"], choice("any", "gateway")] = "any"
    """`gateway` counts only the gateway's own runs; `any` counts every run."""


def _read_expect(value: Any) -> Any:
    if isinstance(value, Unexpanded):
        return "heartbeat"
    if value != "heartbeat" and not isinstance(value, dict | Retrain):
        raise ValueError("must be heartbeat, or name a route: {retrain: accuracy}")
    return value


Expect = Annotated[
    Annotated[Literal["heartbeat"], Tag("<heartbeat>")] | Annotated[Retrain, Tag("<retrain>")],
    Discriminator(lambda value: "<heartbeat>" if isinstance(value, str) else "<retrain>"),
    BeforeValidator(_read_expect),
]


def _read_zone(value: str) -> str:
    read_zone(value)
    return value


Zone = Annotated[str, when_known(_read_zone)]


def _show_every(value: timedelta | Cron) -> str:
    return value.expression if isinstance(value, Cron) else format_duration(value)


Every = Annotated[
    InstanceOf[timedelta] | InstanceOf[Cron], PlainSerializer(_show_every, return_type=str, when_used="json")
]


class Switch(Frozen):
    """Dead man's switches: what must happen, how often, and who gets a notice when it does not."""

    name: Text
    """The name of the switch. It may hold `{{group.label}}` for each label of `for_each`."""
    expect: Expect
    """`heartbeat`, or the retrain that must happen."""
    for_each: dict[Text, Annotated[tuple[Text, ...], Field(strict=False)]] = Field(default_factory=dict)
    """Labels with their values. Each combination is a switch, and values that alerts bring are added."""
    match: Annotated[tuple[MatcherValue, ...], Field(strict=False)] = ()
    """Matchers of an alert that always fires: the heartbeat. Without them the heartbeat is a request to
    `/ping/<name>`."""
    timezone: Zone = "UTC"
    """The time zone of a cron expression in `every`."""
    every: Every
    """How often it must happen: a duration, or a cron expression such as `0 3 * * 1`."""
    grace: Duration = timedelta(0)
    """How much later it may come. After that the switch is down, and the receivers get a notice."""
    receivers: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Names of `receivers`. `[]` sends nothing."""
    repeat: PositiveDuration | None = None
    """How often the notice is repeated while the switch is down."""

    @field_validator("every", mode="before")
    @classmethod
    def _every(cls, value: Any, info: ValidationInfo) -> timedelta | Cron:
        if isinstance(value, timedelta | Cron):
            return value
        if isinstance(value, Unexpanded):
            return UNKNOWN_DURATION
        if not isinstance(value, str):
            raise ValueError("must be a duration such as 7d, or a cron expression such as 0 3 * * 1")
        if len(value.split()) > 1:
            zone: str = info.data.get("timezone", "UTC")
            return Cron(value, "UTC" if "${" in zone else zone)
        every = parse_duration(value)
        if not every:
            raise ValueError("must be longer than 0s")
        return every

    @property
    def kind(self) -> Kind:
        """What the switch expects. `retrain`: a DAG run. `alert`: an alert that always fires. `ping`: a request."""
        if isinstance(self.expect, Retrain):
            return "retrain"
        return "alert" if self.match else "ping"

    @property
    def most(self) -> int:
        """How many switches this entry may have."""
        return math.prod(len(values) for values in self.for_each.values()) + MOST_BROUGHT

    def instance(self, values: Mapping[str, str]) -> "Instance":
        """The switch for these values of `for_each`."""
        group = dict(self.expect.group) if isinstance(self.expect, Retrain) else {}
        return Instance(render_text(self.name, values), self, group | dict(values))

    def instances(self) -> Iterator["Instance"]:
        """The switches for the values that the policy names."""
        for combination in itertools.product(*self.for_each.values()):
            yield self.instance(dict(zip(self.for_each, combination, strict=True)))

    def seen(self, labels: Mapping[str, str]) -> "Instance | None":
        """The switch for these labels; None when they lack a label of `for_each`."""
        values = {name: labels.get(name, "") for name in self.for_each}
        return self.instance(values) if all(values.values()) else None

    def is_heartbeat(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is a heartbeat of this switch."""
        return (
            self.kind == "alert" and all(matcher.matches(labels) for matcher in self.match) and not is_own_alarm(labels)
        )


@dataclass(frozen=True)
class Instance:
    """One switch, with the labels filled into its name. `labels`: its group."""

    name: str
    switch: Switch
    labels: dict[str, str]

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it this switch and no other: its entry, and the values of `for_each`. Two switches may have one name:
        `{{group.a}}-{{group.b}}` with `x-y`, `z` and with `x`, `y-z`."""
        return (self.switch.name, *(self.labels[name] for name in self.switch.for_each))

    @property
    def apart(self) -> str:
        """Its name when another switch has the plain one."""
        digest = hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:8]
        return f"{self.name[: LONGEST_NAME - 1 - len(digest)]}~{digest}"

    @property
    def usable(self) -> bool:
        """Whether the name, which may come from an alert, is a valid name."""
        return 0 < len(self.name) <= LONGEST_NAME and self.name.isprintable()


def incident_key(switch: str) -> str:
    """The key of the incident that the switch of this name opens."""
    return f"deadman:{switch}"


def shared_key(kind: Literal["flood", "full"], entry: str) -> str:
    """The key of an incident of a whole entry. With flood, many switches are down, and new ones open no incident of their
    own. With full, alerts have brought so many values that new ones are left out."""
    return f"deadman-{kind}:{hashlib.sha256(entry.encode()).hexdigest()[:16]}"


def incident_keys(switch: Switch, labels: Mapping[str, str]) -> set[str]:
    """The keys of the incidents that an entry opens: for the switch of these labels, and for all of its switches."""
    instance = switch.seen(labels)
    own = {incident_key(instance.name), incident_key(instance.apart)} if instance is not None else set()
    return own | {shared_key("flood", switch.name), shared_key("full", switch.name)}


def heartbeats_of(switches: Sequence[Switch], labels: Mapping[str, str]) -> list[Instance]:
    """The switches for which an alert with these labels is a heartbeat."""
    found = (switch.seen(labels) for switch in switches if switch.is_heartbeat(labels))
    return [instance for instance in found if instance is not None and instance.usable]
