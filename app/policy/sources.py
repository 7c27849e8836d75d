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
    """One of them, posted to /api/v1/webhooks/<name>, signed as Standard Webhooks says where there is a `secret`. `alerts`
    points to the list of alerts in the body; None: the body is one, or a list of them. The rest is looked up in each."""

    name: Annotated[Name, AfterValidator(_name)]
    secret: SigningSecret | None = None
    alerts: Annotated[Text, AfterValidator(_pointer)] | None = None
    alert_id: Choices
    severity: Choices
    timestamp: Choices
    timestamp_unit: Annotated[Unit, choice("s", "ms")] | None = None
    status: Choices = ("firing",)
    states: dict[Text, Annotated[Literal["firing", "resolved"], choice("firing", "resolved")]] = Field(
        default={"firing": "firing", "resolved": "resolved"}, min_length=1
    )
    labels: dict[Text, Choices] = Field(default_factory=dict)
    annotations: dict[Text, Choices] = Field(default_factory=dict)

    @cached_property
    def signature(self) -> Signature | None:
        """How its requests must be signed; None: they need a token instead."""
        return StandardSignature(standard_key(self.secret.get_secret_value())) if self.secret else None
