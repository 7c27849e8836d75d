"""`promotions:`, what a model version must show before it may hold a mark such as `champion`."""

import re
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, InstanceOf, PlainSerializer

from app.policy.language.expressions import Rule
from app.policy.language.matchers import Matcher
from app.policy.values import Frozen, Text, choice, when_known

#: What a mark may be called in both registries; MLflow allows no more in an alias.
MARK: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_RESERVED: Final = re.compile(r"latest|v[0-9]+", re.IGNORECASE)


def _read_mark(value: str) -> str:
    if not MARK.fullmatch(value):
        raise ValueError("must be letters, digits, _ and -, at most 100")
    if _RESERVED.fullmatch(value):
        raise ValueError("latest and v followed by a number are reserved by MLflow")
    return value


def _read_model(value: str) -> str:
    Matcher("model", "=~", value)  # Its error says what is wrong.
    return value


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a name stands here twice")
    return values


Mark = Annotated[str, when_known(_read_mark)]
Names = Annotated[tuple[Text, ...], Field(strict=False, max_length=100), AfterValidator(_once)]
RuleValue = Annotated[InstanceOf[Rule], PlainSerializer(str, return_type=str, when_used="json")]


class Require(Frozen):
    """What the version and its run must have, by name: inputs by their context (`training`), artifacts by their path."""

    params: Names = ()
    metrics: Names = ()
    tags: Names = ()
    inputs: Names = ()
    artifacts: Names = ()


class Promotion(Frozen):
    """The way to one mark. `model` is an anchored RE2; the first entry that takes the model and the mark decides.

    `on_new_version`: a version that MLflow's webhook tells of is asked for by itself.
    """

    model: Annotated[str, when_known(_read_model)]
    registry: Annotated[Literal["mlflow", "sagemaker"], choice("mlflow")] = "mlflow"
    to: Mark
    requires: Mark | None = None
    require: Require = Require()
    rules: Annotated[tuple[RuleValue, ...], Field(strict=False, max_length=100)] = ()
    mode: Annotated[Literal["live", "shadow"], choice("live")] = "live"
    on_new_version: bool = False

    def takes(self, model: str) -> bool:
        """Whether this entry is about a model of that name."""
        return self._matcher.matches({"model": model})

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher("model", "=~", self.model)
