"""A policy file as YAML: plain values, and the line and column of each, so that every error names its place.

Scalars follow the core schema of YAML 1.2: true, false, null and numbers; `no`, `on`, `12:30` and `007` are strings.
PyYAML's scanner and parser do the rest; PyYAML alone would read YAML 1.1.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml
from pydantic import JsonValue
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from app.policy.file.problems import Path, PolicyError, Problem, dotted
from app.policy.language.variables import Filled, Unexpanded, expand, filled

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 50_000
MAX_DEPTH: Final = 50
_MAX_DIGITS: Final = 300

_PLAIN = "plain"
_STR = "tag:yaml.org,2002:str"
_KNOWN_TAGS = {_PLAIN, _STR, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# Numbers with leading zeros stay strings: 007 and 0600 are names or modes more often than numbers.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value begins (from 1). `shift`: how far its first character is from there; None if that varies."""

    line: int
    column: int
    shift: int | None = None

    def at(self, offset: int) -> "Place":
        """The place of the character `offset` of a string, as exactly as its quoting allows."""
        return self if self.shift is None else Place(self.line, self.column + self.shift + offset)


@dataclass(frozen=True)
class Document:
    """A readable file. `value` has the variables filled in; `raw` has them as written. Both have the same shape."""

    file: str
    value: JsonValue
    raw: JsonValue
    values: Mapping[Path, Place]
    keys: Mapping[Path, Place]
    problems: tuple[Problem, ...]
    filled: Mapping[Path, Filled] = field(default_factory=dict, repr=False)  # the strings that hold variables
    spans: Mapping[Path, tuple[int, int]] = field(
        default_factory=dict, repr=False
    )  # of scalars: characters of the text

    def problem(self, path: Path, message: str, *, key: bool = False, offset: int | None = None) -> Problem:
        """A problem at a value, at its key, or `offset` characters into it. For an absent key the place is its parent."""
        known, places = path, self.keys if key and path in self.keys else self.values
        while known and known not in places:
            known = known[:-1]
        place = places[known] if offset is None or known != path else places[known].at(offset)
        return Problem(self.file, place.line, place.column, dotted(path), self._as_written(path, message))

    def _as_written(self, path: Path, message: str) -> str:
        for each in self.filled.values():
            message = each.hidden(message)
        for place, each in self.filled.items():
            if place[: len(path)] == path[: len(place)] and each.shows(message):
                names = ", ".join(f"${{{name}}}" for name in each.values)
                return f"this does not fit, with the value of {names}, which is not shown"
        return message


def read_document(text: str, file: str, env: Mapping[str, str], *, require_env: bool) -> Document:
    """Read YAML text. Raises PolicyError when it is no YAML, or too large or too deep to be a policy.

    Problems that do not stop the reading are in `Document.problems`: duplicate keys, unset and malformed variables (unset
    ones only with `require_env`), and values that JSON or PostgreSQL cannot hold.
    """
    if len(text) > MAX_BYTES or len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise PolicyError([Problem(file, 1, 1, "policy", f"the file is larger than {MAX_BYTES >> 20} MiB")])
    try:
        loader = _Loader(text)
    except ReaderError as error:
        raise PolicyError([_unreadable(text, file, error)]) from None
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise PolicyError([_syntax(file, error)]) from None
    except (ValueError, OverflowError):
        # PyYAML computes some escapes, such as "\UFFFFFFFF", and does not check whether that character exists.
        mark = loader.get_mark()
        message = "not readable as YAML: there is no such character"
        raise PolicyError([Problem(file, mark.line + 1, mark.column + 1, "policy", message)]) from None
    if node is None:
        raise PolicyError([Problem(file, 1, 1, "policy", "the file is empty")])
    builder = _Builder(text, file, env, require_env)
    value, raw = builder.build(node, ())
    places = builder.values, builder.keys
    return Document(file, value, raw, *places, tuple(builder.problems), builder.filled, builder.spans)


class _Loader(Reader, Scanner, Parser, Composer):
    """PyYAML's stages up to the node tree, with limits, and without its YAML 1.1 resolver."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            reason = f"more than {MAX_NODES} values" if self._nodes > MAX_NODES else f"more than {MAX_DEPTH} levels"
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"{reason} are too much", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[Node], _value: str | None, implicit: tuple[bool, bool] | bool | None) -> str:
        if kind is ScalarNode:
            return _PLAIN if isinstance(implicit, tuple) and implicit[0] else _STR
        return "tag:yaml.org,2002:seq" if kind is SequenceNode else "tag:yaml.org,2002:map"

    def descend_resolver(self, current_node: Node | None, current_index: int) -> None:
        """Path resolvers belong to YAML 1.1 loaders; there are none here."""

    def ascend_resolver(self) -> None:
        """See `descend_resolver`."""


class _Builder:
    """Turns nodes into values. YAML aliases are copied, so each copy counts towards the limits."""

    def __init__(self, text: str, file: str, env: Mapping[str, str], require_env: bool) -> None:
        self._text, self._file, self._env, self._require_env = text, file, env, require_env
        self._count = 0
        self.values: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.problems: list[Problem] = []
        self.filled: dict[Path, Filled] = {}
        self.spans: dict[Path, tuple[int, int]] = {}

    def build(self, node: Node, path: Path) -> tuple[JsonValue, JsonValue]:
        """The value of a node as (expanded, raw)."""
        self._count += 1
        if self._count > MAX_NODES or len(path) > MAX_DEPTH:
            place = _place(node)
            message = "aliases repeat too many values, or themselves"
            raise PolicyError([Problem(self._file, place.line, place.column, dotted(path[:3]), message)])
        self.values[path] = self._exact_place(node) if isinstance(node, ScalarNode) else _place(node)
        if node.tag not in _KNOWN_TAGS:
            self._report(path, f"the tag {node.tag} is not supported")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            pairs = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return [value for value, _ in pairs], [raw for _, raw in pairs]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> tuple[JsonValue, JsonValue]:
        value: dict[str, JsonValue] = {}
        raw: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            place = _place(key_node)
            if not isinstance(key_node, ScalarNode):
                self._report_at(place, path, "a key must be plain text")
                continue
            key, inner = key_node.value, (*path, key_node.value)
            if key == "<<" and key_node.tag == _PLAIN:
                self._report_at(place, inner, "merge keys are not part of YAML 1.2; use `defaults:` or repeat the keys")
            elif inner in self.keys and key in value:
                self._report_at(place, inner, f"this key is here twice, first on line {self.keys[inner].line}")
            else:
                self.keys[inner] = place
                self._report_characters(key, inner)
                value[key], raw[key] = self.build(value_node, inner)
        return value, raw

    def _scalar(self, node: Node, path: Path) -> tuple[JsonValue, JsonValue]:
        text = str(node.value)
        self.spans[path] = node.start_mark.index, node.end_mark.index
        if node.tag == _PLAIN:
            try:
                plain = _core(text)
            except ValueError:
                self._report(path, "JSON has no such number; put it in quotes if it is text")
                return text, text
            if not isinstance(plain, str):
                return plain, plain
        self._report_characters(text, path)
        expanded, missing, malformed = expand(text, self._env) if "${" in text else (text, (), ())
        for sentence in malformed:
            self._report(path, sentence)
        if self._require_env:
            for name in missing:
                self._report(path, f"the environment variable {name} is not set")
        if expanded != text and not isinstance(expanded, Unexpanded):
            # Later errors count characters in the expanded text, which is not the text in the file.
            self.values[path] = Place(self.values[path].line, self.values[path].column)
            self.filled[path] = filled(text, expanded, self._env)
        return expanded, text

    def _exact_place(self, node: ScalarNode) -> Place:
        place = _place(node)
        written = self._text[node.start_mark.index : node.end_mark.index]
        if written == node.value:
            return Place(place.line, place.column, 0)
        return Place(place.line, place.column, 1) if written[1:-1] == node.value else place

    def _report_characters(self, text: str, path: Path) -> None:
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            self._report(path, "a NUL character or half of a surrogate pair cannot be stored")

    def _report(self, path: Path, message: str) -> None:
        self._report_at(self.values.get(path) or self.keys[path], path, message)

    def _report_at(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(Problem(self._file, place.line, place.column, dotted(path), message))


def _core(text: str) -> JsonValue:
    """The value of a plain scalar in YAML 1.2's core schema. Raises ValueError for a number that JSON cannot write."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    is_number = bool(_INT.fullmatch(text) or _FLOAT.fullmatch(text) or _BASED_INT.fullmatch(text))
    if _NOT_A_NUMBER.fullmatch(text) or (is_number and len(text) > _MAX_DIGITS):
        raise ValueError(text)
    if not is_number:
        return text
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _INT.fullmatch(text):
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax(file: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    sentence = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem(file, line, column, "policy", f"not readable as YAML: {sentence}")


def _unreadable(text: str, file: str, error: ReaderError) -> Problem:
    before = text[: error.position]
    column = len(before) - (before.rfind("\n") + 1) + 1
    code = error.character if isinstance(error.character, int) else ord(error.character)
    return Problem(file, before.count("\n") + 1, column, "policy", f"the character U+{code:04X} is not allowed in YAML")
