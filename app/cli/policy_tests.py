"""The command `test`: reads files of policy tests and their policies, plays them, and prints what differs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.cli.check import Output, github
from app.kit.visible import visible
from app.policy.file.document import Document, read_document
from app.policy.file.load import PolicyError, Problem, parse_policy, read_text
from app.policy.schema import Policy
from app.replay.cases import CaseFile, problems_with, read_cases, unknown_variables
from app.replay.play_case import play


@dataclass
class Report:
    """What became of a file. `problems` that hang on what happened have its lines."""

    file: Path
    passed: int = 0
    tests: int = 0
    problems: list[tuple[Problem, Sequence[str]]] = field(default_factory=list)


def run_tests(files: Iterable[Path], output: Output) -> int:
    """Play the tests of the files and print what differs. Returns the exit code."""
    failed = False
    for file in files:
        report = Report(file)
        try:
            _play(report)
        except PolicyError as error:
            report.problems += [(problem, ()) for problem in error.problems]
        failed |= bool(report.problems)
        for line in _lines(report, output):
            print(line, file=sys.stderr if report.problems and output is Output.TEXT else sys.stdout)
    return 1 if failed else 0


def _lines(report: Report, output: Output) -> Iterator[str]:
    for problem, happened in report.problems:
        yield github("error", problem) if output is Output.GITHUB else visible(str(problem))
        yield from (f"    {visible(line)}" for line in happened)
    if report.tests:
        yield f"{visible(str(report.file))}: {report.passed} of {report.tests} test(s) passed."


def _play(report: Report) -> None:
    document, cases, problems = read_cases(read_text(report.file), str(report.file))
    if cases is None:
        raise PolicyError(problems)
    policy = _policy(report.file.parent / cases.policy, cases, document)
    wrong = [
        problem
        for index, case in enumerate(cases.tests)
        for problem in problems_with(case, ("tests", index), document, policy)
    ]
    if wrong:
        raise PolicyError(wrong)
    for index, case in enumerate(cases.tests):
        played = play(case, policy)
        report.tests += 1
        report.passed += not played.differences
        happened = [f"what happened in {case.name!r}:", *played.timeline]
        for number, (path, message) in enumerate(played.differences, 1):
            problem = document.problem(("tests", index, *path), message)
            report.problems.append((problem, happened if number == len(played.differences) else ()))


def _policy(path: Path, cases: CaseFile, tests: Document) -> Policy:
    """The policy of a file of tests. Secrets need no value; what decides needs one."""
    try:
        text = read_text(path)
    except PolicyError as error:
        raise PolicyError([tests.problem(("policy",), f"{path} {error.problems[0].message}")]) from None
    policy = parse_policy(text, str(path), cases.env, require_env=False)
    missing = list(unknown_variables(read_document(text, str(path), cases.env, require_env=False)))
    if missing:
        raise PolicyError(missing)
    return policy
