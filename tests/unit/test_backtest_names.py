"""Who asks for a backtest reads the names that they wrote: options on the command line, keys over HTTP."""

import ast
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.kit.errors import UsageError
from app.replay.asked import Naming, as_key, as_option, known_route, recorded_policy
from app.replay.backtest import Question, backtest
from tests.unit.builders import DAY, HOUR, NOW, policy
from tests.unit.histories import fires, line, read

ROOT = Path(__file__).parents[2]
LINES = fires("churn", timedelta(0), HOUR)
IN_FORCE = line(timedelta(0), "gateway.policy", {"text": policy().text})
OPTION = re.compile(r"(?<![\w-])--[a-z]")


def outside(naming: Naming) -> None:
    backtest(read(LINES), Question(policy(), since=NOW + 9 * DAY, until=NOW + 10 * DAY, naming=naming))


def unknown_route(naming: Naming) -> None:
    known_route("other", policy(), naming=naming)


def unknown_hash(naming: Naming) -> None:
    recorded_policy(read([IN_FORCE, *LINES]), "0123456789ab", naming)


def no_policy(naming: Naming) -> None:
    recorded_policy(read(LINES), "live", naming)


@pytest.mark.parametrize(
    ("ask", "names"),
    [(outside, ["since", "until"]), (unknown_route, ["route"]), (unknown_hash, ["compare"]), (no_policy, ["compare"])],
)
def test_an_error_names_a_parameter_as_its_reader_wrote_it(ask: Callable[[Naming], None], names: list[str]) -> None:
    for naming in (as_option, as_key):
        with pytest.raises(UsageError) as raised:
            ask(naming)
        assert [name for name in names if naming(name) not in str(raised.value)] == []
    assert not OPTION.search(str(raised.value)), "who wrote keys reads of no option"


@pytest.mark.parametrize("length", [None, HOUR])
def test_an_assumption_does_so_too(length: timedelta | None) -> None:
    def texts(naming: Naming) -> list[str]:
        report = backtest(read(LINES), Question(policy(), length=length, naming=naming))
        return [each.text for each in report.assumptions]

    assert [text for text in texts(as_option) if as_option("run") in text]
    assert [text for text in texts(as_key) if as_key("run") in text]
    assert [text for text in texts(as_key) if OPTION.search(text)] == []


def modules(name: str, known: set[str]) -> set[str]:
    """The modules of the replay that this one needs, and the module itself."""
    if name in known:
        return known
    known.add(name)
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("app.replay."):
            modules(node.module or "", known)
    return known


def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name.replace(".", "/")).with_suffix(".py").read_text())


def words_of(tree: ast.Module) -> Iterator[str]:
    """Every text of a module that is no docstring."""
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docs = {id(node.body[0].value) for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_what_works_over_http_has_no_text_with_an_option() -> None:
    needed = modules("app.replay.jobs.process", set())
    assert {"app.replay.backtest", "app.replay.asked", "app.replay.replay"} <= needed
    found = {name: [words for words in words_of(tree_of(name)) if OPTION.search(words)] for name in needed}
    assert {name: words for name, words in found.items() if words} == {}
