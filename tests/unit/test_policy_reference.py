"""docs/policy-reference.md says what the models say, for every key, and its examples are valid."""

import re

import pytest

from app.policy.file.keys import is_known_key
from app.policy.file.load import parse_policy
from tests.every_key import POLICY
from tools.policy_reference import PAGE, page

TEXT = PAGE.read_text()


def section(name: str) -> str:
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)[1]  # type: ignore[index]


def test_the_page_is_what_the_models_say_now() -> None:
    assert page() == TEXT, "run: python -m tools.policy_reference"


@pytest.mark.parametrize("key", POLICY)
def test_every_key_is_on_the_page_with_its_type_its_default_and_what_it_does(key: str) -> None:
    top, _, below = key.partition(".")
    assert f"| [{top}](#{top}) |" in section("Top level") or key == "version"
    if below:
        [row] = [line for line in section(top).splitlines() if line.startswith(f"| `{below}` |")]
        assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1])


def test_the_page_has_no_key_that_a_file_may_not_have() -> None:
    unknown = [
        key
        for top in re.findall(r"^## ([a-z_]+)$", TEXT, re.M)
        for key in re.findall(r"^\| `([a-z_.]+)` \|", section(top), re.M)
        if not is_known_key((top, *key.split(".")))
    ]
    assert unknown == []


def test_the_examples_are_one_policy_without_an_error_or_a_warning() -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)
    assert len(examples) == TEXT.count("\n## ")
    policy = parse_policy("\n".join(examples), "policy-reference.md", {}, require_env=False)
    assert policy.warnings == ()
