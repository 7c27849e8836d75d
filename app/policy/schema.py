"""The policy as the rest of the gateway sees it: frozen, complete, with every default filled in.

Built by `app.policy.load`, which also tells every error at its line.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    JsonValue,
    PlainSerializer,
    SecretStr,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from app.policy.durations import format_duration, parse_duration
from app.policy.matchers import Matcher
from app.policy.problems import Problem
from app.policy.variables import Unexpanded

ROUTE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Stands in for a duration whose ${VARIABLE} is not known, as `check` runs without them.
_UNKNOWN_DURATION: Final = timedelta(hours=1)


def _read_duration(value: object) -> object:
    if isinstance(value, Unexpanded):
        return _UNKNOWN_DURATION
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse_duration(str(value))
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 10m or 1d12h")
    return parse_duration(value)


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def _when_known(check: Callable[[str], str]) -> WrapValidator:
    """Judge a text only when its variables are known; pydantic itself hands on a plain str."""

    def judge(value: object, handler: ValidatorFunctionWrapHandler) -> str:
        text: str = handler(value)
        return text if isinstance(value, Unexpanded) else check(text)

    return WrapValidator(judge)


def _read_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", value):
        raise ValueError("must be an address such as http://airflow.example:8080")
    if "@" in parts.netloc:
        raise ValueError("user and password belong in auth, not in the address")
    if parts.query or parts.fragment:
        raise ValueError("must be an address without ? and #")
    return value.rstrip("/")


def _read_name(value: str) -> str:
    if not ROUTE_NAME.fullmatch(value):
        raise ValueError("must be lower-case letters, digits, _ and -, at most 63, beginning with a letter or digit")
    return value


def _read_group_by(value: tuple[str, ...]) -> tuple[str, ...]:
    if "..." in value:
        raise ValueError("... (every label) would make a group of every alert; name the labels")
    if len(set(value)) < len(value):
        raise ValueError("a label stands here twice")
    return value


def _choice(*choices: str) -> BeforeValidator:
    # The first choice stands in for a ${VARIABLE} that `check` does not know.
    return BeforeValidator(lambda value: choices[0] if isinstance(value, Unexpanded) else value)


_DurationText = PlainSerializer(format_duration, return_type=str, when_used="json")
Duration = Annotated[timedelta, BeforeValidator(_read_duration), _DurationText]
PositiveDuration = Annotated[timedelta, BeforeValidator(_read_duration), AfterValidator(_positive), _DurationText]
Text = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1, strict=False)]
Name = Annotated[str, _when_known(_read_name)]
Url = Annotated[str, _when_known(_read_url)]
MatcherValue = Annotated[InstanceOf[Matcher], PlainSerializer(str, return_type=str, when_used="json")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class PasswordAuth(_Frozen):
    """A user of Airflow; its token is fetched and renewed by the client."""

    username: Text
    password: Secret


class TokenAuth(_Frozen):
    """A token as it is sent."""

    token: Secret


class TokenFileAuth(_Frozen):
    """A file whose content is the token, read again when it changes."""

    token_file: Text


def _auth_kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, BaseModel) else {}
    if "token_file" in keys:
        return "<token_file>"
    return "<token>" if "token" in keys else "<password>"


Auth = Annotated[
    Annotated[PasswordAuth, Tag("<password>")]
    | Annotated[TokenAuth, Tag("<token>")]
    | Annotated[TokenFileAuth, Tag("<token_file>")],
    Discriminator(_auth_kind),
]


class Airflow(_Frozen):
    """One Airflow. `max_parallel` is the DAG runs of ours that may be open at once; None is no cap."""

    name: Text
    url: Url
    api: Annotated[Literal["v2"], _choice("v2")] = "v2"
    auth: Auth | None = None
    max_parallel: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Dag(_Frozen):
    """What a route starts. `id` and the strings of `conf` may hold `{{group.label}}` (app.policy.templates)."""

    airflow: Text = "default"
    id: Text
    conf: dict[str, JsonValue] = {}


class Limit(_Frozen):
    """At most so many triggers of a route in a sliding time, whatever their groups."""

    triggers: Annotated[int, Field(ge=1, le=100_000)]
    per: PositiveDuration


class Defaults(_Frozen):
    """What a route may leave out; a top-level `defaults:` changes these values. All durations are timedeltas."""

    group_by: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_read_group_by)] = ()
    debounce: Duration = timedelta(0)
    cooldown: Duration = timedelta(hours=24)
    refire: bool = True
    on_failure: Annotated[Literal["release", "keep"], _choice("release", "keep")] = "release"
    failure_backoff: Duration = timedelta(minutes=30)
    run_timeout: PositiveDuration = timedelta(hours=24)
    stale_after: PositiveDuration = timedelta(hours=6)
    limit: Limit | None = None
    mode: Annotated[Literal["live"], _choice("live")] = "live"


class Route(Defaults):
    """One way from alerts to a DAG. Every matcher must hold; no matcher at all takes every alert."""

    name: Name
    match: Annotated[tuple[MatcherValue, ...], Field(strict=False)]
    dag: Dag

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is this route's, were it the only one."""
        return all(matcher.matches(labels) for matcher in self.match)

    def group(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The group of an alert: exactly `group_by`, in its order; a label that the alert lacks is ""."""
        return {name: labels.get(name, "") for name in self.group_by}


class Policy(_Frozen):
    """A whole policy file. `hash` is 12 hex characters; it holds no secret, and the same meaning gives the same."""

    version: Literal[1]
    airflow: tuple[Airflow, ...]
    routes: tuple[Route, ...]
    hash: str
    warnings: tuple[InstanceOf[Problem], ...] = ()

    def route_for(self, labels: Mapping[str, str]) -> Route | None:
        """The first route that takes an alert with these labels; None when no route does."""
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

    def airflow_named(self, name: str) -> Airflow | None:
        """The Airflow of this name. Every `route.dag.airflow` has one."""
        return self._airflow_by_name.get(name)

    @cached_property
    def _routes_by_name(self) -> dict[str, Route]:
        return {route.name: route for route in self.routes}

    @cached_property
    def _airflow_by_name(self) -> dict[str, Airflow]:
        return {airflow.name: airflow for airflow in self.airflow}
