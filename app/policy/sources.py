"""`sources:` maps the bodies of other monitors: where in a body the parts of an alert stand (app.intake.sources.mapped)."""

from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from app.policy.language.variables import Unexpanded
from app.policy.values import Frozen, Name, SigningSecret, Text, choice
from app.web.signatures import Signature, StandardSignature, standard_key

#: Names that routes and records of the gateway's own already have.
TAKEN: Final = frozenset({"alertmanager", "grafana", "cloudevents", "native", "mlflow"})


Unit = Literal["s", "ms"]


def pointer_problem(text: str) -> str | None:
    """What is wrong with a JSON Pointer; None: nothing."""
    if not text.startswith("/"):
        return "must be a JSON Pointer such as /detail/state"
    rest = text.replace("~0", "").replace("~1", "")
    return "in a JSON Pointer ~ is written ~0, and / within a name ~1" if "~" in rest else None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _choices(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty")
    for text in value[:-1]:
        if not text.startswith("/"):
            raise ValueError(f"{text!r} stands for itself, so what follows is never looked at")
    for text in value:
        problem = pointer_problem(text) if text.startswith("/") else None
        if problem:
            raise ValueError(problem)
    return value


def _pointer(value: str) -> str:
    problem = None if isinstance(value, Unexpanded) else pointer_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def _name(value: str) -> str:
    if value in TAKEN:
        raise ValueError(f"{value!r} has a body that the gateway knows; choose another name")
    return value


Choices = Annotated[tuple[Text, ...], Field(strict=False), BeforeValidator(_as_list), AfterValidator(_choices)]


class Source(Frozen):
    """Monitors with a body of their own shape. Where a part of the alert stands is a JSON Pointer; text that does not
    begin with `/` stands for itself. Of a list, the first that is there counts."""

    name: Annotated[Name, AfterValidator(_name)]
    """The last part of the address that the monitor posts to: `/api/v1/webhooks/<name>`."""
    secret: SigningSecret | None = None
    """Requests must be signed with it, as Standard Webhooks says. Without it they need a token."""
    alerts: Annotated[Text, AfterValidator(_pointer)] | None = None
    """Where the list of alerts stands in the body. Without it the body is one alert, or a list of alerts."""
    alert_id: Choices
    """What the alert is called."""
    severity: Choices
    """How bad it is."""
    timestamp: Choices
    """When it began: RFC 3339, or a number when `timestamp_unit` is given."""
    timestamp_unit: Annotated[Unit, choice("s", "ms")] | None = None
    """The unit of a number in `timestamp`. Without it a number is refused."""
    status: Choices = ("firing",)
    """Whether it fires, in the monitor's own words."""
    states: dict[Text, Annotated[Literal["firing", "resolved"], choice("firing", "resolved")]] = Field(
        default={"firing": "firing", "resolved": "resolved"}, min_length=1
    )
    """The monitor's words for `firing` and `resolved`. An alert with another word is quarantined."""
    labels: dict[Text, Choices] = Field(default_factory=dict)
    """Where each label stands. A label is left out where the body has none."""
    annotations: dict[Text, Choices] = Field(default_factory=dict)
    """Where each annotation stands."""

    @cached_property
    def signature(self) -> Signature | None:
        """How its requests must be signed; None: they need a token instead."""
        return StandardSignature(standard_key(self.secret.get_secret_value())) if self.secret else None
