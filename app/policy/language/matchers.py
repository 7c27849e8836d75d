"""Alertmanager's label matchers, with Alertmanager's own engine for regular expressions (RE2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import re2

from app.policy.language.grammar import MatcherError, Term, Utf8Reader, is_classic_name, quote, read_classic

__all__ = ["Matcher", "MatcherError", "parse_matchers", "read_matchers"]

# People read a policy. An expression that compiles to a megabyte is far too long for them to check.
_MAX_MEMORY_BYTES: Final = 1 << 20
_METACHARACTERS: Final = frozenset("\\.+*?()[]{}^$")
# Label values repeat (a severity has three values), and RE2 costs more than ten times a dictionary look-up.
_REMEMBERED_VALUES: Final = 256
_LONGEST_REMEMBERED: Final = 256  # characters


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label. Regular expressions must match the whole value; a missing label is "".

    Raises MatcherError (offset 0) for an empty name, an unknown `op` and an expression that RE2 does not take.
    """

    name: str
    op: str
    value: str
    _accepts: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise MatcherError(0, "the label name is empty")
        object.__setattr__(self, "_accepts", _test_for(self.op, self.value))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels of an alert satisfy this condition."""
        return self._accepts(labels.get(self.name, ""))

    @property
    def values(self) -> frozenset[str]:
        """The values that it takes, when it names them; empty when it takes any number of values."""
        if self.op == "=":
            return frozenset({self.value})
        return _named_in(self.value) if self.op == "=~" else frozenset()

    def __str__(self) -> str:
        name = self.name if is_classic_name(self.name) else quote(self.name)
        return f"{name}{self.op}{quote(self.value)}"


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Every matcher of one string, with or without braces. One comma may stand at the end.

    Raises MatcherError with the 0-based offset of the mistake.
    """
    return read_matchers(text)[0]


def read_matchers(text: str) -> tuple[tuple[Matcher, ...], str | None]:
    """The same as `parse_matchers`, with a warning (or None) where Alertmanager itself would log one.

    Both grammars read the string. The classic meaning counts when only the classic grammar can read it, or when the two
    disagree, as in Alertmanager's default (fallback) mode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MatcherError(error.start, "this character is not valid Unicode text") from None
    modern = _attempt(lambda: Utf8Reader(text).read())
    classic = _attempt(lambda: read_classic(text))
    if isinstance(classic, MatcherError):
        if isinstance(modern, MatcherError):
            raise modern if modern.offset >= classic.offset else classic
        return modern, None
    if isinstance(modern, MatcherError):
        return classic, f"only the classic grammar reads this ({modern.message}); write {_listed(classic)}"
    if modern != classic:
        return classic, f"the classic and the UTF-8 grammar differ, the classic one holds; write {_listed(classic)}"
    return modern, None


def _attempt(read: Callable[[], tuple[Term, ...]]) -> tuple[Matcher, ...] | MatcherError:
    try:
        return tuple(_matcher(term) for term in read())
    except MatcherError as error:
        return error


def _matcher(term: Term) -> Matcher:
    try:
        return Matcher(term.name, term.op, term.value)
    except MatcherError as error:
        raise MatcherError(term.offset, error.message) from None


def _listed(matchers: tuple[Matcher, ...]) -> str:
    return ", ".join(str(matcher) for matcher in matchers) or "{}"


def _test_for(op: str, value: str) -> Callable[[str], bool]:
    match op:
        case "=":
            return value.__eq__
        case "!=":
            return value.__ne__
        case "=~":
            return _expression(value)
        case "!~":
            accepts = _expression(value)
            return lambda found: not accepts(found)
        case _:
            raise MatcherError(0, f"{op!r} is not one of = != =~ !~")


def _named_in(pattern: str) -> frozenset[str]:
    """The values that an expression such as `critical|warning` lists; empty when it is no list."""
    return frozenset() if _METACHARACTERS.intersection(pattern) else frozenset(pattern.split("|"))


def _expression(pattern: str) -> Callable[[str], bool]:
    if named := _named_in(pattern):
        return named.__contains__
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    options.never_capture = True
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise MatcherError(0, f"not a regular expression of RE2: {_reason(error)}") from None
    # The whole value must match. Alertmanager's ^(?:...)$ means the same, but here `a)|(b` cannot break out of it.
    matches: Callable[[str], bool] = lambda found: compiled.fullmatch(found) is not None  # noqa: E731
    remembered = lru_cache(_REMEMBERED_VALUES)(matches)
    return lambda found: remembered(found) if len(found) <= _LONGEST_REMEMBERED else matches(found)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
