"""The page of what to do when it does not start has a line for every sentence that a command can end with."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.postgres import faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations/when-it-does-not-start.md").read_text()
ANY = "…"
#: Errors of the gateway that end no command with their own words: they are answers over HTTP, other servers' faults that the
#: caller names, or the lines of a policy.
OTHERS = ("Problem", "NotDurable", "TargetError", "PolicyError", "Away")
#: Files whose BadValue, and ValueError, becomes the sentence of a setting.
OF_SETTINGS = ("app/bootstrap/environment.py", "app/bootstrap/settings.py")
PREFIXES = {"BadValue": f"GATEWAY_{ANY}: ", "ValueError": f"GATEWAY_{ANY}: Value error, "}
#: They have no words of their own: each joins or repeats other sentences.
JOINED = {"'\\n'.join(lines)", "str(error)"}


def rows() -> list[str]:
    """Every sentence of the page, from the first cells of its tables. A sentence stands in backticks."""
    first = [line.split(" | ")[0] for line in PAGE.splitlines() if line.startswith("| `")]
    return [sentence for cell in first for sentence in re.findall(r"`([^`]+)`", cell)]


def fits(sentence: str, row: str) -> bool:
    """Whether a row is about a sentence. Both have `…` for what changes."""
    pattern = ".*".join(map(re.escape, row.split(ANY)))
    return re.fullmatch(pattern, sentence.replace("`", ""), re.DOTALL) is not None


def descendants(*names: str) -> set[str]:
    """The classes of the product that are of these kinds."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for file in (ROOT / "app").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = set(names)
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


#: Errors that end a command with their sentence.
ENDING = descendants("GatewayError") - descendants(*OTHERS)


def words_of(node: ast.expr, tree: ast.Module) -> Iterator[str]:
    """The sentences that an expression can be."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in parts)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if ast.unparse(node) not in JOINED:
            made = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
            assert made, f"no words for {ast.unparse(node)}"
            for returned in ast.walk(made[0]):
                if isinstance(returned, ast.Return) and returned.value is not None:
                    yield from words_of(returned.value, tree)


def sentences() -> Iterator[tuple[str, str]]:
    """Where a sentence is made, and the sentence."""
    for file in sorted((ROOT / "app").rglob("*.py")):
        place = file.relative_to(ROOT).as_posix()
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            begin = PREFIXES.get(node.func.id, "") if place in OF_SETTINGS else ""
            if node.func.id in ENDING or begin:
                for words in words_of(node.args[0], tree):
                    yield f"{place}:{node.lineno}", begin + words


def causes() -> Iterator[str]:
    """Why Postgres cannot be used, where it did not say so itself."""
    tree = ast.parse(Path(faults.__file__).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    [made] = [function for function in functions if function.name == "_without_answer"]
    for node in ast.walk(made):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            yield from words_of(node.value.elts[0], tree)


def shown(sentence: str) -> str:
    """A sentence as the page has it: a name of a setting or a file begins with GATEWAY_."""
    return re.sub(f"^{ANY}: ", "GATEWAY_…: ", sentence)


SENTENCES = [*sentences(), *(("app/kit/postgres/faults.py", cause) for cause in causes())]


def test_sentences_are_found() -> None:
    assert {"GatewayError", "UsageError"} <= ENDING
    assert len(SENTENCES) > 50
    assert all(words.strip(f"{ANY}: .") for _, words in SENTENCES if words != f"{ANY}: {ANY}")


@pytest.mark.parametrize(("place", "sentence"), SENTENCES, ids=lambda value: value.partition(" ")[0])
def test_the_page_has_a_line_for_every_sentence(place: str, sentence: str) -> None:
    # The wildcard of all settings is too wide for a sentence that says more.
    narrow = [row for row in rows() if row != "GATEWAY_…: …"] if sentence != f"{ANY}: {ANY}" else rows()
    given = {sentence, shown(sentence), sentence.replace(f"{ANY}: ", "GATEWAY_…_FILE: ", 1)}
    assert [row for row in narrow for words in given if fits(words, row)], f"{place} says: {sentence}"


def test_the_page_has_a_line_for_every_code_of_postgres() -> None:
    assert [code for code in faults._STEPS if f"`{code}`" not in PAGE] == []
