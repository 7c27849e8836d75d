"""The style check of `make prose`: proselint's checks and our own, on everything that people read here. No network.

    python -m tools.prose                 # every file of [tool.prose] in pyproject.toml
    python -m tools.prose docs app/kit/db.py  # these alone
    python -m tools.prose --count docs    # how many of each, by folder

It reads Markdown, and in Python docstrings, comments and help texts; in other files comments that begin with #. The rules
are in tools/prose_rules.py. Spelling is checked by `typos`, which `make prose` runs too.
"""

import argparse
import ast
import re
import sys
import tomllib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proselint import checks as proselint
from proselint.registry.checks import Check, engine, types

from tools.prose_rules import RULES
from tools.prose_text import Paragraph, paragraphs, words

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIG: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prose"]
#: Stands between two paragraphs, so that no pattern goes from one into the next.
BETWEEN: Final = "\n\n.\n\n"
#: Names that say nothing of what the value is.
VAGUE: Final = frozenset({"about", "one", "said", "tell", "told"})


@dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def checks() -> list[Check]:
    """Ours, and those of proselint that are not `off`."""
    off = tuple(CONFIG["off"])
    theirs = [check for check in proselint.__register__ if not check.path.startswith(off)]
    patterns = engine.Fancy(engine.RegexOptions(multi_line=True))
    ours = [Check(types.ExistenceSimple(rule.pattern), patterns, rule.name, f"'{{}}': {rule.why}") for rule in RULES]
    return [*ours, *theirs]


def check_file(path: Path, with_checks: Sequence[Check]) -> Iterator[Finding]:
    """Everything that is wrong in a file."""
    name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    if path.suffix == ".py":
        yield from _vague_names(name, ast.parse(path.read_text()))
    if name.startswith(tuple(CONFIG["only_names"])):
        return
    text, begins, found = "", [], list(paragraphs(path))
    for paragraph in found:
        text += BETWEEN
        begins.append(len(text))
        text += paragraph.text
        yield from _long_sentences(name, paragraph)
    for check in with_checks:
        for result in check.check_with_flags(text):
            # Some patterns of proselint take in the space before a word.
            at = bisect_right(begins, result.span[0] + 1) - 1
            message = " ".join(result.message.split())
            # Two pieces of code, or a word and a constant, are no word that was written twice.
            if check.path != "lexical_illusions" or not re.search("[A-Z0-9]", message.split("'", 2)[-1]):
                yield Finding(name, found[at].line(max(result.span[0] - begins[at], 0)), check.path, message)


def _long_sentences(name: str, paragraph: Paragraph) -> Iterator[Finding]:
    for offset, sentence in paragraph.sentences():
        if (count := words(sentence)) > CONFIG["words"]:
            begin = " ".join(sentence.split()[:5])
            yield Finding(name, paragraph.line(offset), "long-sentence", f"{count} words, split it: '{begin} ...'")


def _vague_names(name: str, tree: ast.AST) -> Iterator[Finding]:
    """Variables, arguments and attributes that are assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            given = node.attr
        elif isinstance(node, ast.arg):
            given = node.arg
        else:
            continue
        if given in VAGUE:
            yield Finding(name, node.lineno, "vague-name", f"'{given}': name the thing that it holds")


def _below(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.suffix in (".md", ".py")) if path.is_dir() else [path]


def files(named: Sequence[str]) -> list[Path]:
    """The files below the named paths; without any, those of the configuration."""
    if named:
        return [path for name in named for path in _below(Path(name).resolve())]
    return sorted({path for pattern in CONFIG["files"] for path in ROOT.glob(pattern) if path.is_file()})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prose", description="Check the style of texts.")
    parser.add_argument("paths", nargs="*", help="files and folders (default: those of pyproject.toml)")
    parser.add_argument("--count", action="store_true", help="print how many of each rule, by folder")
    given = parser.parse_args()
    with_checks = checks()
    found = sorted(finding for path in files(given.paths) for finding in check_file(path, with_checks))
    if given.count:
        counted = Counter((finding.path.partition("/")[0], finding.rule) for finding in found)
        for (folder, rule), count in sorted(counted.items()):
            print(f"{count:6} {folder:16} {rule}")
    else:
        for finding in found:
            print(finding)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
