"""Every key of the policy and every setting has a test that fails when it is ignored: the table against the models."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.bootstrap.settings import Settings
from app.policy.schema import Defaults, Policy, Route
from tests.every_key import POLICY, SETTINGS
from tests.ignoring import models_in

ROOT = Path(__file__).parents[2]
MENDED = "add a row to tests/every_key.py: the key, and the test that fails when the gateway ignores it"


def keys_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every key below a model, as a path without the indexes of lists; one that may stand at several places at each."""
    for name, field in model.model_fields.items():
        below = (*path, field.alias or name)
        yield ".".join(below)
        for inner in models_in(field.annotation):
            yield from keys_of(inner, below)


#: What the gateway adds itself, and the section whose keys are the routes' own.
WRITTEN = (set(keys_of(Policy)) - {"hash", "warnings", "text"}) | {"defaults"}
KNOWN = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}


def test_every_key_of_the_policy_has_a_test_that_would_miss_it() -> None:
    assert sorted(WRITTEN - set(POLICY)) == [], MENDED
    assert sorted(set(POLICY) - WRITTEN) == [], "these rows of tests/every_key.py are of keys that are gone"


def test_every_setting_has_a_test_that_would_miss_it() -> None:
    tabled = {f"GATEWAY_{name}" for name in SETTINGS}
    assert sorted(KNOWN - tabled) == [], MENDED
    assert sorted(tabled - KNOWN) == [], "these rows of tests/every_key.py are of settings that are gone"


def test_what_a_route_may_leave_out_is_a_key_of_the_routes() -> None:
    assert set(Defaults.model_fields) <= set(Route.model_fields), "`defaults` has keys of its own: give them rows"


@cache
def parsed(file: str) -> tuple[frozenset[str], str]:
    """The tests of a file, and its text."""
    text = (ROOT / file).read_text()
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions), text


ROWS = [*POLICY.items(), *SETTINGS.items()]


@pytest.mark.parametrize(("key", "test"), ROWS, ids=[key for key, _ in ROWS])
def test_the_test_of_a_row_is_there_and_speaks_of_the_key(key: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert (ROOT / file).is_file(), test
    names, text = parsed(file)
    assert name in names, f"{file} has no test {name}"
    word = key.rpartition(".")[2].lower()
    assert word in text.lower() or "EVENTS" in text, (
        f"{file} never says {word}"
    )  # Those go through all events of `notify`.
