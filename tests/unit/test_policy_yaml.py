"""YAML is read as its version 1.2 says, with bounds, and what it cannot mean is an error at its place."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.policy.file.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, Document, read_document
from app.policy.file.load import load_policy
from app.policy.file.problems import PolicyError

POLICY = "version: 1\nairflow: [{name: default, url: http://a}]\nroutes: [{match: [], dag: {id: x, conf: {a: 1}}}]\n"


YAML = "not readable as YAML"
NUMBER = "JSON has no such number; put it in quotes if it is text"
STORED = "a NUL character or half of a surrogate pair cannot be stored"
ORG = "tag:yaml.org,2002:"


def read(text: str, env: dict[str, str] | None = None, *, require_env: bool = True) -> Document:
    return read_document(text, "p.yaml", env or {}, require_env=require_env)


def refusal(text: str) -> list[str]:
    """What is wrong with a text, whether it stops the reading or can be told next to other errors."""
    try:
        return [str(problem).removeprefix("p.yaml:") for problem in read(text).problems]
    except PolicyError as error:
        return [str(problem).removeprefix("p.yaml:") for problem in error.problems]


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("no", "no"),
        ("No", "No"),
        ("yes", "yes"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("n", "n"),
        ("12:30", "12:30"),
        ("1:30:45", "1:30:45"),
        ("007", "007"),
        ("0600", "0600"),
        ("08", "08"),
        ("-01", "-01"),
        ("00.5", "00.5"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("10m", "10m"),
        ("=", "="),
        ("tRUE", "tRUE"),
        ("nULL", "nULL"),
        ("1e", "1e"),
        ("+", "+"),
        (".", "."),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("null", None),
        ("Null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-0", 0),
        ("42", 42),
        ("+42", 42),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("0.85", 0.85),
        ('"42"', "42"),
        ("'true'", "true"),
        ('"null"', "null"),
        ('""', ""),
        ("!!str 42", "42"),
        ("|\n  a\n  b", "a\nb"),
        (">-\n  a\n  b", "a b"),
        (r'"\u00e9\n"', "é\n"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(scalar: str, expected: object) -> None:
    document = read(f"key: {scalar}")
    assert document.problems == ()
    assert isinstance(document.value, dict)
    assert (type(document.value["key"]), document.value["key"]) == (type(expected), expected)


@pytest.mark.parametrize("key", ["no", "on", "1", "1.5", "true", "null", "~", "12:30"])
def test_a_key_is_the_text_it_is_written_as(key: str) -> None:
    assert read(f"{key}: x").value == {key: "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ["1:1: policy: the file is empty"], id="empty"),
        pytest.param("# only a comment\n", ["1:1: policy: the file is empty"], id="only a comment"),
        pytest.param("a: 1\nb: 2\na: 3", ["3:1: a: this key is here twice, first on line 1"], id="duplicate key"),
        pytest.param("a: {b: 1, 'b': 2}", ["1:11: a.b: this key is here twice, first on line 1"], id="in flow"),
        pytest.param(
            "a: &x {b: 1}\nc:\n  <<: *x",
            ["3:3: c.<<: merge keys are not part of YAML 1.2; use `defaults:` or repeat the keys"],
            id="merge key",
        ),
        pytest.param("? [a]\n: 1", ["1:3: policy: a key must be plain text"], id="a list for a key"),
        pytest.param("a: !!set {b}", [f"1:4: a: the tag {ORG}set is not supported"], id="a tag"),
        pytest.param("a: !secret x", ["1:4: a: the tag !secret is not supported"], id="a local tag"),
        pytest.param(
            "a: !!python/object:os.system x",
            [f"1:4: a: the tag {ORG}python/object:os.system is not supported"],
            id="an object",
        ),
        pytest.param("a: .nan", [f"1:4: a: {NUMBER}"], id="not a number"),
        pytest.param("a: -.inf", [f"1:4: a: {NUMBER}"], id="infinity"),
        pytest.param("a: 1e999", [f"1:4: a: {NUMBER}"], id="too large"),
        pytest.param("a: " + "9" * 5000, [f"1:4: a: {NUMBER}"], id="digits"),
        pytest.param(r'a: "x\0y"', [f"1:4: a: {STORED}"], id="NUL"),
        pytest.param(r'a: "\ud800"', [f"1:4: a: {STORED}"], id="surrogate"),
        pytest.param(r'"\0": 1', [f"1:1: \0: {STORED}"], id="NUL key"),
        pytest.param("a: b\x00", ["1:5: policy: the character U+0000 is not allowed in YAML"], id="a raw NUL"),
        pytest.param("a:\n  - b\x1bc", ["2:6: policy: the character U+001B is not allowed in YAML"], id="a raw escape"),
        pytest.param("a: \ud800", ["1:4: policy: the character U+D800 is not allowed in YAML"], id="a raw surrogate"),
        pytest.param(r'a: "\UFFFFFFFF"', [f"1:7: policy: {YAML}: there is no such character"], id="no character"),
        pytest.param("a: *b", [f"1:4: policy: {YAML}: found undefined alias 'b'"], id="an unknown alias"),
        pytest.param(
            "a: [1",
            [f"1:6: policy: {YAML}: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"],
            id="an open list",
        ),
        pytest.param("a: 1\n b: 2", [f"2:3: policy: {YAML}: mapping values are not allowed here"], id="indent"),
        pytest.param(
            "\ta: 1",
            [
                f"1:1: policy: {YAML}: while scanning for the next token, "
                "found character '\\t' that cannot start any token"
            ],
            id="tab",
        ),
        pytest.param(
            "a: 1\n---\nb: 2",
            [f"2:1: policy: {YAML}: expected a single document in the stream, but found another document"],
            id="two documents",
        ),
        pytest.param(
            "a: 'x",
            [f"1:6: policy: {YAML}: while scanning a quoted scalar, found unexpected end of stream"],
            id="an open quote",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(text: str, expected: list[str]) -> None:
    assert refusal(text) == expected


def levels(count: int) -> str:
    return "[" * count + "]" * count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: " + "x" * MAX_BYTES, "larger than 1 MiB", id="bytes"),
        pytest.param("a: " + "é" * (MAX_BYTES // 2), "larger than 1 MiB", id="bytes, not characters"),
        pytest.param("[" * 100_000, f"more than {MAX_DEPTH} levels", id="depth"),
        pytest.param(levels(MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels", id="one level too deep"),
        pytest.param("- - - " * 40, f"more than {MAX_DEPTH} levels", id="depth in blocks"),
        pytest.param("a: &a [*a]", "aliases repeat too many values, or themselves", id="an alias of itself"),
        pytest.param("a: &a {b: *a, c: *a}", "aliases repeat too many values, or themselves", id="twice of itself"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "aliases repeat too many values, or themselves",
            id="a billion laughs",
        ),
    ],
)
def test_a_file_built_to_exhaust_the_reader_is_refused(text: str, message: str) -> None:
    (problem,) = refusal(text)
    assert message in problem
    assert len(problem) < 200


def test_more_values_than_a_policy_ever_has_are_refused() -> None:
    (problem,) = refusal("-\n" * (MAX_NODES + 1))
    assert problem.endswith(f": policy: {YAML}: more than {MAX_NODES} values are too much")


def test_aliases_are_copies() -> None:
    document = read("a: &x {k: [1]}\nb: *x\n")
    assert document.value == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert document.problems == ()
    assert read(levels(MAX_DEPTH)).problems == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"version: 1\n\xff", "{}:2:1: policy: the file is not UTF-8 text", id="a stray byte"),
        pytest.param("a: é".encode() + b"\xe9", "{}:1:5: policy: the file is not UTF-8 text", id="Latin-1"),
        pytest.param("version: 1".encode("utf-16"), "{}:1:1: policy: the file is not UTF-8 text", id="UTF-16"),
        pytest.param(b"a: \x00", "{}:1:4: policy: the character U+0000 is not allowed in YAML", id="NUL"),
        pytest.param(b"x" * (MAX_BYTES + 1), "{}:1:1: policy: the file is larger than 1 MiB", id="too large"),
        pytest.param(b"", "{}:1:1: policy: the file is empty", id="empty"),
        pytest.param(b"- a", "{}:1:1: policy: must be a mapping that begins with `version: 1`", id="a list"),
        pytest.param(b"hello", "{}:1:1: policy: must be a mapping that begins with `version: 1`", id="a word"),
    ],
)
def test_a_file_that_is_no_policy_text_is_told_with_its_place(tmp_path: Path, data: bytes, expected: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        load_policy(file, {})
    assert str(caught.value) == expected.format(file)


def test_a_missing_file_and_a_directory_are_told_too(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(PolicyError, match=f"{path}:1:1: policy: cannot be read: {reason}"):
            load_policy(path, {})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(POLICY.encode(), id="plain"),
        pytest.param(b"\xef\xbb\xbf" + POLICY.encode(), id="byte order mark"),
        pytest.param(POLICY.replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(b"---\n" + POLICY.encode(), id="document marker"),
    ],
)
def test_every_usual_form_of_a_text_file_loads(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(data)
    assert load_policy(file, {}).routes[0].dag.conf == {"a": 1}


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}\"'#&*!|>%@`\\\n\t 01,?~<$", max_size=40))
def test_any_text_is_read_or_refused_and_never_breaks_the_reader(text: str) -> None:
    problems = refusal(text)
    assert all(problem.split(": ")[0].replace(":", "").isdigit() for problem in problems)
