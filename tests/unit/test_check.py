"""`check` in each form: text for people, JSON for scripts, SARIF 2.1.0, workflow commands of GitHub. And the fixed parts of
a DAG's id."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.cli.check import Format, check_policies
from app.policy.file.load import PolicyError, parse_policy

HEAD = "version: 1\nairflow: [{name: default, url: 'http://a'}]\nroutes:\n"
GOOD = f"{HEAD}- {{match: [], dag: {{id: retrain}}}}\n"
WARNED = f"{HEAD}- match: []\n  debounce: 1m\n  dag: {{id: retrain}}\n"
BAD = f"{HEAD}- match: []\n  cooldown: é tomorrow\n  dag: {{id: retrain}}\n  colour: red\n"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"good.yaml": GOOD, "a b,c:%.yaml": WARNED, "bad.yaml": BAD}.items():
        (tmp_path / name).write_text(text)


def checked(output: Format, *names: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = check_policies(map(Path, names), output)
    done = capsys.readouterr()
    return code, done.out, done.err


def test_text_has_errors_apart_from_what_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(Format.TEXT, "good.yaml", "a b,c:%.yaml", "bad.yaml", "gone.yaml", capsys=capsys)
    assert code == 1
    assert out.splitlines() == [f"{name} is good: 1 route(s): retrain." for name in ("good.yaml", "a b,c:%.yaml")]
    places = [re.match(r"(.*?:\d+:\d+: [a-z0-9.]+): ", line)[1] for line in err.splitlines()]  # type: ignore[index]
    assert places == [
        "a b,c:%.yaml:5:13: routes.0.debounce",
        "bad.yaml:5:13: routes.0.cooldown",
        "bad.yaml:7:3: routes.0.colour",
        "gone.yaml:1:1: policy",
    ]
    assert err.splitlines()[0].endswith("(warning)")


def test_json_has_every_file_and_every_problem_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(Format.JSON, "a b,c:%.yaml", "bad.yaml", capsys=capsys)
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert [(p["file"], p["good"], p["routes"]) for p in found["policies"]] == [
        ("a b,c:%.yaml", True, ["retrain"]),
        ("bad.yaml", False, []),
    ]
    assert len(found["policies"][0]["hash"]) == 12
    assert [(p["file"], p["line"], p["column"], p["path"], p["level"]) for p in found["problems"]] == [
        ("a b,c:%.yaml", 5, 13, "routes.0.debounce", "warning"),
        ("bad.yaml", 5, 13, "routes.0.cooldown", "error"),
        ("bad.yaml", 7, 3, "routes.0.colour", "error"),
    ]
    assert all(problem["message"] for problem in found["problems"])


@pytest.mark.parametrize(("names", "code"), [(["good.yaml"], 0), (["a b,c:%.yaml"], 0), (["bad.yaml"], 1)])
def test_every_form_has_the_same_exit_code(names: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert {checked(output, *names, capsys=capsys)[0] for output in Format} == {code}


def is_sarif(log: dict[str, Any]) -> bool:
    """Whether a document has what SARIF 2.1.0 requires of the objects that we write, and no key that it does not know."""
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    assert set(run) == {"tool", "columnKind", "results"}
    assert run["columnKind"] == "unicodeCodePoints"  # Our columns count characters, as Python does.
    assert set(driver) == {"name", "semanticVersion", "rules"}
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", driver["semanticVersion"])
    for rule in driver["rules"]:
        assert set(rule) == {"id", "name", "shortDescription", "defaultConfiguration"}
        assert rule["shortDescription"]["text"].endswith(".")
    for result in run["results"]:
        assert set(result) == {"ruleId", "ruleIndex", "level", "message", "locations"}
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning"}
        assert set(result["message"]) == {"text"}
        [location] = result["locations"]
        physical = location["physicalLocation"]
        assert set(physical) == {"artifactLocation", "region"}
        assert not re.search(r"[\s,:\\]", physical["artifactLocation"]["uri"].removeprefix("file:"))
        assert set(physical["region"]) == {"startLine", "startColumn"}
        assert min(physical["region"].values()) >= 1
    return True


def test_sarif_has_the_structure_of_2_1_0_and_keeps_each_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = checked(Format.SARIF, "a b,c:%.yaml", "bad.yaml", str(tmp_path / "bad.yaml"), capsys=capsys)
    log = json.loads(out)
    assert (code, err, is_sarif(log)) == (1, "", True)
    places = []
    for result in log["runs"][0]["results"]:
        where = result["locations"][0]["physicalLocation"]
        at = where["region"]["startLine"], where["region"]["startColumn"]
        places.append((where["artifactLocation"]["uri"], *at, result["level"], result["message"]["text"].split(":")[0]))
    assert places == [
        ("a%20b%2Cc%3A%25.yaml", 5, 13, "warning", "routes.0.debounce"),
        ("bad.yaml", 5, 13, "error", "routes.0.cooldown"),
        ("bad.yaml", 7, 3, "error", "routes.0.colour"),
        ((tmp_path / "bad.yaml").as_uri(), 5, 13, "error", "routes.0.cooldown"),
        ((tmp_path / "bad.yaml").as_uri(), 7, 3, "error", "routes.0.colour"),
    ]


def test_sarif_of_a_good_file_has_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    log = json.loads(checked(Format.SARIF, "good.yaml", capsys=capsys)[1])
    assert (is_sarif(log), log["runs"][0]["results"]) == (True, [])


def test_github_has_one_command_for_each_problem_with_everything_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(Format.GITHUB, "a b,c:%.yaml", "bad.yaml", capsys=capsys)
    assert (code, err) == (1, "")
    first, good, *rest = out.splitlines()
    assert first.startswith("::warning file=a b%2Cc%3A%25.yaml,line=5,col=13,title=Policy::routes.0.debounce: shorter")
    assert good == "a b%2Cc%3A%25.yaml is good: 1 route(s): retrain."
    assert [line.split("::")[1] for line in rest] == [
        "error file=bad.yaml,line=5,col=13,title=Policy",
        "error file=bad.yaml,line=7,col=3,title=Policy",
    ]


@pytest.mark.parametrize("output", [Format.GITHUB, Format.JSON, Format.SARIF])
def test_a_hostile_key_and_a_hostile_name_make_no_command_of_their_own(
    output: Format, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "::add-mask::x\n::error::y.yaml"
    (tmp_path / name).write_text(GOOD + '"x\\n::set-output name=a::b%0A": 1\n')
    code, out, _ = checked(output, name, capsys=capsys)
    lines = out.splitlines()
    assert code == 1
    assert [line for line in lines if line.startswith("::")] == (lines if output is Format.GITHUB else [])
    assert len(lines) == 1 if output is Format.GITHUB else json.loads(out)


NOT_THIS = "no DAG can have this id: Airflow takes letters, digits, _, - and ., but not {!r}"


@pytest.mark.parametrize(
    ("dag_id", "column", "message"),
    [
        ("retrain_model", None, ""),
        ("team.retrain-model.v2", None, ""),
        ("modèle_2", None, ""),  # Airflow's own check takes every letter of Unicode.
        ("retrain_{{group.model}}", None, ""),
        ("{{ group.model }}", None, ""),
        ("retrain_${TEAM}", None, ""),
        ("${WHOLE}", None, ""),
        ("retrain model", 17, NOT_THIS.format(" ")),
        ("retrain/{{group.model}}", 17, NOT_THIS.format("/")),
        ("{{group.model}}:retrain", 25, NOT_THIS.format(":")),
        ("${TEAM} retrain", 17, NOT_THIS.format(" ")),
        ("${KNOWN} retrain", 9, NOT_THIS.format(" ")),
        ("a" * 250, None, ""),
        ("a" * 251, 9, "no DAG can have this id: Airflow takes 250 characters, and here are 251"),
        ("a" * 251 + "{{group.model}}", 9, "no DAG can have this id: Airflow takes 250 characters, and here are 251"),
    ],
)
def test_the_fixed_parts_of_a_dag_id_are_possible_in_airflow(dag_id: str, column: int | None, message: str) -> None:
    text = f'{HEAD}- name: r\n  match: []\n  group_by: [model]\n  dag:\n    id: "{dag_id}"\n'
    found = []
    try:
        parse_policy(text, "p.yaml", {"KNOWN": "x"}, require_env=False)
    except PolicyError as error:
        found = [(problem.line, problem.column, problem.path, problem.message) for problem in error.problems]
    assert found == ([] if column is None else [(8, column, "routes.0.dag.id", message)])
