"""`promotions:`, what a model version needs before it may hold an alias such as `champion`."""

import re
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, InstanceOf, PlainSerializer

from app.policy.language.expressions import Rule
from app.policy.language.matchers import Matcher
from app.policy.values import Frozen, Text, choice, when_known

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

    def takes(self, model: str) -> bool:
        """Whether this entry is for a model of that name."""
        return self._matcher.matches({"model": model})

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher("model", "=~", self.model)
