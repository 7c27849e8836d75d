"""The tool that changes a line of the decisions and runs the tests: what it changes, and that it sees what they notice."""

import ast

import pytest

from tools.mutants import FILES, ROOT, TESTS, is_noticed, mutants_of


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", ["a < b  ->  a <= b"]),
        (
            "a is None and not b",
            ["a is None  ->  a is not None", "not b  ->  b", "a is None and (not b)  ->  a is None or not b"],
        ),
        ("x = min(a, 2)", ["2  ->  3", "min(a, 2)  ->  max(a, 2)"]),
        ("group.fired_at = now", ["group.fired_at = now  ->  pass"]),
        ("books.mark(group)", ["books.mark(group)  ->  pass"]),
        ("return_ = a + b - c", ["a + b  ->  a - b", "a + b - c  ->  a + b + c"]),
        ("f(True)", ["True  ->  False", "f(True)  ->  pass"]),
        ("name = other", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_thing_is_changed_at_a_time(source: str, changes: list[str]) -> None:
    found = list(mutants_of(source))
    assert [words.partition(": ")[2] for words, _ in found] == changes
    assert all(ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)) for _, text in found)


def test_every_module_and_every_test_that_it_names_is_there() -> None:
    assert [name for name in FILES if not (ROOT / name).is_file()] == []
    assert [name for name in TESTS if not (ROOT / "tests/unit" / name).is_file()] == []


@pytest.mark.slow
def test_a_change_that_no_test_can_see_is_found_out() -> None:
    file = "app/decide/facts.py"
    source = (ROOT / file).read_text()
    assert not is_noticed(file, source, ["test_facts.py"])
    wrong = source.replace(
        "group.outcome, group.ended_at = outcome, now", "group.outcome, group.ended_at = outcome, None"
    )
    assert wrong != source
    assert is_noticed(file, wrong, ["test_facts.py"])
