"""What is wrong with a policy file, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.kit.errors import UsageError

# How a place inside the file is named: keys and list indexes from the top, ("routes", 0, "debounce").
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. Lines and columns count from 1, as editors do; `path` is dotted, `policy` for the top."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message}"


class PolicyError(UsageError):
    """The policy file is wrong. `problems` holds all of it in the order of the file; `str()` is one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_file_order(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The same problems by line and column, each told once."""
    return tuple(sorted(set(problems), key=lambda p: (p.line, p.column, p.path, p.message)))


def dotted(path: Path) -> str:
    """A path for a person: `routes.0.debounce`; the whole file is `policy`."""
    return ".".join(str(part) for part in path) or "policy"
