"""`sources:` maps the bodies of other monitors: where each part of an alert is in a body (app.intake.sources.mapped)."""

from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from app.policy.language.variables import Unexpanded
from app.policy.values import Frozen, Name, SigningSecret, Text, choice
from app.web.signatures import Signature, StandardSignature, standard_key

#: Names of the sources that the gateway has already.
TAKEN: Final = frozenset({"alertmanager", "grafana", "cloudevents", "native", "mlflow"})


Unit = Literal["s", "ms"]


def pointer_problem(text: str) -> str | None:
    """What is wrong with a JSON Pointer; None: nothing."""
    if not text.startswith("/"):
        return "must be a JSON Pointer such as /detail/state"
    rest = text.replace("~0", "").replace("~1", "")
    return "in a JSON Pointer write ~0 for ~, and ~1 for / in a name" if "~" in rest else None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _choices(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty")
    for text in value[:-1]:
        if not text.startswith("/"):
            raise ValueError(f"{text!r} is taken as it is, so the entries after it are never used")
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
        raise ValueError(f"{value!r} is a source that the gateway has already; choose another name")
    return value


Choices = Annotated[tuple[Text, ...], Field(strict=False), BeforeValidator(_as_list), AfterValidator(_choices)]


class Source(Frozen):
    """Monitors whose bodies have another shape. A JSON Pointer says where a part of the alert is. Text that does not begin
    with `/` is taken as it is. Of a list, the first entry that gives a value counts."""

    name: Annotated[Name, AfterValidator(_name)]
    """The last part of the address that the monitor posts to: `/api/v1/webhooks/<name>`."""
    secret: SigningSecret | None = None
    """Requests must be signed with it, as Standard Webhooks says. Without it they need a token."""
    alerts: Annotated[Text, AfterValidator(_pointer)] | None = None
    """Where the list of alerts is in the body. Without it the body is one alert, or a list of alerts."""
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
    """Where each label is. A label is left out when the body lacks it."""
    annotations: dict[Text, Choices] = Field(default_factory=dict)
    """Where each annotation is."""

    @cached_property
    def signature(self) -> Signature | None:
        """How its requests must be signed; None: they need a token instead."""
        return StandardSignature(standard_key(self.secret.get_secret_value())) if self.secret else None
