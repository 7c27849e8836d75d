"""Write docs/policy-reference.md from the models of app.policy, so that the page cannot lag behind the code.

    python -m tools.policy_reference

Each key's row has its type, its default and the text below its field in the model, as app.policy.file.describe reads
them. Each section's example comes from examples/policy-full.yaml.
"""

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from app.policy.file import describe
from app.policy.schema import Defaults, Policy
from app.policy.values import key_of

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/policy-reference.md"
EXAMPLES: Final = ROOT / "examples/policy-full.yaml"

#: How many entries of a list its example shows; elsewhere all. Together the examples are a policy that passes `check`.
SHOWN: Final[Mapping[str, int]] = {"routes": 1, "schedules": 1, "deadman": 3}
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
    for name, model in describe.sections().items():
        rows = _rows(model) if model is not Defaults else _defaults()
        parts += [f"## {name}\n", f"{describe.intro(model)}\n", _table(rows), f"```yaml\n{examples[name]}```\n"]
    return "\n".join(parts)


Row = tuple[str, str, str, str]


def _top_level() -> Iterator[Row]:
    for name, hint in describe.hints(Policy).items():
        default = "required" if Policy.model_fields[name].is_required() else "none"
        kind = "list" if get_origin(hint) is tuple else "mapping" if any(describe.models(hint)) else "`1`"
        yield f"[{name}](#{name})" if kind != "`1`" else f"`{name}`", kind, default, describe.text_of(Policy, name)
        if name == "routes":
            yield "[defaults](#defaults)", "mapping", "none", "What a route may leave out."


def _rows(model: describe.Model, above: str = "") -> Iterator[Row]:
    """The keys of a model, each followed by those below it, with dots between."""
    for name, hint in describe.hints(model).items():
        key = key_of(model, name)
        yield (
            f"`{above}{key}`",
            _in_words(model, name, hint),
            describe.default_in_words(model, name),
            describe.text_of(model, name),
        )
        for below in describe.models(hint):
            yield from _rows(below, f"{above}{key}.")


def _defaults() -> Iterator[Row]:
    """What stands in full under `routes`."""
    return ((key, kind, default, "As in [routes](#routes).") for key, kind, default, _ in _rows(Defaults))


def _table(rows: Iterator[Row]) -> str:
    lines = ["| key | type | default | what it does |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _in_words(model: describe.Model, name: str, hint: Any) -> str:
    kind = describe.kind_of_field(model, name)
    return kind.one_value if kind else _words(hint)


def _words(hint: Any, *, several: bool = False) -> str:
    kind, number = describe.kind_of(hint), describe.bounds(hint)
    if kind is not None:
        return kind.several if several else kind.one_value
    if number is not None:
        return f"whole number, {number[0]} to {number[1]}"
    if isinstance(hint, type):
        return "mappings" if several else "mapping"
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(inner[0], several=several)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"{'lists' if several else 'list'} of {_words(inner[0], several=True)}"
    if origin is dict:
        return f"mapping of {_words(inner[0], several=True)} to {_words(inner[1], several=True)}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(branch) for branch in inner if branch is not type(None)))
    raise TypeError(f"no words are known for the type {hint!r}")


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
