"""Placeholders in a policy: `{{group.model}}`, or `{{group["model-name"]}}` for a label that is not an identifier. What is
about a model version has `{{version.model}}` and `{{version.version}}`.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import re2
from pydantic import JsonValue

_PLACEHOLDER = re.compile(r'\{\{\s*group(?:\.([a-zA-Z_][a-zA-Z0-9_]*)|\[\s*"([^"\\{}]+)"\s*\])\s*\}\}')

_OF_VERSION = re.compile(r"\{\{\s*version\.(model|version)\s*\}\}")


class TemplateError(ValueError):
    """A `{{` that does not begin a placeholder. `offset` is its 0-based character."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


def placeholders(text: str) -> tuple[str, ...]:
    """The group keys that a text names, in order, with repeats. Raises TemplateError for any other `{{`."""
    return tuple(key for key, _ in placed(text))


def placed(text: str) -> Iterator[tuple[str, int]]:
    """Each group key that a text names, with the 0-based offset of its placeholder. Raises TemplateError."""
    for found in _found(text, _PLACEHOLDER, 'only {{group.label}} or {{group["label"]}} may stand in double braces'):
        yield found[1] or found[2], found.start()


def of_version(text: str) -> list[str]:
    """What a text names of a model version: `model`, `version`. Raises TemplateError for any other `{{`."""
    error = "only {{version.model}} or {{version.version}} may stand in double braces"
    return [found[1] for found in _found(text, _OF_VERSION, error)]


def fill_version(text: str, model: str, version: str) -> str:
    """The text with the name of the model and the number of the version in place of their placeholders."""
    return _OF_VERSION.sub(lambda found: model if found[1] == "model" else version, text)


def _found(text: str, placeholder: re.Pattern[str], error: str) -> Iterator[re.Match[str]]:
    at = text.find("{{")
    while at >= 0:
        found = placeholder.match(text, at)
        if found is None:
            raise TemplateError(at, error)
        yield found
        at = text.find("{{", found.end())


def render(value: JsonValue, group: Mapping[str, str]) -> JsonValue:
    """A copy of `value` with every placeholder in its strings filled from `group`, in lists and mappings too.

    Keys of mappings stay as they are. A label that `group` lacks becomes "": an old group has the labels of the
    `group_by` at its time.
    """
    if isinstance(value, str):
        return render_text(value, group)
    if isinstance(value, list):
        return [render(item, group) for item in value]
    if isinstance(value, dict):
        return {key: render(item, group) for key, item in value.items()}
    return value


def render_text(text: str, group: Mapping[str, str]) -> str:
    """`render` for one string. A placeholder in the value of a label is not filled."""
    return fill(text, lambda name, _: group.get(name, ""))


def becomes(text: str, filled: str) -> bool:
    """Whether some values of its labels, none of them empty, make `filled` of a text."""
    parts = _PLACEHOLDER.sub("\0", text).split("\0")
    return re2.fullmatch("(?s:.+)".join(re2.escape(part) for part in parts), filled) is not None


def fill(text: str, value: Callable[[str, int], str]) -> str:
    """The text with `value(key, offset)` in place of each placeholder."""
    return _PLACEHOLDER.sub(lambda found: value(found[1] or found[2], found.start()), text) if "{{" in text else text


def fixed_parts(text: str) -> str:
    """The text with each placeholder blanked out by as many `x`, so that places in it stay the same."""
    return _PLACEHOLDER.sub(lambda found: "x" * len(found.group()), text)
