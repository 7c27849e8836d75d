"""Do the tests notice when a line of the decisions is wrong? Change one thing at a time, and run the tests each time.

    python -m tools.mutants                       every module of FILES
    python -m tools.mutants app/decide/facts.py   this one
    python -m tools.mutants --part 2/10           every tenth change, from the second on

It prints the changes that no test notices, and the share of those that some test does. It ends with 1 below the FLOOR.
"""

import argparse
import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.kit.embedded.processes import end_in_order

ROOT: Final = Path(__file__).resolve().parents[1]
#: The decisions: what makes a DAG run, or none.
FILES: Final = ("app/decide/rules.py", "app/decide/facts.py", "app/decide/episodes.py", "app/decide/ledger.py")
#: They run in this order until one fails.
TESTS: Final = (
    "test_rules.py",
    "test_rules_limit.py",
    "test_rules_ineffective.py",
    "test_facts.py",
    "test_episodes.py",
    "test_ledger.py",
    "test_ledger_time.py",
    "test_ledger_confirm_shadow.py",
    "test_confirm.py",
    "test_regroup.py",
    "test_engine.py",
    "test_ledger_machine.py",
)
#: Percent of the changes that the tests must notice.
FLOOR: Final = 90

_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


class _Changes(ast.NodeTransformer):
    """Walks a module and counts what it can change. It changes the site number `wanted`; `found` says what each would be."""

    def __init__(self, wanted: int = -1) -> None:
        self._wanted = wanted
        self.found: list[str] = []

    def _site(self, old: ast.AST, new: ast.AST, line: int) -> ast.AST:
        self.found.append(f"{line}: {_text(old)}  ->  {_text(new)}")
        return ast.copy_location(new, old) if len(self.found) - 1 == self._wanted else old

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        other = copy.copy(node)
        other.ops = [_COMPARED[type(node.ops[0])](), *node.ops[1:]]
        return self._site(node, other, node.lineno)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        other = ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        return self._site(node, other, node.lineno)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return self._site(node, node.operand, node.lineno) if isinstance(node.op, ast.Not) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Add | ast.Sub):
            return node
        other = ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        return self._site(node, other, node.lineno)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id in _NAMES):
            return node
        other = ast.Call(ast.Name(_NAMES[node.func.id], ast.Load()), node.args, node.keywords)
        return self._site(node, other, node.lineno)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return self._site(node, ast.Constant(not node.value), node.lineno)
        if isinstance(node.value, int):
            return self._site(node, ast.Constant(node.value + 1), node.lineno)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """A fact that is not written. Without its local name, a function would only break."""
        self.generic_visit(node)
        if all(isinstance(target, ast.Attribute) for target in node.targets):
            return self._site(node, ast.Pass(), node.lineno)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """A call that is left out."""
        self.generic_visit(node)
        return self._site(node, ast.Pass(), node.lineno) if isinstance(node.value, ast.Call) else node


def mutants_of(source: str) -> Iterator[tuple[str, str]]:
    """Each change to a module in words, and the module with it."""
    counting = _Changes()
    counting.visit(ast.parse(source))
    for number, words in enumerate(counting.found):
        changed = _Changes(number).visit(ast.parse(source))
        yield words, ast.unparse(ast.fix_missing_locations(changed))


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


@contextmanager
def tree_with(file: str, text: str) -> Iterator[Path]:
    """A tree that is like ours, but for one file of the application."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("app", "tests", "tools"):  # With what Python has compiled already.
            shutil.copytree(ROOT / name, tree / name)
        for name in ("migrations", "mlflow-spool", "demo", "examples", "alembic.ini", "pyproject.toml"):
            (tree / name).symlink_to(ROOT / name)
        (tree / file).write_text(text)
        yield tree


def is_noticed(file: str, text: str, tests: Sequence[str]) -> bool:
    """Whether a test fails with this text in place of the file."""
    with tree_with(file, text) as tree:
        names = [f"tests/unit/{name}" for name in tests]
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", f"--rootdir={tree}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *names],
            cwd=tree,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if done.returncode not in (0, 1):
        return True  # It cannot even be imported.
    return done.returncode == 1


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--part", default="1/1", help="such as 2/10")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.part.split("/"))
    noticed = tried = 0
    for file in options.files:
        if is_noticed(file, (ROOT / file).read_text(), TESTS):
            parser.error("the tests fail without any change")
        for words, text in list(mutants_of((ROOT / file).read_text()))[part - 1 :: parts]:
            tried += 1
            if is_noticed(file, text, TESTS):
                noticed += 1
            else:
                print(f"{file}:{words}", flush=True)
    share = 100 * noticed / tried if tried else 100.0
    print(f"{noticed} of {tried} changes are noticed: {share:.0f} % (at least {FLOOR})")
    return int(share < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
