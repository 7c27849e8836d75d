"""`promotions:`, what a model version needs before it may hold an alias such as `champion`."""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, InstanceOf, PlainSerializer

from app.policy.language.expressions import Rule
from app.policy.language.matchers import Matcher
from app.policy.language.templates import fill_version
from app.policy.own_alarms import is_own_alarm
from app.policy.values import Duration, Frozen, MatcherValue, PositiveDuration, Text, choice, when_known

#: What an alias may be called in both registries. MLflow allows no other characters.
ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_RESERVED: Final = re.compile(r"latest|v[0-9]+", re.IGNORECASE)


def _read_alias(value: str) -> str:
    if not ALIAS.fullmatch(value):
        raise ValueError("must be letters, digits, _ and -, at most 100")
    if _RESERVED.fullmatch(value):
        raise ValueError("latest and v followed by a number are reserved by MLflow")
    return value


def _read_model(value: str) -> str:
    Matcher("model", "=~", value)  # It raises an error that says what is wrong.
    return value


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a name is here twice")
    return values


Alias = Annotated[str, when_known(_read_alias)]
Names = Annotated[tuple[Text, ...], Field(strict=False, max_length=100), AfterValidator(_once)]
RuleValue = Annotated[InstanceOf[Rule], PlainSerializer(str, return_type=str, when_used="json")]


class Require(Frozen):
    """What the version and its run must have, by name. Inputs go by their context (`training`), artifacts by their path."""

    params: Names = ()
    """Names of parameters of the run."""
    metrics: Names = ()
    """Names of metrics of the run."""
    tags: Names = ()
    """Names of tags of the run."""
    inputs: Names = ()
    """Contexts in which a data set was logged with its digest, such as `training`."""
    artifacts: Names = ()
    """Paths in the run's artifacts, or names of logged models."""


class Probation(Frozen):
    """The time after a promotion in which an alert may speak against the version."""

    for_: PositiveDuration = Field(timedelta(hours=48), alias="for")
    """How long after the promotion such an alert may begin. It must begin after the promotion."""
    match: Annotated[tuple[MatcherValue, ...], Field(strict=False)]
    """Alertmanager's matchers. An alert must satisfy all of them, whatever its route."""
    group: dict[Text, str] = Field(default_factory=dict)
    """Labels that the alert must have too. `{{version.model}}` and `{{version.version}}` are filled with the name of the
    model and the number of the version."""
    debounce: Duration | None = None
    """How long the alert must last. Without it: the `debounce` of the route that took the alert."""
    then: Annotated[Literal["tell", "rollback"], choice("tell", "rollback")] = "tell"
    """`tell` sends a notice. `rollback` gives the alias back to the version before and sends a notice; where that cannot be
    done, it sends the notice alone."""

    def labels(self, model: str, version: str) -> dict[str, str]:
        """The labels of `group` for this version."""
        return {name: fill_version(value, model, version) for name, value in self.group.items()}

    def takes(self, alert: Mapping[str, str], labels: Mapping[str, str]) -> bool:
        """Whether an alert with the labels `alert` may speak against the version with the labels `labels`."""
        if is_own_alarm(alert) or any(alert.get(name, "") != value for name, value in labels.items()):
            return False
        return all(matcher.matches(alert) for matcher in self.match)


class Promotion(Frozen):
    """The promotion gate. The first entry for the model and the alias decides. Entries may differ in `to` alone."""

    model: Annotated[str, when_known(_read_model)]
    """Which models this entry is for: an RE2 over the whole name."""
    registry: Annotated[Literal["mlflow", "sagemaker"], choice("mlflow")] = "mlflow"
    """`mlflow`, or `sagemaker` for the model package group of that name."""
    to: Alias
    """The alias to give: letters, digits, `_` and `-`, at most 100."""
    requires: Alias | None = None
    """An alias that the version must hold first."""
    require: Require = Require()
    """What the version and its run must have. Every name must be there."""
    rules: Annotated[tuple[RuleValue, ...], Field(strict=False, max_length=100)] = ()
    """Comparisons of metrics, such as `f1 >= champion.f1 + 0.005`. All must hold. `champion.f1` is the `f1` of the version
    that holds `to` now, whatever `to` is."""
    mode: Annotated[Literal["live", "shadow"], choice("live")] = "live"
    """`shadow` judges and records, and changes nothing."""
    on_new_version: bool = False
    """Whether each new version that MLflow's webhook announces is judged by itself."""
    probation: Probation | None = None
    """How the gateway watches a version that it has promoted. Without it the gateway does not."""

    def takes(self, model: str) -> bool:
        """Whether this entry is for a model of that name."""
        return self._matcher.matches({"model": model})

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher("model", "=~", self.model)
