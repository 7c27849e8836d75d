"""The house itself: what a newcomer reads, runs and installs says the truth."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import yaml

import app
import mlflow_spool
from app.web.signatures import GrafanaSignature

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
COMPILED = ["base", "dev", "tools", "airflow", "airflow2", "mlflow", "training"]
#: Spelt in pieces, so that this file does not name what it forbids.
REGISTRY_HOSTS = ["pypi." + "org", "python" + "hosted.org", "registry." + "npmjs", "deb." + "debian.org"]
MACHINE_PATHS = re.compile(r"(?<![\w.}])/(?:work|root|home|Users)/(?!x\b)[a-z]")


def tracked() -> list[Path]:
    """Every file of the repository that is text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    binary = {".png", ".svg", ".ico", ".whl", ".gz"}
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and path.suffix not in binary]


def name_of(requirement: str) -> str:
    """The normalised name in `Name[extra]>=1 ; marker`, as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement.strip())[0]).lower()  # type: ignore[index]


def pinned(which: str) -> set[str]:
    text = (ROOT / "requirements" / f"{which}.txt").read_text()
    return {name_of(line) for line in text.splitlines() if re.match(r"[a-z0-9]", line, re.I)}


def recipe(target: str) -> str:
    """What `make target` would run, with its requisites, on a tree where .venv is up to date."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.installed", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    return done.stdout


TARGETS = [
    "setup",
    "run",
    "demo",
    "test",
    "prove",
    "simulate",
    "check",
    "prose",
    "bench",
    "pictures",
    "ha-drill",
    "dist",
    "migrate",
    "lock",
    "clean",
    "help",
]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_phony_and_says_what_it_is_for(target: str) -> None:
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.M)
    assert target in re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split()  # type: ignore[index]


def test_help_shows_every_target_there_is() -> None:
    shown = re.findall(r"^  make ([\w-]+)", subprocess.check_output(["make"], cwd=ROOT, text=True), re.M)
    named = [line.split(":")[0] for line in MAKEFILE.splitlines() if re.match(r"[a-z-]+:(?!=)", line)]
    assert sorted(shown) == sorted(named) == sorted(TARGETS)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("run", ".venv/bin/trigger-gateway serve"),
        ("demo", ".venv/bin/trigger-gateway demo"),
        ("migrate", ".venv/bin/trigger-gateway migrate"),
        ("test", "ruff check"),
        ("test", ".venv/bin/pytest"),
        ("prove", "PROVE=1 .venv/bin/pytest"),
        ("simulate", "-m tests.simulation --seed 1 --runs 300"),
        ("check", "ruff format --check"),
        ("check", "mypy"),
        ("check", "lint-imports"),
        ("check", "hadolint Dockerfile"),
        ("check", "compose-lint check"),
        ("check", "zizmor --offline"),
        ("check", ".venv/bin/typos"),
        ("prose", "-m tools.prose"),
        ("bench", "benchmarks.intake"),
        ("pictures", "tests.ui.pictures"),
        ("ha-drill", "PROVE=1 .venv/bin/pytest"),
        ("dist", "-m build --no-isolation"),
        ("lock", "--generate-hashes --no-emit-index-url"),
    ],
    ids=lambda value: value.split()[-1],
)
def test_a_target_runs_what_it_promises(target: str, command: str) -> None:
    assert command in recipe(target)


def test_setup_refuses_an_old_python_and_says_which_one_it_needs(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")
    done = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("which", COMPILED)
def test_requirements_are_pinned_with_hashes_and_name_no_index(which: str) -> None:
    text = (ROOT / "requirements" / f"{which}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.M | re.I), flags=re.I)
    unpinned = [entry for entry in entries if entry.strip() and not re.match(r"[\w.\[\],-]+==\S+", entry)]
    unhashed = [entry for entry in entries if entry.strip() and "--hash=sha256:" not in entry]
    assert (unpinned, unhashed) == ([], [])
    assert not re.search(r"index-url|find-links|trusted-host|://", text)


def test_requirements_hold_what_the_project_file_names() -> None:
    # Our own other package comes from this checkout, and from no index.
    runtime = {name_of(requirement) for requirement in PROJECT["project"]["dependencies"]} - {"mlflow-spool"}
    development = {name_of(requirement) for requirement in PROJECT["dependency-groups"]["dev"]}
    assert runtime <= pinned("base") <= pinned("dev")
    assert development <= pinned("dev")
    # What the gateway installs must not grow by what only its developers need.
    assert not (development - runtime) & pinned("base") - {"pytest"}


@pytest.mark.parametrize("which", ["tools", "airflow", "training"])
def test_requirements_hold_what_their_source_names(which: str) -> None:
    lines = (ROOT / "requirements" / f"{which}.in").read_text().splitlines()
    assert {name_of(line) for line in lines if not line.startswith("#")} <= pinned(which)


def test_both_packages_have_one_version_and_the_gateway_requires_it() -> None:
    assert mlflow_spool.__version__ == app.__version__
    assert f"mlflow-spool=={app.__version__}" in PROJECT["project"]["dependencies"]


def test_the_build_backend_is_pinned_too() -> None:
    backend = {name_of(requirement) for requirement in PROJECT["build-system"]["requires"]}
    assert backend <= pinned("tools")
    assert backend <= pinned("dev")


def test_no_file_names_a_package_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in tracked():
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRY_HOSTS if host in text]
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATHS.finditer(text)]
    assert found == []


def test_ci_is_executable_strict_and_calls_the_one_target() -> None:
    path = ROOT / ".ci/run"
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in text
    assert "export REQUIRE_E2E=1" in text
    assert re.search(r"^make test$", text, re.M)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_licence_is_the_one_that_the_project_file_names() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_dockerfile_is_clean_and_runs_as_nobody_special() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(hadolint), "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER [1-9]\d+:\d+$", text, re.M)
    assert text.count("FROM python:3.11.") == 2
    assert text.rstrip().endswith('CMD ["trigger-gateway", "serve"]')


def test_the_image_may_copy_what_the_dockerfile_names() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    assert {name.split("/")[0] for line in copied for name in line.split()} <= allowed


@pytest.mark.parametrize("path", ["alertmanager.yml", "compose/alertmanager.yml"])
def test_an_example_alertmanager_hides_nothing_from_the_gateway(path: str) -> None:
    config = yaml.safe_load((ROOT / "examples" / path).read_text())
    assert config["route"]["group_by"] == ["alertname", "model"]
    assert [config["route"][key] for key in ("group_wait", "group_interval", "repeat_interval")] == ["30s", "5m", "4h"]
    for entry in config["receivers"][0]["webhook_configs"]:
        assert entry["url"].endswith("/api/v1/webhooks/alertmanager")
        assert (entry["send_resolved"], entry["max_alerts"]) == (True, 0)


def test_the_example_contact_point_of_grafana_is_one_that_the_gateway_takes() -> None:
    [point] = yaml.safe_load((ROOT / "examples/grafana.yml").read_text())["contactPoints"]
    [receiver] = point["receivers"]
    assert (receiver["type"], receiver["disableResolveMessage"]) == ("webhook", False)
    settings = receiver["settings"]
    assert settings["url"].endswith("/api/v1/webhooks/grafana")
    assert (settings["httpMethod"], settings["maxAlerts"]) == ("POST", "0")
    assert settings["hmacConfig"]["header"] == GrafanaSignature(b"").header
    assert (
        f"GATEWAY_GRAFANA_TIMESTAMP_HEADER={settings['hmacConfig']['timestampHeader']}\n"
        in (ROOT / "examples/grafana.yml").read_text()
    )


def test_an_example_rule_tells_the_model_the_severity_and_the_value() -> None:
    (group,) = yaml.safe_load((ROOT / "examples/rules/model.yml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == ["ModelAccuracyLow", "ModelInputDrift", "ModelLatencyHigh"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "$labels.model" in rule["annotations"]["summary"]
        assert "$value" in rule["annotations"]["summary"]


def test_the_wall_clock_is_read_in_one_place() -> None:
    calls = re.compile(r"datetime\.(?:utc)?now\(|time\.time\(|date\.today\(")
    readers = [path.relative_to(ROOT) for path in (ROOT / "app").rglob("*.py") if calls.search(path.read_text())]
    assert readers == [Path("app/kit/clock.py")]


MODULES = sorted(path for room in ("app", "demo") for path in (ROOT / room).rglob("*.py"))


def test_every_module_has_its_layer() -> None:
    """What no layer names may import anything, and nobody notices."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    named = {module.strip() for layer in contract["layers"] for module in re.split("[:|]", layer)}
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "app").rglob("*.py"))
    modules = {".".join(path.parts) for path in paths if path.name != "__init__"}
    inside = {
        ".".join(parts[:end]) for name in modules for parts in [name.split(".")] for end in range(2, len(parts) + 1)
    }
    assert sorted(m for m in modules if not any(f"{m}.".startswith(f"{layer}.") for layer in named)) == []
    assert sorted(named - inside - {"demo"}) == []


def test_the_rooms_can_be_counted_at_a_glance() -> None:
    entries = [path for path in (ROOT / "app").iterdir() if path.name != "__pycache__"]
    loose = [path for path in entries if path.is_file()]
    packages = Counter(path.parent for path in MODULES)
    largest, files = packages.most_common(1)[0]
    print(f"entries of app/: {len(entries)}; loose files: {len(loose)}; largest package: {largest.name}, {files} files")
    assert (len(entries), [path.name for path in loose]) == (19, ["__init__.py"])
    assert {str(package.relative_to(ROOT)): number for package, number in packages.items() if number > 20} == {}


def test_files_and_functions_stay_small_enough_to_read() -> None:
    too_long, lengths = [], []
    for path in MODULES:
        source = path.read_text()
        if source.count("\n") > 400:
            too_long.append(f"{path.relative_to(ROOT)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                lengths.append(lines + 1)
                if lines > 50:
                    too_long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    tenths = quantiles(lengths, n=10)
    print(
        f"lines of a function: median {median(lengths):.0f}, nine of ten at most {tenths[8]:.0f}, longest {max(lengths)}"
    )
    assert too_long == []


def test_no_constructor_takes_more_than_six_arguments() -> None:
    too_many = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                arguments = [argument.arg for argument in (*node.args.args[1:], *node.args.kwonlyargs)]
                if len(arguments) > 6:
                    too_many.append(f"{path.relative_to(ROOT)}:{node.lineno}: {arguments}")
    assert too_many == []
