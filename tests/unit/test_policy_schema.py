"""The JSON Schema of the policy knows each key that the grammar and the reference know, and takes each file that `check`
takes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.policy.file.document import Document, read_document
from app.policy.file.json_schema import policy_schema, schema_text
from app.policy.file.keys import key_problems
from app.policy.file.load import PolicyError, parse_policy
from app.policy.file.starter import SCHEMA_FILE, STARTER_POLICY
from tests.every_key import POLICY

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = policy_schema()
VALID = jsonschema_rs.Draft7Validator(SCHEMA)
HEAD = "version: 1\nairflow: [{name: default, url: 'http://a'}]\n"
ROUTE = "  - match: []\n    dag: {id: retrain}\n"


def objects(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The mappings with keys of the policy that may stand at a place: in lists, and each branch."""
    inner = [*([schema["items"]] if "items" in schema else []), *schema.get("anyOf", [])]
    found = [schema] if schema.get("additionalProperties") is False else []
    return found + [each for branch in inner for each in objects(branch)]


def keys(schema: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Each key below a place, with its schema and whether it is required."""
    for each in objects(schema):
        for name, inner in each["properties"].items():
            yield f"{above}{name}", inner, name in each["required"]
            yield from keys(inner, f"{above}{name}.")


KEYS = {name: (inner, required) for name, inner, required in keys(SCHEMA)}


def document(text: str) -> Document:
    return read_document(text, "p.yaml", {}, require_env=False)


def errors(text: str) -> list[str]:
    """Where the schema finds an error."""
    return sorted({".".join(map(str, error.instance_path)) for error in VALID.iter_errors(document(text).raw)})


def test_every_key_of_the_policy_is_in_the_schema_and_no_other() -> None:
    assert sorted(name for name in KEYS if not name.startswith("defaults.")) == sorted(POLICY)


@pytest.mark.parametrize("place", sorted({name.rpartition(".")[0] for name in KEYS}))
def test_the_grammar_knows_the_same_keys_at_each_place(place: str) -> None:
    wrong: Any = {"zzzzzzzz": 1}
    for part in reversed(place.split(".") if place else []):
        wrong = {part: wrong}
    [problem] = key_problems(document(json.dumps(wrong)))
    listed = problem.message.removeprefix("unknown key; the keys here are ").split(", ")
    assert sorted(listed) == sorted(name.rpartition(".")[2] for name in KEYS if name.rpartition(".")[0] == place)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_has_a_meaning_and_a_default(key: str) -> None:
    schema, required = KEYS[key]
    text, _, last = schema["description"].rpartition(" Required." if required else " Default: ")
    assert len(text) > 5
    assert bool(last) is not required
    if "default" in schema:
        assert not list(jsonschema_rs.Draft7Validator(dict(schema)).iter_errors(schema["default"]))


def test_a_default_of_the_schema_is_the_one_that_the_loader_fills_in() -> None:
    route = KEYS["routes"][0]["items"]["properties"]
    written = {name: schema["default"] for name, schema in route.items() if "default" in schema}
    assert {"debounce", "cooldown", "refire", "group_by", "mode", "lineage"} < set(written)
    bare = parse_policy(f"{HEAD}routes:\n{ROUTE}", "p.yaml", {})
    lines = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in written.items())
    assert parse_policy(f"{HEAD}routes:\n{ROUTE}{lines}", "p.yaml", {}).routes == bare.routes


EXAMPLES = [path for path in ROOT.glob("examples/**/policy*.yaml") if not path.stem.endswith("_test")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_takes_every_example(path: Path) -> None:
    assert errors(path.read_text()) == []


def test_it_takes_the_starter_whose_first_line_leads_editors_to_it() -> None:
    assert errors(STARTER_POLICY) == []
    assert STARTER_POLICY.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    assert json.loads(schema_text()) == SCHEMA


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("debounce: 10m", None),
        ("debounce: 0", None),
        ("debounce: 1d12h30m5s250ms", None),
        ("debounce: ${WAIT}", None),
        ("mode: ${MODE}", None),
        ("mode: shadow", None),
        ("name: ${NAME}", None),
        ("limit: {triggers: 3, per: 7d}", None),
        ("debounce: 10", "debounce"),
        ("debounce: ten minutes", "debounce"),
        ("debounce: 1.5h", "debounce"),
        ("mode: dry", "mode"),
        ("refire: yes", "refire"),
        ("group_by: model", "group_by"),
        ("group_by: [1]", "group_by.0"),
        ("limit: {triggers: 0, per: 7d}", "limit.triggers"),
        ("limit: {triggers: many, per: 7d}", "limit.triggers"),
        ("limit: {triggers: 3}", "limit"),
        ("name: Accuracy", "name"),
        ("cooldwon: 1h", ""),
        ("confirm: {prometheus: 'http://p', query: up, on_error: panic}", "confirm.on_error"),
    ],
)
def test_it_finds_what_check_finds_about_a_value(line: str, place: str | None) -> None:
    text = f"{HEAD}routes:\n{ROUTE}    {line}\n"
    at = [] if place is None else [f"routes.0.{place}".rstrip(".")]
    assert errors(text) == at
    with nullcontext() if place is None else pytest.raises(PolicyError):
        parse_policy(text, "p.yaml", {}, require_env=False)
