"""The rules of a promotion: comparisons of metrics. Our own parser reads them, so nothing is ever executed.

    rule       = all ("or" all)*
    all        = one ("and" one)*
    one        = sum ("<" | "<=" | ">" | ">=" | "==" | "!=") sum  |  "(" rule ")"
    sum        = product (("+" | "-") product)*
    product    = factor (("*" | "/") factor)*
    factor     = "-" factor  |  number [unit]  |  metric  |  "(" sum ")"
    metric     = ["champion" "."] (name | "`" any name "`")

A metric is a plain number. A unit changes a number: `%` makes a hundredth of it, `ms s m h d` make seconds of it, and `KiB
MiB GiB` make bytes of it. `app.promotion.rules` evaluates the rules.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, NoReturn

MAX_LENGTH: Final = 1000  # characters of one rule
MAX_DEPTH: Final = 40  # parentheses and signs inside each other
MAX_OPERATORS: Final = 100  # + - * / of one rule: each makes the tree deeper
INCUMBENT: Final = "champion"  # the version that holds `to` now, whatever `to` is called

UNITS: Final[Mapping[str, Decimal]] = {
    "%": Decimal("0.01"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
    "KiB": Decimal(2**10),
    "MiB": Decimal(2**20),
    "GiB": Decimal(2**30),
}

# A number with letters behind it is one token, so the error for `10min` shows the whole of it.
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?P<unit>%|[A-Za-z]+)?"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|`(?P<quoted>[^`]+)`|(?P<sign><=|>=|==|!=|[<>+\-*/().])|(?P<other>\S)|(?P<end>$))"
)
_COMPARISONS: Final = ("<", "<=", ">", ">=", "==", "!=")

Comparator = Literal["<", "<=", ">", ">=", "==", "!="]
Operator = Literal["+", "-", "*", "/"]


class RuleError(ValueError):
    """A rule that cannot be read; `offset` counts characters of its text from 0."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


@dataclass(frozen=True, slots=True)
class Number:
    """A number. Its unit is already counted in."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the version to promote, or of the incumbent."""

    name: str
    incumbent: bool = False

    def __str__(self) -> str:
        name = self.name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name) else f"`{self.name}`"
        return f"{INCUMBENT}.{name}" if self.incumbent else name


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two terms with an operator between them."""

    operator: Operator
    left: "Term"
    right: "Term"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two terms that are compared."""

    comparator: Comparator
    left: "Term"
    right: "Term"


@dataclass(frozen=True, slots=True)
class Joined:
    """Several conditions. All (`and`) or one (`or`) must hold."""

    word: Literal["and", "or"]
    parts: tuple["Condition", ...]


Term = Number | Metric | Arithmetic
Condition = Comparison | Joined
_Level = Callable[[], tuple[Condition | Term, int]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its text and its condition."""

    text: str
    condition: Condition

    def __str__(self) -> str:
        return self.text


def parse_rule(text: str, incumbent: str = INCUMBENT) -> Rule:
    """Read one rule, in which `incumbent` is the name of what is compared with. Raises RuleError at the first character that
    does not fit."""
    if len(text) > MAX_LENGTH:
        raise RuleError(MAX_LENGTH, f"a rule has at most {MAX_LENGTH} characters")
    return Rule(text, _Reader(text, incumbent).read())


def metrics_in(part: Condition | Term) -> Iterator[Metric]:
    """Every metric that the rule names, in the order of the text."""
    match part:
        case Metric():
            yield part
        case Arithmetic() | Comparison():
            yield from metrics_in(part.left)
            yield from metrics_in(part.right)
        case Joined():
            for inner in part.parts:
                yield from metrics_in(inner)


class _Reader:
    """One pass over one rule. Each part is a condition or a term; the grammar says which one it must be."""

    def __init__(self, text: str, incumbent: str) -> None:
        self._text = text
        self._incumbent = incumbent
        self._depth = 0
        self._operators = 0
        self._next(0)

    def read(self) -> Condition:
        condition = self._condition(self._any())
        if self._kind != "end":
            if self._seen in _COMPARISONS:
                self._fail("one comparison after another; join two with `and`")
            self._fail("expected `and`, `or` or the end")
        return condition

    # Parentheses may hold a condition or a term, and only their end shows which. So each level returns what it found and
    # where that began.

    def _any(self) -> tuple[Condition | Term, int]:
        return self._junction("or", lambda: self._junction("and", self._one))

    def _junction(self, word: Literal["and", "or"], inner: _Level) -> tuple[Condition | Term, int]:
        first, start = inner()
        if self._seen != word or self._kind != "name":
            return first, start
        parts = [self._condition((first, start))]
        while self._kind == "name" and self._seen == word:
            self._advance()
            parts.append(self._condition(inner()))
        return Joined(word, tuple(parts)), start

    def _one(self) -> tuple[Condition | Term, int]:
        left, start = self._sum()
        if self._seen not in _COMPARISONS or self._kind != "sign":
            return left, start
        comparator: Comparator = self._seen  # type: ignore[assignment]
        term = self._term((left, start))
        self._advance()
        return Comparison(comparator, term, self._term(self._sum())), start

    def _sum(self) -> tuple[Condition | Term, int]:
        return self._chain("+-", lambda: self._chain("*/", self._factor))

    def _chain(self, operators: str, inner: _Level) -> tuple[Condition | Term, int]:
        left, start = inner()
        while self._kind == "sign" and self._seen in operators:
            operator: Operator = self._seen  # type: ignore[assignment]
            term = self._term((left, start))
            self._operators += 1
            if self._operators > MAX_OPERATORS:
                self._fail(f"a rule has at most {MAX_OPERATORS} of + - * /")
            self._advance()
            left = Arithmetic(operator, term, self._term(inner()))
        return left, start

    def _factor(self) -> tuple[Condition | Term, int]:
        start = self._at
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses and signs inside each other")
        found = self._atom()
        self._depth -= 1
        return found, start

    def _atom(self) -> Condition | Term:
        if self._take("-"):
            return Arithmetic("-", Number(Decimal(0)), self._term(self._factor()))
        if self._take("("):
            opened = self._before
            inner, _ = self._any()
            if not self._take(")"):
                self._fail(f"the parenthesis at character {opened + 1} is not closed: expected )")
            return inner
        if self._kind == "number":
            return self._number()
        if self._kind not in ("name", "quoted"):
            self._fail("expected a number, the name of a metric, - or (")
        return self._metric()

    def _number(self) -> Number:
        written, unit = self._match["number"], self._match["unit"] or ""
        if unit and unit not in UNITS:
            at = self._match.start("unit")
            raise RuleError(at, f"{unit!r} is not a unit; the units are {', '.join(UNITS)}")
        if len(written) > 40 or re.search(r"[eE][+-]?[0-9]{4,}", written):
            self._fail("this number is too long")
        self._advance()
        return Number(Decimal(written) * UNITS.get(unit, Decimal(1)))

    def _metric(self) -> Metric:
        name, plain = self._name()
        if self._seen != "." or self._kind != "sign":
            if plain and name == self._incumbent:
                self._fail(f"expected a dot and a metric, as in {self._incumbent}.f1")
            return Metric(name)
        if not plain or name != self._incumbent:
            self._fail(f"only {self._incumbent} takes a dot; write a name with a dot in backticks")
        self._advance()
        if self._kind not in ("name", "quoted"):
            self._fail(f"expected a metric after {self._incumbent} and the dot")
        return Metric(self._name()[0], incumbent=True)

    def _name(self) -> tuple[str, bool]:
        if self._kind == "name" and self._seen in ("and", "or"):
            self._fail(f"expected a metric; one that is called {self._seen} is written in backticks")
        name, plain = self._seen, self._kind == "name"
        self._advance()
        return name, plain

    def _condition(self, found: tuple[Condition | Term, int]) -> Condition:
        part, _ = found
        if not isinstance(part, Comparison | Joined):
            self._fail("expected a comparison: one of < <= > >= == !=")
        return part

    def _term(self, found: tuple[Condition | Term, int]) -> Term:
        part, start = found
        if isinstance(part, Comparison | Joined):
            raise RuleError(start, "expected a number here, not a comparison")
        return part

    # Tokens.

    def _next(self, at: int) -> None:
        found = _TOKEN.match(self._text, at)
        assert found is not None  # The last three alternatives take everything.
        self._match = found
        self._kind = next(
            kind for kind in ("number", "name", "quoted", "sign", "other", "end") if found[kind] is not None
        )
        self._seen = found[self._kind]
        self._at = found.start(self._kind) - (self._kind == "quoted")
        if self._kind == "other":
            if self._seen == "`":
                raise RuleError(self._at, "this backtick is never closed, or nothing is inside")
            hint = "; use ==, >= or <=" if self._seen == "=" else ""
            raise RuleError(self._at, f"unexpected {self._seen!r}{hint}")

    def _advance(self) -> None:
        self._before = self._at
        self._next(self._match.end())

    def _take(self, sign: str) -> bool:
        if self._kind != "sign" or self._seen != sign:
            return False
        self._advance()
        return True

    def _fail(self, message: str) -> NoReturn:
        found = f"found {self._seen!r}" if self._kind != "end" else "found the end"
        raise RuleError(self._at, f"{message}, {found}")
