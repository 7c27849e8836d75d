"""A private name belongs to its file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Each is a subclass, and uses what its base keeps for it.
SUBCLASSES = {"app/kit/embedded/postgres.py", "app/web/listener.py"}


def borrowed(source: str) -> Iterator[str]:
    """Private names that a file uses and does not make. Names of other people's modules (`os._exit`) do not count."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    modules = {alias.asname or alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.lineno}: {alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            of_a_module = isinstance(node.value, ast.Name) and node.value.id in modules
            if not of_a_module:
                yield f"{node.lineno}: {node.attr}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from app.decide.ledger import _firing", ["1: _firing"]),
        ("class Ledger(Books):\n    def wake(self):\n        self._touch()", ["3: _touch"]),
        ("engine._save(books)", ["1: _save"]),
        (
            "class Ledger:\n    def __init__(self):\n        self._mutes = {}\n    def way(self):\n        self._mutes",
            [],
        ),
        ("class Ledger:\n    def _hold(self): ...\n    def wake(self):\n        self._hold()", []),
        ("import os\nos._exit(1)", []),
        ("from __future__ import annotations", []),
    ],
    ids=["an import", "of a base class", "of an object", "its own attribute", "its own method", "a module's", "dunder"],
)
def test_a_borrowed_private_name_is_found(source: str, found: list[str]) -> None:
    assert list(borrowed(source)) == found


def test_no_private_name_crosses_a_file() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "app").rglob("*.py")}
    found = [
        f"{name}:{place}" for name, source in files.items() if name not in SUBCLASSES for place in borrowed(source)
    ]
    assert found == []
