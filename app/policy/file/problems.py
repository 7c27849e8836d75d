"""What is wrong with a policy file, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.kit.errors import UsageError

# A place inside the file: keys and list indexes from the top, such as ("routes", 0, "debounce").
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. Lines and columns count from 1, as in editors. `path` has dots; the top is `policy`."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message}"


class PolicyError(UsageError):
    """The policy file is wrong. `problems` has each problem in the order of the file; `str()` has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_file_order(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The same problems in the order of the file, without repeats."""
    return tuple(sorted(set(problems), key=lambda p: (p.line, p.column, p.path, p.message)))


def dotted(path: Path) -> str:
    """A path as a person reads it: `routes.0.debounce`. The whole file is `policy`."""
    return ".".join(str(part) for part in path) or "policy"
