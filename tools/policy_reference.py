"""Write docs/policy-reference.md from the models of app.policy, so that the page cannot lag behind the code.

    python -m tools.policy_reference

Each key's row has its type, its default and the text below its field in the model. Each section's example comes from
examples/policy-full.yaml. All that this program knows of the models is in the tables at its top. It ends with an error
at a type without words or a field without a text.
"""

import ast
import inspect
import itertools
import re
import types
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from app.policy import deadman, intervals, promotions, receivers, schedules, sources, values
from app.policy.language.durations import format_duration
from app.policy.schema import Dag, Defaults, Policy, Route

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/policy-reference.md"
EXAMPLES: Final = ROOT / "examples/policy-full.yaml"

#: How many entries of a list its example shows; elsewhere all. Together the examples are a policy that passes `check`.
SHOWN: Final[Mapping[str, int]] = {"routes": 1, "schedules": 1, "deadman": 3}
#: Fields that the loader sets and no file has.
NOT_IN_THE_FILE: Final = {"hash", "warnings"}
#: Defaults that the loader fills in, or that are settings.
FILLED_IN: Final[Mapping[tuple[type, str], str]] = {
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
}
#: One value and several. The first that fits counts.
WORDS: Final[tuple[tuple[Any, str, str], ...]] = (
    (values.Duration, "duration", "durations"),
    (values.PositiveDuration, "duration over 0s", "durations over 0s"),
    (values.Name, "name", "names"),
    (values.Url, "address", "addresses"),
    (values.SigningSecret, "secret", "secrets"),
    (values.HeaderName, "text", "texts"),
    (values.HeaderValue, "text", "texts"),
    (receivers.SecretUrl, "address", "addresses"),
    (values.Secret, "secret", "secrets"),
    (values.MatcherValue, "matcher", "matchers"),
    (values.Text, "text", "texts"),
    (promotions.RuleValue, "rule", "rules"),
    (promotions.Alias, "alias", "aliases"),
    (deadman.Zone, "time zone", "time zones"),
    (deadman.Every, "duration or cron expression", ""),
    (intervals.Location, "time zone", "time zones"),
    (intervals.Weekday, "weekday or range", "weekdays or ranges"),
    (intervals.DayOfMonth, "day or range", "days or ranges"),
    (intervals.Month, "month or range", "months or ranges"),
    (intervals.Year, "year or range", "years or ranges"),
    (sources.Choices, "pointer or text, or a list of them", "pointers or texts"),
    (bool, "`true` or `false`", ""),
    (str, "text", "texts"),
    (JsonValue, "any value", "any values"),
)
#: Fields whose type says less than its validator knows.
BY_FIELD: Final[Mapping[tuple[type, str], str]] = {
    (schedules.Schedule, "cron"): "cron expression",
    (schedules.Schedule, "timezone"): "time zone",
    (promotions.Promotion, "model"): "RE2",
    (sources.Source, "name"): "name",
    (sources.Source, "alerts"): "JSON Pointer",
    (intervals.TimeRange, "start_time"): "time of day",
    (intervals.TimeRange, "end_time"): "time of day",
}

HEAD: Final = """\
# Policy reference

Every key of the policy file. `python -m tools.policy_reference` writes this page from the models in `app/policy`.

- A duration is Prometheus': `90s`, `10m`, `1d12h`. A matcher is Alertmanager's: `severity=~"critical|warning"`.
- `${NAME}` is read from the environment, without a newline at its end. `$${` is a plain `${`.
- `{{group.label}}` is filled with the group's value of that label, in the keys whose text says so.
- A key below another one, such as `limit.triggers`, is required only when the one above is there.
- An unknown key, a key that stands twice and an empty value are errors. `trigger-gateway check` shows all of them at once.

[policy-full.yaml](../examples/policy-full.yaml) shows every key in one file. The examples on this page are parts of it.
"""


def page() -> str:
    """The whole page."""
    examples = _examples(EXAMPLES.read_text())
    parts = [HEAD, "## Top level\n", _table(_top_level()), "```yaml\nversion: 1\n```\n"]
    for name, model in _sections().items():
        rows = _rows(model) if model is not Defaults else _defaults()
        parts += [f"## {name}\n", f"{_intro(model)}\n", _table(rows), f"```yaml\n{examples[name]}```\n"]
    return "\n".join(parts)


def _sections() -> dict[str, type[values.Frozen]]:
    """The sections of the file with the model of their entries; `defaults` follows `routes`, which it is about."""
    found: dict[str, type[values.Frozen]] = {}
    for name, hint in _hints(Policy).items():
        for model in _models(hint):
            found[name] = model
        if name == "routes":
            found["defaults"] = Defaults
    return found


Row = tuple[str, str, str, str]


def _top_level() -> Iterator[Row]:
    for name, hint in _hints(Policy).items():
        default = "required" if Policy.model_fields[name].is_required() else "none"
        kind = "list" if get_origin(hint) is tuple else "mapping" if any(_models(hint)) else "`1`"
        yield f"[{name}](#{name})" if kind != "`1`" else f"`{name}`", kind, default, _text(Policy, name)
        if name == "routes":
            yield "[defaults](#defaults)", "mapping", "none", "What a route may leave out."


def _rows(model: type[values.Frozen], above: str = "") -> Iterator[Row]:
    """The keys of a model, each followed by those below it, with dots between."""
    for name, hint in _hints(model).items():
        yield f"`{above}{name}`", _in_words(model, name, hint), _default(model, name), _text(model, name)
        for below in _models(hint):
            yield from _rows(below, f"{above}{name}.")


def _defaults() -> Iterator[Row]:
    """What stands in full under `routes`."""
    return ((key, kind, default, "As in [routes](#routes).") for key, kind, default, _ in _rows(Defaults))


def _table(rows: Iterator[Row]) -> str:
    lines = ["| key | type | default | what it does |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _hints(model: type[values.Frozen]) -> dict[str, Any]:
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in values.fields_of(model) if name not in NOT_IN_THE_FILE}


def _models(hint: Any) -> Iterator[type[values.Frozen]]:
    """The models in a type: of its entries, of its branches."""
    if isinstance(hint, type) and issubclass(hint, values.Frozen):
        yield hint
    elif get_origin(hint) is not Literal:
        for inner in get_args(hint):
            yield from _models(inner)


def _in_words(model: type[values.Frozen], name: str, hint: Any) -> str:
    return next(
        (words for (owner, key), words in BY_FIELD.items() if key == name and issubclass(model, owner)), None
    ) or (_words(hint))


def _words(hint: Any, *, several: bool = False) -> str:
    for known, one_value, many in WORDS:
        if hint == known:
            return many if several else one_value
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, values.Frozen):
        return "mappings" if several else "mapping"
    if origin is Annotated:
        return _number(hint) if inner[0] is int else _words(inner[0], several=several)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"{'lists' if several else 'list'} of {_words(inner[0], several=True)}"
    if origin is dict:
        return f"mapping of {_words(inner[0], several=True)} to {_words(inner[1], several=True)}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(branch) for branch in inner if branch is not type(None)))
    raise SystemExit(f"tools/policy_reference.py has no words for the type {hint!r}")


def _number(hint: Any) -> str:
    [field] = [extra for extra in get_args(hint) if isinstance(extra, FieldInfo)]
    least, most = (next(getattr(m, key) for m in field.metadata if hasattr(m, key)) for key in ("ge", "le"))
    return f"whole number, {least} to {most}"


def _default(model: type[values.Frozen], name: str) -> str:
    for owner, key in ((model, name), (model, "*")):
        if (owner, key) in FILLED_IN:
            return FILLED_IN[owner, key]
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, values.Frozen):
        return "none"
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}`"
    return f"`[{', '.join(value)}]`" if isinstance(value, tuple) else f"`{value}`"


def _intro(model: type[values.Frozen]) -> str:
    return " ".join((model.__doc__ or "").split())


def _text(model: type[values.Frozen], name: str) -> str:
    """The text below a field of a model, or of a model that it inherits from."""
    for owner in model.__mro__:
        [tree] = ast.parse(inspect.getsource(owner)).body if name in inspect.get_annotations(owner) else [None]
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            named = isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name
            if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                return " ".join(str(text.value.value).split())
    raise SystemExit(f"{model.__name__}.{name} has no text below it")


def _examples(text: str) -> dict[str, str]:
    """The text of each section of the full example, by its key; of a list as many entries as SHOWN says."""
    found = {}
    for section in re.split(r"(?m)^(?=[a-z])", text):
        name = section.partition(":")[0]
        entries = re.split(r"(?m)^(?=  - )", section)
        kept = entries[: SHOWN.get(name, len(entries)) + 1] if len(entries) > 1 else entries
        found[name] = re.sub(r"\n(?: *\n)+", "\n", "".join(kept)).rstrip() + "\n"
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
