"""What each key of the policy file means: its text, its type and its default, read from the models of app.policy.

docs/policy-reference.md and the JSON Schema are made from it, so that neither can lag behind the code. All that it knows
of the models is in the tables at its top. It raises TypeError at a type without words and at a field without a text.
"""

import ast
import inspect
import itertools
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from app.policy import deadman, intervals, promotions, receivers, schedules, sources, values
from app.policy.language.durations import format_duration
from app.policy.schema import Dag, Defaults, Policy, Route

Model = type[values.Frozen]
Shape = Mapping[str, Any]

#: A variable may stand in for any text.
VARIABLE: Final = r"\$\{"
TEXT: Final[Shape] = {"type": "string"}
_RANGE: Final[Shape] = {"type": ["string", "integer"]}
_DURATION: Final[Shape] = {
    "anyOf": [
        {"type": "string", "pattern": rf"^[0-9]+(ms|[ywdhms])([0-9]+(ms|[ywdhms]))*$|^0$|{VARIABLE}"},
        {"const": 0},
    ]
}
_TIME_OF_DAY: Final[Shape] = {"type": "string", "pattern": rf"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$|{VARIABLE}"}
_NAME: Final[Shape] = {"type": "string", "pattern": rf"^[a-z0-9][a-z0-9_-]{{0,62}}$|{VARIABLE}"}


class Kind(NamedTuple):
    """A type of values: its words for a single value and for several, and its JSON Schema."""

    one_value: str
    several: str
    shape: Shape = TEXT


#: The first that fits counts.
KINDS: Final[tuple[tuple[Any, Kind], ...]] = (
    (values.Duration, Kind("duration", "durations", _DURATION)),
    (values.PositiveDuration, Kind("duration over 0s", "durations over 0s", _DURATION)),
    (values.Name, Kind("name", "names", _NAME)),
    (values.Url, Kind("address", "addresses")),
    (values.SigningSecret, Kind("secret", "secrets")),
    (values.HeaderName, Kind("text", "texts")),
    (values.HeaderValue, Kind("text", "texts")),
    (receivers.SecretUrl, Kind("address", "addresses")),
    (values.Secret, Kind("secret", "secrets")),
    (values.MatcherValue, Kind("matcher", "matchers")),
    (values.Text, Kind("text", "texts")),
    (promotions.RuleValue, Kind("rule", "rules")),
    (promotions.Alias, Kind("alias", "aliases")),
    (deadman.Zone, Kind("time zone", "time zones")),
    (deadman.Every, Kind("duration or cron expression", "")),
    (intervals.Location, Kind("time zone", "time zones")),
    (intervals.Weekday, Kind("weekday or range", "weekdays or ranges")),
    (intervals.DayOfMonth, Kind("day or range", "days or ranges", _RANGE)),
    (intervals.Month, Kind("month or range", "months or ranges", _RANGE)),
    (intervals.Year, Kind("year or range", "years or ranges", _RANGE)),
    (
        sources.Choices,
        Kind(
            "pointer or text, or a list of them",
            "pointers or texts",
            {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]},
        ),
    ),
    (bool, Kind("`true` or `false`", "", {"type": "boolean"})),
    (str, Kind("text", "texts")),
    (JsonValue, Kind("any value", "any values", {})),
)
#: Fields whose type says less than its validator knows.
BY_FIELD: Final[Mapping[tuple[type, str], Kind]] = {
    (schedules.Schedule, "cron"): Kind("cron expression", ""),
    (schedules.Schedule, "timezone"): Kind("time zone", ""),
    (promotions.Promotion, "model"): Kind("RE2", ""),
    (sources.Source, "name"): Kind("name", "", _NAME),
    (sources.Source, "alerts"): Kind("JSON Pointer", ""),
    (intervals.TimeRange, "start_time"): Kind("time of day", "", _TIME_OF_DAY),
    (intervals.TimeRange, "end_time"): Kind("time of day", "", _TIME_OF_DAY),
}
#: Fields that the loader sets and no file has.
_NOT_IN_THE_FILE: Final = {"hash", "warnings", "text"}
#: Defaults that the loader fills in, or that are settings.
_FILLED_IN: Final[Mapping[tuple[type, str], str]] = {
    (Route, "name"): "made from `dag.id`",
    (Dag, "airflow"): "`default`, or the only one",
    (deadman.Switch, "receivers"): "every receiver",
    (deadman.Switch, "repeat"): "`GATEWAY_NOTICE_REPEAT`",
    (values.PasswordAuth, "*"): "one login",
    (values.TokenAuth, "*"): "one login",
    (values.TokenFileAuth, "*"): "one login",
    **{(receivers.Receiver, kind): "one kind" for kind in receivers.KINDS},
    (receivers.RouteNotify, "*"): "as the top level says",
    (receivers.Notify, "*"): "every receiver",
    **{(receivers.Notify, event): "no receiver" for event in receivers.NEWS},
}


def sections() -> dict[str, Model]:
    """The sections of the file with the model of their entries; `defaults` follows `routes`, which it is about."""
    found: dict[str, Model] = {}
    for name, hint in hints(Policy).items():
        for model in models(hint):
            found[name] = model
        if name == "routes":
            found["defaults"] = Defaults
    return found


def hints(model: Model) -> dict[str, Any]:
    """The type of each key of a model, in the order of the reference."""
    known = get_type_hints(model, include_extras=True)
    return {name: known[name] for name in values.fields_of(model) if name not in _NOT_IN_THE_FILE}


def models(hint: Any) -> Iterator[Model]:
    """The models in a type: of its entries, of its branches."""
    if isinstance(hint, type) and issubclass(hint, values.Frozen):
        yield hint
    elif get_origin(hint) is not Literal:
        for inner in get_args(hint):
            yield from models(inner)


def kind_of(hint: Any) -> Kind | None:
    """What the table says of a type; None: it is made of other types."""
    return next((kind for known, kind in KINDS if hint == known), None)


def kind_of_field(model: Model, name: str) -> Kind | None:
    """What the table says of a field itself; None: its type says everything."""
    return next((kind for (owner, key), kind in BY_FIELD.items() if key == name and issubclass(model, owner)), None)


def bounds(hint: Any) -> tuple[int, int] | None:
    """The least and the most of a whole number; None for another type."""
    if get_origin(hint) is not Annotated or get_args(hint)[0] is not int:
        return None
    [field] = [extra for extra in get_args(hint) if isinstance(extra, FieldInfo)]
    least, most = (next(getattr(m, key) for m in field.metadata if hasattr(m, key)) for key in ("ge", "le"))
    return least, most


def is_required(model: Model, name: str) -> bool:
    """Whether a file must have this key of a model."""
    return model.model_fields[name].is_required() and (model, name) not in _FILLED_IN


def default_value(model: Model, name: str) -> JsonValue:
    """The default of a field as the file writes it; None: it has none, or the loader fills it in."""
    field = model.model_fields[name]
    if field.is_required() or _filled_in(model, name):
        return None
    value: object = field.get_default(call_default_factory=True)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | str | dict) else None


def default_in_words(model: Model, name: str) -> str:
    """The default of a field: a value in backticks, `required`, `none`, or how the loader fills it in."""
    if filled_in := _filled_in(model, name):
        return filled_in
    if model.model_fields[name].is_required():
        return "required"
    value = default_value(model, name)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, list) else f"`{value}`"


def _filled_in(model: Model, name: str) -> str | None:
    return _FILLED_IN.get((model, name)) or _FILLED_IN.get((model, "*"))


def intro(model: Model) -> str:
    """The text of a model."""
    return " ".join((model.__doc__ or "").split())


def text_of(model: Model, name: str) -> str:
    """The text below a field of a model, or of a model that it inherits from."""
    for owner in model.__mro__:
        if name in inspect.get_annotations(owner) and name in _texts_in(owner):
            return _texts_in(owner)[name]
    raise TypeError(f"{model.__name__}.{name} has no text below it")


@cache
def _texts_in(owner: type) -> dict[str, str]:
    """The text below each field that a class has one for."""
    [tree] = ast.parse(inspect.getsource(owner)).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        ast.unparse(field.target): " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
