"""The prose in a file as paragraphs: Markdown without its code, and docstrings, comments and help texts of Python."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Stands for code in a sentence. A capital letter, so that a sentence may begin with it.
CODE: Final = "CODE"
_INLINE = re.compile(r"(`+)(?!`)[^`]+?\1(?!`)|\{\{.*?\}\}|<?\bhttps?://[^\s)>]+>?")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"\*\*|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_FENCE = re.compile(r"\s*(```|~~~)")
_COMMENT = re.compile(r"(?:^|(?<=\s))#(?!!)[:#]?\s?(.*)")
_PRAGMA = re.compile(r"(?:type:|noqa|pragma|ruff:|mypy:|hadolint|syntax=|-\*-)")
#: A sentence begins with a capital letter, a digit, or a name such as docs/decisions.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*(?:[A-Z0-9]|[a-z]+[/_.][a-z]))")
#: Arguments whose text a user reads: descriptions in the API, help of commands.
_HELP: Final = {"description", "summary", "help", "short_help", "epilog", "response_description"}


@dataclass(frozen=True)
class Paragraph:
    """Text on one line; `starts` has where each line of the file begins in it."""

    text: str
    starts: tuple[tuple[int, int], ...]  # offset in the text, line of the file

    def line(self, offset: int) -> int:
        """The line of the file at this offset of the text."""
        return max((start, line) for start, line in self.starts if start <= offset)[1]

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Each sentence with its offset."""
        begin = 0
        for end in _SENTENCE_END.finditer(self.text):
            yield begin, self.text[begin : end.start()]
            begin = end.end()
        yield begin, self.text[begin:]


def words(sentence: str) -> int:
    """How many words a sentence has; a piece of code is one."""
    return len(re.findall(r"\w[\w'’./-]*", sentence))


def paragraphs(path: Path) -> Iterator[Paragraph]:
    """The prose of a file, by its kind: Markdown, Python, or a file with # comments."""
    text = path.read_text()
    if path.suffix == ".md":
        yield from _markdown(list(enumerate(text.splitlines(), 1)))
    elif path.suffix == ".py":
        for line, block in _docstrings(ast.parse(text)):
            yield from _markdown(list(enumerate(block.splitlines(), line)))
        yield from _comments(_python_comments(text))
    else:
        lines = enumerate(text.splitlines(), 1)
        found = ((number, line, _COMMENT.search(line)) for number, line in lines)
        yield from _comments((number, line[: match.start()], match[1]) for number, line, match in found if match)


def _joined(lines: Iterable[tuple[int, str]]) -> Iterator[Paragraph]:
    """One paragraph of these lines; none when they hold no word."""
    text, starts = "", []
    for number, line in lines:
        text += " " if text else ""
        starts.append((len(text), number))
        text += line.strip()
    if re.search(r"[^\W\d_]", text):
        yield Paragraph(text, tuple(starts))


def _same_lines(before: str, after: str) -> str:
    return after + "\n" * (before.count("\n") - after.count("\n"))


def _plain(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Lines without code, addresses and marks of Markdown. Code may begin on one line and end on the next."""
    whole = "\n".join(line for _, line in lines)
    whole = _INLINE.sub(lambda match: _same_lines(match[0], CODE), whole)
    whole = _LINK.sub(lambda match: _same_lines(match[0], match[1]), whole)
    whole = _EMPHASIS.sub("", whole)
    return [(number, line) for (number, _), line in zip(lines, whole.split("\n"), strict=bool(lines))]


def _markdown(lines: list[tuple[int, str]]) -> Iterator[Paragraph]:
    """Paragraphs, items of lists, headings and cells of tables, without blocks of code."""
    block: list[tuple[int, str]] = []
    fenced = False
    for number, line in [*lines, (0, "")]:
        if _FENCE.match(line):
            fenced = not fenced
            line = ""
        item = _ITEM.match(line)
        if fenced or not line.strip() or item or line.lstrip().startswith(("#", "|")):
            yield from _joined(_plain(block))
            block = []
        if fenced or not line.strip():
            continue
        if line.lstrip().startswith("|"):
            [(_, row)] = _plain([(number, line)])
            for cell in re.split(r"(?<!\\)\|", row):
                yield from _joined([(number, cell)])
        elif line.lstrip().startswith("#"):
            yield from _joined(_plain([(number, line.lstrip("# "))]))
        elif item or block or not line.startswith("    "):  # Code is indented by four.
            block.append((number, line[item.end() :] if item else line.lstrip("> ")))


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings of everything, attributes too, and the texts that users read in help and in the API."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            found: ast.expr | None = node.value
        elif isinstance(node, ast.keyword) and node.arg in _HELP:
            found = node.value
        else:
            continue
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.lineno, re.sub(f"(?m)^ {{0,{found.col_offset}}}", "", found.value)


def _python_comments(text: str) -> Iterator[tuple[int, str, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and (match := _COMMENT.match(token.string)):
            yield token.start[0], token.line[: token.start[1]], match[1]


def _comments(found: Iterable[tuple[int, str, str]]) -> Iterator[Paragraph]:
    """Paragraphs of comments. Each has its line, what stands before it there, and its text.

    A comment alone on its line goes on with the one above it, when both begin at the same column.
    """
    block: list[tuple[int, str]] = []
    last = (0, 0)
    for line, before, text in found:
        if _PRAGMA.match(text):
            continue
        if before.strip() or last != (line - 1, len(before)):
            yield from _markdown(block) if block else ()
            block = []
        block.append((line, text))
        last = (line, len(before))
    yield from _markdown(block) if block else ()
