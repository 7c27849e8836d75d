"""action.yml and .pre-commit-hooks.yaml: the command line has what they run, and a comment is updated, not repeated."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}

#: Stands for GitHub: it keeps the comments of a pull request in a file.
GH = """\
#!{python}
import json, os, pathlib, sys
file = pathlib.Path(os.environ["COMMENTS"])
comments = json.loads(file.read_text())
arguments = sys.argv[1:]
assert arguments[0] == "api" and os.environ["GH_TOKEN"] == "t0ken"
body = next((pathlib.Path(a[len("body=@"):]).read_text() for a in arguments if a.startswith("body=@")), None)
path = next(a for a in arguments if a.startswith("repos/ana/models/"))
if body is None:
    marker = arguments[arguments.index("--jq") + 1].split('startswith("')[1].split('")')[0]
    print(*(c["id"] for c in comments if c["type"] == "Bot" and c["body"].startswith(marker)), sep="\\n")
elif "PATCH" in arguments:
    [comment] = [c for c in comments if path.endswith(f"/issues/comments/{{c['id']}}")]
    comment["body"] = body
else:
    assert path.endswith("/issues/7/comments")
    comments.append({{"id": 100 + len(comments), "type": "Bot", "body": body}})
file.write_text(json.dumps(comments))
"""


class Runner:
    """The part of a runner of GitHub Actions that the steps need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trigger-gateway/bin").mkdir(parents=True)
        self.command('print(" ".join(sys.argv[1:]))')
        self.write("bin/gh", GH.format(python=sys.executable))
        self.write("comments.json", json.dumps([{"id": 1, "type": "User", "body": "<!-- trigger-gateway: a guess"}]))

    def command(self, *lines: str) -> None:
        text = "\n".join([f"#!{sys.executable}", "import pathlib, sys", *lines])
        self.write("trigger-gateway/bin/trigger-gateway", text)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def step(self, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        """As GitHub runs a step with `shell: bash`."""
        script = self.folder / "script.sh"
        script.write_text(STEPS[name]["run"])
        known = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_REPOSITORY": "ana/models",
            "COMMENTS": str(self.folder / "comments.json"),
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return subprocess.run(
            command, env={**known, **env}, cwd=self.folder, capture_output=True, text=True, check=False
        )

    def comments(self) -> list[str]:
        return [each["body"] for each in json.loads((self.folder / "comments.json").read_text())]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_every_step_takes_its_inputs_from_the_environment_alone() -> None:
    assert ACTION["runs"]["using"] == "composite"
    used = set()
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script may inject a command"
        used |= set(re.findall(r"inputs\.([a-z-]+)", json.dumps(step)))
    assert used == set(ACTION["inputs"])
    assert all(each["description"] and "default" in each for each in ACTION["inputs"].values())


def test_check_and_test_get_names_as_single_arguments(runner: Runner) -> None:
    name = "a b;$(touch hacked).yaml"
    assert runner.step("Check the policy", POLICY=name).stdout == f"check --format github -- {name}\n"
    runner.write("tests/a_test.yaml", "")
    runner.write("tests/b_test.yaml", "")
    found = runner.step("Test the policy", TESTS="tests/*_test.yaml gone/*.yaml").stdout
    assert found == "test --format github -- tests/a_test.yaml tests/b_test.yaml\n"
    none = runner.step("Test the policy", TESTS="gone/*.yaml")
    assert (none.returncode, none.stdout.startswith("::error::")) == (1, True)
    assert not (runner.folder / "hacked").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_the_report_is_the_summary_whatever_the_backtest_says(code: int, runner: Runner) -> None:
    runner.command(
        "out = sys.argv[sys.argv.index('--out') + 1]",
        "pathlib.Path(out).write_text('the report: ' + ' '.join(a for a in sys.argv[1:] if a != out))",
        f"sys.exit({code})",
    )
    done = runner.step("Replay the history", POLICY="p.yaml", OPTIONS="--history h.gz --fail-if 'x")
    assert done.returncode == code, done.stderr
    summary = (runner.folder / "summary.md").read_text()
    assert summary == "the report: backtest --history h.gz --fail-if 'x --format markdown --out -- p.yaml"


def test_a_backtest_without_a_report_writes_no_summary_and_no_comment(runner: Runner) -> None:
    runner.command("sys.exit(2)")
    assert runner.step("Replay the history", POLICY="p.yaml", OPTIONS="--history gone").returncode == 2
    done = runner.step("Comment on the pull request", POLICY="p.yaml", NUMBER="7", GH_TOKEN="t0ken")
    assert (done.returncode, len(runner.comments())) == (0, 1)
    assert not (runner.folder / "summary.md").exists()


def test_a_comment_is_updated_and_not_repeated(runner: Runner) -> None:
    for policy, text in [("p.yaml", "first"), ("p.yaml", "second"), ("q.yaml", "other"), ("p.yaml", "third " * 20_000)]:
        runner.write("trigger-gateway-report.md", text)
        done = runner.step("Comment on the pull request", POLICY=policy, NUMBER="7", GH_TOKEN="t0ken")
        assert done.returncode == 0, done.stderr
    users, first, other = runner.comments()
    assert users == "<!-- trigger-gateway: a guess"
    assert [body.splitlines()[1][:11] for body in (first, other)] == ["third third", "other"]
    assert len(first) <= 65_536


#: The keys of a hook that pre-commit knows (`pre-commit validate-manifest`), and those that it must have.
MAY = {
    *("additional_dependencies", "alias", "always_run", "args", "description", "entry", "exclude", "exclude_types"),
    *("fail_fast", "files", "id", "language", "language_version", "log_file", "minimum_pre_commit_version", "name"),
    *("pass_filenames", "require_serial", "stages", "types", "types_or", "verbose"),
}
MUST = {"id", "name", "entry", "language"}
EXAMPLES = {"policy.yaml": "examples/policy.yaml", "policy_test.yaml": "examples/tests/policy_test.yaml"}
#: A hook, what somebody changed in which file, and what the hook then shows.
SPOILED = {
    "trigger-gateway-check": ("policy.yaml", "cooldown: ", "cooldwon: ", "policy.yaml:"),
    "trigger-gateway-test": ("policy_test.yaml", "at: 10m, route", "at: 11m, route", "an alert that lasts"),
}


def test_the_manifest_is_one_that_pre_commit_takes() -> None:
    assert {hook["id"] for hook in HOOKS} == SPOILED.keys()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for hook in HOOKS:
        assert MUST <= hook.keys() <= MAY
        # pre-commit installs the repository itself, and beside it what the wheel of the gateway needs of this repository.
        assert (hook["language"], hook["additional_dependencies"]) == ("python", ["./mlflow-spool"])
        assert (ROOT / "mlflow-spool/pyproject.toml").is_file()
        assert shlex.split(hook["entry"])[0] in scripts


def committed(hook: dict[str, Any], folder: Path, changed: list[str]) -> subprocess.CompletedProcess[str] | None:
    """What pre-commit runs when these files of a repository change: the entry, `args`, and the files that match. None: no
    file matches, so it runs nothing."""
    matching = [name for name in changed if re.search(hook["files"], name)]
    if not matching:
        return None
    program, *words = shlex.split(hook["entry"])
    files = matching if hook.get("pass_filenames", True) else []
    command = [str(Path(sys.executable).with_name(program)), *words, *hook.get("args", []), *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_takes_the_examples_and_stops_a_commit_that_spoils_them(hook: dict[str, Any], tmp_path: Path) -> None:
    for name, source in EXAMPLES.items():
        (tmp_path / name).write_text((ROOT / source).read_text().replace("../policy.yaml", "policy.yaml"))
    assert committed(hook, tmp_path, ["README.md", "my-policy.yaml.txt", "docs/policy.md"]) is None
    done = committed(hook, tmp_path, list(EXAMPLES))
    assert done is not None
    assert (done.returncode, done.stderr) == (0, "")
    file, good, bad, shown = SPOILED[hook["id"]]
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(good, bad, 1))
    done = committed(hook, tmp_path, [file])
    assert done is not None
    assert done.returncode == 1, done.stdout
    assert shown in done.stdout + done.stderr
