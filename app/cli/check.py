"""The command `check`, and problems of files in the forms that people, scripts and CI read."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from app import __version__
from app.kit.visible import visible
from app.policy.file.load import PolicyError, Problem, load_policy
from app.policy.schema import Policy

_RULES: Final[Mapping[str, str]] = {
    "error": "The gateway refuses this policy.",
    "warning": "The gateway takes this policy, but it is probably not what was meant.",
}


class Format(StrEnum):
    TEXT = "text"  # for people
    JSON = "json"  # for scripts
    SARIF = "sarif"  # SARIF 2.1.0, for code scanning
    GITHUB = "github"  # workflow commands, which become annotations


class Output(StrEnum):
    """What `test` writes."""

    TEXT = "text"
    GITHUB = "github"


@dataclass(frozen=True)
class Checked:
    """A file that was read. `policy` is None when it has an error."""

    file: Path
    policy: Policy | None
    problems: Sequence[Problem]

    @property
    def level(self) -> str:
        return "error" if self.policy is None else "warning"

    @property
    def good(self) -> str:
        """The sentence on a good file. It is empty for another one."""
        if self.policy is None:
            return ""
        names = ", ".join(route.name for route in self.policy.routes)
        return f"is good: {len(self.policy.routes)} route(s): {names}."


def check_policies(paths: Iterable[Path], output: Format) -> int:
    """Read the files and print what is wrong with them. Returns the exit code."""
    checked = [_check(path) for path in paths]
    match output:
        case Format.TEXT:
            _print_text(checked)
        case Format.JSON:
            print(json.dumps(_as_json(checked), indent=2))
        case Format.SARIF:
            print(json.dumps(sarif([(each.level, p) for each in checked for p in each.problems]), indent=2))
        case Format.GITHUB:
            for each in checked:
                print(
                    *(github(each.level, problem) for problem in each.problems),
                    sep="\n",
                    end="\n" * bool(each.problems),
                )
                if each.good:
                    print(f"{_property(str(each.file))} {each.good}")
    return 1 if any(each.policy is None for each in checked) else 0


def _check(path: Path) -> Checked:
    try:
        policy = load_policy(path, require_env=False)
    except PolicyError as error:
        return Checked(path, None, error.problems)
    return Checked(path, policy, policy.warnings)


def _print_text(checked: Iterable[Checked]) -> None:
    for each in checked:
        for problem in each.problems:
            print(visible(f"{problem} (warning)" if each.level == "warning" else str(problem)), file=sys.stderr)
        if each.good:
            print(visible(f"{each.file} {each.good}"))


def _as_json(checked: Sequence[Checked]) -> dict[str, Any]:
    policies = [
        {
            "file": str(each.file),
            "good": each.policy is not None,
            "hash": each.policy.hash if each.policy else None,
            "routes": [route.name for route in each.policy.routes] if each.policy else [],
        }
        for each in checked
    ]
    problems = [{**asdict(problem), "level": each.level} for each in checked for problem in each.problems]
    return {"policies": policies, "problems": problems}


def sarif(problems: Iterable[tuple[str, Problem]]) -> dict[str, Any]:
    """SARIF 2.1.0 of problems, each with its level."""
    order = list(_RULES)
    rules = [
        {
            "id": f"policy-{level}",
            "name": f"Policy{level.title()}",
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": level},
        }
        for level, text in _RULES.items()
    ]
    results = [
        {
            "ruleId": f"policy-{level}",
            "ruleIndex": order.index(level),
            "level": level,
            "message": {"text": f"{problem.path}: {problem.message}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(problem.file)},
                        "region": {"startLine": problem.line, "startColumn": problem.column},
                    }
                }
            ],
        }
        for level, problem in problems
    ]
    driver = {"name": "trigger-gateway", "semanticVersion": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }


def github(level: str, problem: Problem) -> str:
    """A workflow command of GitHub Actions, which becomes an annotation of the line."""
    place = f"file={_property(problem.file)},line={problem.line},col={problem.column}"
    return f"::{level} {place},title=Policy::{_data(f'{problem.path}: {problem.message}')}"


def _uri(file: str) -> str:
    """A path as a URI, relative to the directory of the call unless it is absolute."""
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix(), safe="/", errors="surrogateescape")


def _data(text: str) -> str:
    return visible(text, keep="\r\n").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
