"""The README in a shell: its code blocks, run as they stand in a home that is empty, and what they install."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from tests.e2e.processes import require_binary

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a Markdown text in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def section(title: str) -> str:
    """The text of one section of the README, up to the next of its kind."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found, f"the README has no section {title!r}"
    return found[1]


def step(number: int) -> str:
    """The commands of a numbered step of the way in."""
    found = re.search(
        rf"^\*\*{number}\. (.*?)(?=^\*\*\d\. |\Z)", section("You already run Airflow and Alertmanager"), re.M | re.S
    )
    assert found, f"the README has no step {number}"
    (commands,) = blocks(found[1], "sh")
    return commands


class Shell:
    """One bash that remembers, as a person's terminal does. Its standard error goes to `folder`/stderr."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._errors = folder / "stderr"
        self._process = subprocess.Popen(
            [require_binary("bash"), "-s"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors.open("ab"),
            text=True,
        )

    def run(self, commands: str) -> str:
        """What the commands print. A command that fails fails the test."""
        sent, printed = _pipes(self._process)
        mark = secrets.token_hex(8)
        sent.write(f"set -e\n{commands}\nset +e\nprintf '\\n{mark}\\n'\n")
        sent.flush()
        lines: list[str] = []
        for line in printed:
            if line == f"{mark}\n":
                return "".join(lines).strip()
            lines.append(line)
        raise AssertionError(f"failed:\n{commands}\nprinted:\n{''.join(lines)}\n{self.errors()}")

    def errors(self) -> str:
        """What was written to standard error."""
        return self._errors.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave, after what runs in the background has been asked to end and has ended."""
        try:
            self._process.communicate("kill $(jobs -p) 2>/dev/null; wait\n", timeout=30)
        finally:
            self._process.kill()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@dataclass(frozen=True)
class Installed:
    """A home in which the README's first step was done: the wheel stands alone in ~/trigger-gateway."""

    home: Path
    wheel: Path

    @property
    def bin(self) -> Path:
        return self.home / "trigger-gateway" / "bin"

    def environment(self, **variables: str) -> dict[str, str]:
        """Nothing of the checkout's own environment: only the installed commands, the system's, and `variables`."""
        return {"HOME": str(self.home), "PATH": f"{self.bin}:{os.defpath}", "LANG": "C.UTF-8", **variables}


def install(home: Path) -> Installed:
    """Do the README's first step in a copy of this checkout, with packages from the cache that `make setup` has filled."""
    clone = home / "clone"
    for name in sorted(
        _listed() | _listed("--others", "--exclude-standard", "--", "app", "migrations", "mlflow-spool")
    ):
        if (ROOT / name).is_file():  # What was deleted and not yet committed is still in git's list.
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix)
    environment = os.environ | {"HOME": str(home), "UV_CACHE_DIR": _cache()}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with Shell(clone, environment) as shell:
        # The copy borrows this checkout's .venv, and must not set it up anew for itself.
        shell.run('make() { command make --assume-old=.venv/.installed "$@"; }')
        shell.run(step(1))
    (wheel,) = (clone / "dist").glob("trigger_gateway-*.whl")
    return Installed(home, wheel)


def _listed(*options: str) -> set[str]:
    """Files as git lists them; with `--others`, those that are new and not yet in it."""
    command = ["git", "ls-files", "-z", *options]
    return set(filter(None, subprocess.check_output(command, cwd=ROOT, text=True).split("\0")))


def _cache() -> str:
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
