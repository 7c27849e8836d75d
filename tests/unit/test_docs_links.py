"""The documents say what is so: links lead somewhere, named tests and files are there, examples are read by the product."""

import ast
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import yaml

from app.bootstrap.parts import open_services
from app.bootstrap.settings import Settings
from app.cli.main import app as cli
from app.decide.conf import dag_call
from app.decide.state import Group, Reason, TriggerChange, TriggerState
from app.intake.sources import alertmanager, native
from app.kit.metrics import Metrics
from app.lineage.report_schemas import Report
from app.policy.file.load import load_policy
from app.policy.language.durations import parse_duration
from app.web.main import create_app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
MISSION = (ROOT / "docs/mission.md").read_text()
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if page != ROOT / "docs/README.md")
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
EXAMPLES = sorted([*(ROOT / "examples").glob("policy*.yaml"), *(ROOT / "examples/compose").glob("policy*.yaml")])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file_or_a_heading_that_is_there(document: Path) -> None:
    text = document.read_text()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        aim = (document.parent / path).resolve() if path else document
        if not aim.exists() or (anchor and anchor not in anchors(aim.read_text())):
            broken.append(target)
    assert broken == []


def test_every_page_stands_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [name(page) for page in PAGES if f"({page.relative_to(ROOT / 'docs')})" not in index] == []


@cache
def functions_in(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text())
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", document.read_text())
    missing = [
        f"{path}::{test}" for path, test in named if not functions_in(path) or (test and test not in functions_in(path))
    ]
    assert missing == []


@pytest.mark.parametrize("part", range(1, 8))
def test_every_part_of_the_mission_names_its_tests_or_says_that_it_comes_later(part: int) -> None:
    found = re.search(rf"^## {part}\. .*?(?=^## |\Z)", MISSION, re.M | re.S)
    assert found
    assert "later release" in found[0] or re.search(r"tests/\w+/\w+\.py::test_", found[0])
    for row in re.findall(r"^\| (?!how|part|-)(.*) \|$", found[0], re.M):
        proof = row.split(" | ")[-1]
        assert proof == "a later release" or "::test_" in proof, row


def test_the_events_of_the_mission_are_read_as_they_stand() -> None:
    least, full, *_ = blocks(MISSION, "json")
    (by_hand,) = native.read(least.encode(), 10).alerts
    (by_alertmanager,) = alertmanager.read(full.encode(), 10).alerts
    assert set(json.loads(least)) == {"alert_id", "severity", "timestamp"}
    assert by_hand.alert_id == by_alertmanager.alert_id == "ModelAccuracyLow"
    assert by_hand.starts_at == by_alertmanager.starts_at
    assert by_alertmanager.firing


def test_the_report_of_the_mission_is_read_as_it_stands() -> None:
    report = Report.model_validate_json(blocks(MISSION, "json")[-1])
    assert (report.component, report.state) == ("training", "succeeded")


def test_the_conf_of_the_mission_is_the_one_that_airflow_gets(tmp_path: Path) -> None:
    _, full, conf, *_ = blocks(MISSION, "json")
    shown = json.loads(conf)
    (alert,) = alertmanager.read(full.encode(), 10).alerts
    (route,) = twelve_lines(tmp_path).routes
    group = Group("key", route.name, "live", {"model": "churn"})
    ident = UUID(shown["gateway"]["trigger_id"])
    trigger = TriggerChange(ident, group, TriggerState.PENDING, Reason.NEW_ALERT, True, cast(Any, [alert]))
    call = dag_call(trigger, route)
    assert call.conf == shown
    assert call.dag_run_id == f"gateway__accuracy__{ident}"


def twelve_lines(folder: Path) -> Any:
    (text,) = blocks(README, "yaml")
    (folder / "policy.yaml").write_text(text)
    return load_policy(folder / "policy.yaml", require_env=False)


def test_the_policy_in_twelve_lines_has_twelve_lines_and_is_good(tmp_path: Path) -> None:
    (text,) = blocks(README, "yaml")
    assert len(text.splitlines()) == 12
    policy = twelve_lines(tmp_path)
    assert policy.warnings == ()
    (route,) = policy.routes
    assert (route.name, route.dag.id, route.group_by) == ("accuracy", "retrain_model", ("model",))


def test_the_tour_takes_thirty_minutes_and_leads_through_files_that_are_there() -> None:
    minutes = re.findall(r"^\| (\d+) \| \[([\w/.]+)\]\(\2\) \|", README, re.M)
    assert sum(int(number) for number, _ in minutes) == 30
    assert all((ROOT / path).is_file() for _, path in minutes)


def test_every_command_that_is_named_is_one() -> None:
    commands = {command.name or getattr(command.callback, "__name__", "") for command in cli.registered_commands}
    groups = {group.name for group in cli.registered_groups}
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    # The one in bin/ is a file's path; `_command` is how a name that would hide a module is written in the code.
    named = set(re.findall(r"(?<![/\w-])trigger-gateway ([a-z]+)", text))
    assert named <= {str(command).removesuffix("_command") for command in commands} | {str(group) for group in groups}
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_every_setting_that_is_named_is_one() -> None:
    clients = {"GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_TOKEN_FILE"}
    settings = {f"GATEWAY_{field.upper()}" for field in Settings.model_fields} | {"GATEWAY_PUBLIC_URL"}  # a second name
    for document in DOCUMENTS:
        named = set(re.findall(r"GATEWAY_[A-Z]+(?:_[A-Z]+)*(?![A-Z_<])", document.read_text()))
        assert named - clients - settings - {f"{setting}_FILE" for setting in settings} == set(), name(document)


def test_every_metric_that_is_named_is_one() -> None:
    exposed = set(re.findall(r"^# TYPE (\w+)", Metrics().render().decode(), re.M))
    for document in DOCUMENTS:
        named = set(re.findall(r"`(gateway_[a-z][a-z_]+)[`{]", document.read_text()))
        assert named <= exposed, name(document)


@cache
def paths_of_the_api() -> list[re.Pattern[str]]:
    document = create_app(Settings(), cast(Any, open_services)).openapi()
    return [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in document["paths"]]


def test_every_path_of_the_api_in_the_readme_is_in_the_openapi_document() -> None:
    paths = paths_of_the_api()
    named = set(re.findall(r"(/api/v1/[\w/$]+|/livez|/readyz|/metrics)", README))
    assert named
    unknown = [path for path in named if not any(pattern.fullmatch(path) for pattern in paths)]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_of_the_api_on_a_page_is_in_the_openapi_document(page: Path) -> None:
    paths = paths_of_the_api()
    named = set(re.findall(r"(?<![\w.>])(/api/v1/[\w/${}<>-]+|/health/\w+|/livez|/readyz|/metrics)", page.read_text()))
    assert [path for path in named if not any(pattern.fullmatch(path) for pattern in paths)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_piece_of_policy_on_a_page_is_good_where_it_says_that_it_is_one(page: Path, tmp_path: Path) -> None:
    """A block that begins with `# policy.yaml` is laid over the smallest policy."""
    for number, text in enumerate(blocks(page.read_text(), "yaml")):
        if not text.startswith("# policy.yaml\n"):
            continue
        whole = yaml_of("policy.yaml") | yaml.safe_load(text)
        file = tmp_path / f"{number}.yaml"
        file.write_text(json.dumps(whole))
        load_policy(file, require_env=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_body_that_a_page_sends_is_read_as_it_stands(page: Path) -> None:
    for path, body in re.findall(r"/api/v1/(alerts|metadata)\b[^']*? -d '(.*?)'", page.read_text(), re.S):
        if path == "alerts":
            assert native.read(body.encode(), 10).alerts
        else:
            assert Report.model_validate_json(body).component


def test_every_code_that_the_readme_says_may_block_a_trigger_is_one() -> None:
    found = re.search(r"\*\*A trigger is `pending`\.\*\*(.*?)Mend that", README, re.S)
    assert found
    sources = [path.read_text() for room in ("kit/airflow", "deliver") for path in (ROOT / "app" / room).glob("*.py")]
    sources.append((ROOT / "app/kit/http.py").read_text())
    codes = [code for code in re.findall(r"`(\w+)`", found[1]) if code != "blocked"]
    assert len(codes) > 3
    assert [code for code in codes if not any(f'"{code}"' in source for source in sources)] == []


def test_an_example_rule_that_no_route_takes_says_so() -> None:
    policy = load_policy(ROOT / "examples/policy.yaml", require_env=False)
    taken = {alert for alert, rule in rules().items() if policy.route_for({"alertname": alert, **rule["labels"]})}
    assert taken == {"ModelAccuracyLow"}


@pytest.mark.parametrize("decision", DECISIONS, ids=name)
def test_a_decision_is_a_page_with_four_parts(decision: Path) -> None:
    text = decision.read_text()
    assert re.match(r"\d{4}-[a-z0-9-]+\.md$", decision.name)
    assert text.startswith(f"# {decision.name[:4]}. ")
    assert re.findall(r"^## (.*)$", text, re.M) == ["Context", "Decision", "Consequences", "Alternatives"]
    assert text.count("\n") <= 60, "one page"


def test_decisions_have_a_number_each() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert len(set(numbers)) == len(numbers)


# -- the examples agree with each other -----------------------------------------------------------------------------------


def yaml_of(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / path).read_text())
    return found


def rules() -> Mapping[str, Any]:
    return {rule["alert"]: rule for group in yaml_of("rules/model.yml")["groups"] for rule in group["rules"]}


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_policy_is_good_and_warns_of_nothing(path: Path) -> None:
    assert load_policy(path, require_env=False).warnings == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_alertmanager_tells_of_an_end_before_an_example_policy_fires(path: Path) -> None:
    alertmanager_route = yaml_of("alertmanager.yml")["route"]
    for route in load_policy(path, require_env=False).routes:
        if route.debounce:
            assert route.debounce > parse_duration(alertmanager_route["group_interval"])
        assert route.stale_after > parse_duration(alertmanager_route["repeat_interval"])


def test_the_example_rule_is_taken_by_the_example_policies() -> None:
    rule = rules()["ModelAccuracyLow"]
    labels = {"alertname": "ModelAccuracyLow", "model": "churn", **rule["labels"]}
    for path in EXAMPLES:
        route = load_policy(path, require_env=False).route_for(labels)
        assert route is not None, name(path)
        assert (route.name, route.dag.id) == ("accuracy", "retrain_model")
        assert route.group(labels) == {"model": "churn"}


def test_what_the_example_policies_group_by_is_what_alertmanager_groups_by() -> None:
    grouped = set(yaml_of("alertmanager.yml")["route"]["group_by"])
    for path in (ROOT / "examples/policy.yaml", ROOT / "examples/compose/policy.yaml"):
        for route in load_policy(path, require_env=False).routes:
            assert set(route.group_by) <= grouped, name(path)


def test_the_policy_of_the_readme_differs_from_the_shipped_one_by_the_login_alone(tmp_path: Path) -> None:
    shipped = load_policy(ROOT / "examples/policy.yaml", require_env=False)
    assert twelve_lines(tmp_path).routes == shipped.routes
