"""`make prose` finds what it forbids, leaves plain English alone, and needs no network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.prose import ROOT, VAGUE, check_file, checks
from tools.prose_rules import RULES

#: Nothing listens on port 9: whoever asks for something from outside fails.
OFFLINE = {"PATH": os.environ["PATH"]} | dict.fromkeys(
    ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"], "http://127.0.0.1:9"
)
LONG = "It " + "sends an alert and then " * 6 + "it waits."  # 33 words


def found_in(path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text)
    return [(finding.line, finding.rule) for finding in sorted(check_file(path, checks()))]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), cwd=ROOT, capture_output=True, text=True, env=OFFLINE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_bad_sentence_and_leaves_its_good_one(rule: object, tmp_path: Path) -> None:
    [rule] = [known for known in RULES if known is rule]
    assert (3, rule.name) in found_in(tmp_path / "bad.md", f"# A page\n\n{rule.bad}\n")
    assert found_in(tmp_path / "good.md", f"# A page\n\n{rule.good}\n") == []


def test_each_forbidden_phrase_ends_the_check_with_a_failure_without_a_network(tmp_path: Path) -> None:
    bad = [*(rule.bad for rule in RULES), LONG, "It is is."]
    for number, sentence in enumerate(bad):
        (tmp_path / f"{number}.md").write_text(f"{sentence}\n")
    done = run(sys.executable, "-m", "tools.prose", tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert [n for n in range(len(bad)) if f"{tmp_path}/{n}.md:1: " not in done.stdout] == []


def test_a_plain_page_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Cooldown\n\nThe gateway starts one run. Then it waits for 24 hours.\n")
    done = run(sys.executable, "-m", "tools.prose", page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""Shall."""\n', [1]),
        ('def f() -> None:\n    """Good.\n\n    It shall be.\n    """\n', [4]),
        ("# It must\n# and shall be.\n", [2]),
        ("x = 1  # It shall be.\n", [1]),
        ('x: int = 1\n"""It shall be."""\n', [2]),
        ('Field(description="It shall be.")\n', [1]),
        ('x = "It shall be."\n', []),
        ('"""Code: `shall`."""\n', []),
        ('"""Good.\n\n    shall = 1  # an example\n"""\n', []),
        ("x = 1  # noqa: shall\n", []),
    ],
)
def test_python_is_read_where_people_read_it(text: str, lines: list[int], tmp_path: Path) -> None:
    assert found_in(tmp_path / "code.py", text) == [(line, "shall") for line in lines]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# We shall\n", [1]),
        ("- We\n  shall\n- Good\n", [2]),
        ("| a | b |\n|---|---|\n| good | shall |\n", [3]),
        ("Good `code\nshall` and\nshall.\n", [3]),
        ("A [link\nthat shall](shall.md) be.\n", [2]),
        ("```sh\nshall\n```\n", []),
        ("See http://shall.example/shall here.\n", []),
    ],
)
def test_markdown_is_read_without_its_code(text: str, lines: list[int], tmp_path: Path) -> None:
    assert found_in(tmp_path / "page.md", text) == [(line, "shall") for line in lines]


def test_comments_of_other_files_are_read_too(tmp_path: Path) -> None:
    assert found_in(tmp_path / "a.yaml", "#!/bin/shall\na: shall\nb: 1  # It shall be.\n") == [(3, "shall")]
    assert found_in(tmp_path / "a.yaml", "a: 1  # In order\nb: 2  # to be\n") == []
    assert found_in(tmp_path / "a.yaml", "a: 1  # In order\n      # to be\n") == [(1, "wordy")]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (LONG, 1),
        (LONG.replace("then it", "then. It"), 0),
        (LONG.replace("then it", "then. docs/it"), 0),
        (LONG.replace("an alert", "`a b`"), 0),
    ],
)
def test_a_sentence_has_a_limit_and_code_is_one_word(text: str, count: int, tmp_path: Path) -> None:
    assert found_in(tmp_path / "page.md", text) == [(1, "long-sentence")] * count


@pytest.mark.parametrize("name", sorted(VAGUE))
@pytest.mark.parametrize("text", ["{} = 1", "def f({}): ...", "for {} in x: ...", "self.{} = 1", "f(lambda {}: 1)"])
def test_a_name_says_what_the_value_is(name: str, text: str, tmp_path: Path) -> None:
    assert found_in(tmp_path / "code.py", text.format(name)) == [(1, "vague-name")]


@pytest.mark.parametrize(("word", "fails"), [("recieve", True), ("behavior", True), ("behaviour", False)])
def test_spelling_is_british_and_is_checked_without_a_network(word: str, fails: bool, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Its {word}.\n")
    done = run(Path(sys.executable).with_name("typos"), "--config", ROOT / "pyproject.toml", page)
    assert (done.returncode != 0, word in done.stdout) == (fails, fails)
