"""The two grammars of Alertmanager's matchers: from text to terms. Regular expressions are not compiled here.

The UTF-8 grammar came with Alertmanager 0.27; the classic one is older and less strict. Sources: the project's
documentation of matchers and its compliance tests. We took only the grammar from there; the code is our own.
"""

import re
import string
from typing import NamedTuple, NoReturn

RESERVED = "{}!=~,\\\"'`"
# Unicode's White_Space property, which is what Go calls a space; Python's str.isspace() also takes U+001C to U+001F.
SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

_SPACE_RUN = re.compile(f"[{SPACES}]*")
_LITERAL = re.compile(f"[^{re.escape(RESERVED)}{SPACES}]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPERATOR = re.compile("=~|!~|!=|=")
_ESCAPE = re.compile(
    r"\\(?:(?P<plain>[abfnrtv\\\"])|x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2})"
    r"|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8}))"
)
_PLAIN_ESCAPES = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))

_CLASSIC_SPACES = "\t\n\f\r "
_CLASSIC_HEAD = re.compile(r"[\t\n\f\r ]*([a-zA-Z_:][a-zA-Z0-9_:]*)[\t\n\f\r ]*(=~|=|!=|!~)[\t\n\f\r ]*")
_CLASSIC_PIECE = re.compile(r'(?:[^",\\]|\\[^,]|\\(?=,)|\\\Z|"(?:[^"\\]|\\.)*(?:"|\\?\Z))*', re.DOTALL)


class MatcherError(ValueError):
    """A matcher that cannot be read. `offset` is the 0-based character of the string where the mistake is."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class Term(NamedTuple):
    """`name op value` without escapes. `offset` is where the value starts, for errors in a regular expression."""

    name: str
    op: str
    value: str
    offset: int


class Utf8Reader:
    """One pass of the UTF-8 grammar over one string: `[{] term (, term)* [,] [}]`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> tuple[Term, ...]:
        """Every term of the string. Raises MatcherError."""
        terms: list[Term] = []
        braces = self._take("{")
        while not self._at_end() and not self._ahead("}"):
            terms.append(self._term())
            if not self._take(","):
                break
        if braces and not self._take("}"):
            self._fail("expected a comma or a closing brace")
        if not braces and self._ahead("}"):
            self._fail("there is a closing brace without an opening one")
        if not self._at_end():
            self._fail("expected a comma" if not braces else "expected the end after the closing brace")
        return tuple(terms)

    def _term(self) -> Term:
        name = self._word("a label name")
        operator = _OPERATOR.match(self._text, self._skip_spaces())
        if operator is None:
            self._fail("expected one of = != =~ !~")
        self._at = operator.end()
        start = self._skip_spaces()
        return Term(name, operator.group(), self._word('a label value; an empty one is written ""'), start)

    def _word(self, wanted: str) -> str:
        start = self._skip_spaces()
        if self._ahead('"'):
            quoted = _QUOTED.match(self._text, start)
            if quoted is None:
                raise MatcherError(start, "this double quote is never closed")
            self._at = quoted.end()
            return unquote(quoted.group(), start)
        literal = _LITERAL.match(self._text, start)
        if literal is None:
            self._fail(f"expected {wanted}")
        self._at = literal.end()
        return literal.group()

    def _skip_spaces(self) -> int:
        run = _SPACE_RUN.match(self._text, self._at)
        self._at = run.end() if run else self._at
        return self._at

    def _at_end(self) -> bool:
        return self._skip_spaces() == len(self._text)

    def _ahead(self, character: str) -> bool:
        return self._text.startswith(character, self._skip_spaces())

    def _take(self, character: str) -> bool:
        if not self._ahead(character):
            return False
        self._at += 1
        return True

    def _fail(self, message: str) -> NoReturn:
        found = self._text[self._at : self._at + 1]
        raise MatcherError(self._at, f"{message}, found {found!r}" if found else f"{message}, found the end")


def unquote(quoted: str, offset: int) -> str:
    r"""The value of a double-quoted string with Go's escapes: \n \t \\ \", bytes as \xFF or \377, \u1234, \U0001F642.

    `offset` is its place in the whole string. Raises MatcherError for other escapes, line feeds and bytes that are not
    UTF-8.
    """
    inner, value, at = quoted[1:-1], bytearray(), 0
    while at < len(inner):
        if inner[at] == "\n":
            raise MatcherError(offset + 1 + at, r"write a line feed inside quotes as \n")
        if inner[at] != "\\":
            value += inner[at].encode()
            at += 1
            continue
        escape = _ESCAPE.match(inner, at)
        if escape is None:
            written = inner[at : at + 2]
            raise MatcherError(offset + 1 + at, f"{written} is not an escape; write a backslash itself as \\\\")
        value += _unescape(escape, offset + 1 + at)
        at = escape.end()
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MatcherError(offset, "the escaped bytes are not UTF-8") from None


def _unescape(escape: re.Match[str], offset: int) -> bytes:
    kind = escape.lastgroup or ""
    digits = escape[kind]
    if kind == "plain":
        return _PLAIN_ESCAPES[digits].encode()
    if kind in ("hex", "octal"):
        return bytes([int(digits, 16 if kind == "hex" else 8)])
    point = int(digits, 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise MatcherError(offset, f"{escape.group()} is not a Unicode character")
    return chr(point).encode()


def read_classic(text: str) -> tuple[Term, ...]:
    """Every term of a string in the classic grammar. Commas outside quotes separate terms; braces around all are optional.

    Raises MatcherError.
    """
    start = 1 if text.startswith("{") else 0
    end = len(text) - 1 if text.endswith("}") and len(text) > start else len(text)
    terms = []
    while start <= end:
        piece = _CLASSIC_PIECE.match(text, start, end)
        stop = piece.end() if piece else end
        if stop < end or text[start:stop].strip(SPACES):
            terms.append(_classic_term(text[start:stop], start))
        start = stop + 1
    return tuple(terms)


def _classic_term(piece: str, offset: int) -> Term:
    head = _CLASSIC_HEAD.match(piece)
    if head is None:
        raise MatcherError(offset, 'expected a matcher such as alertname="ModelAccuracyLow"')
    name, op = head.groups()
    value = piece[head.end() :].rstrip(_CLASSIC_SPACES)
    start = offset + head.end()
    quoted = value.startswith('"')
    body = value[1:] if quoted else value
    closing = re.search(r'(?<!\\)(?:\\\\)*(")', body)
    if quoted != (closing is not None) or (closing and closing.end() != len(body)):
        raise MatcherError(
            start, "the value has a double quote that is not escaped and does not enclose the whole value"
        )
    return Term(name, op, _classic_unescape(body[:-1] if quoted else body), start)


def _classic_unescape(text: str) -> str:
    # Any other backslash stays as it is, so "\d+" can be written in a regular expression without escapes.
    return re.sub(r'\\([n"\\])', lambda found: "\n" if found[1] == "n" else found[1], text)


def quote(text: str) -> str:
    """`text` in double quotes, as both grammars read it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def is_classic_name(name: str) -> bool:
    """Whether a label name needs no quotes in either grammar."""
    return (
        bool(name) and name[0] not in string.digits and not set(name) - set(string.ascii_letters + string.digits + "_:")
    )
