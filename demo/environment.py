"""The Python environments of Airflow and of MLflow: made once, reused until their requirements change.

They cannot share ours: Airflow 3.3.2 wants a FastAPI below 0.137 (its package metadata says so), and MLflow brings 600 MB.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from app.kit.errors import UsageError
from demo.processes import Say, clean_environment, run

INSTALL_TIMEOUT: Final = 1800.0  # seconds; a slow line needs minutes for what they download


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the pinned environments of this repository. Sizes are measured: the wheels, and installed with byte code."""

    title: str
    name: str  # requirements/<name>.txt, installed below .venv-<name>
    download_mb: int
    disk_mb: int

    def requirements(self, root: Path) -> Path:
        return root / "requirements" / f"{self.name}.txt"

    def folder(self, root: Path) -> Path:
        return root / f".venv-{self.name}"

    def is_installed(self, root: Path) -> bool:
        """Whether the checkout at `root` holds exactly what the requirements ask for."""
        return is_installed(self.folder(root), self.requirements(root))

    async def install(self, root: Path, say: Say) -> Path:
        """As the function `install`, in the checkout at `root`."""
        return await install(self.title, self.folder(root), self.requirements(root), say)


AIRFLOW: Final = Environment("Airflow", "airflow", 62, 290)
MLFLOW: Final = Environment("MLflow", "mlflow", 220, 1080)


def repository() -> Path:
    """The checkout that this code runs from. No wheel holds the example DAGs and the pinned requirements.

    Raises UsageError when it does not run from a checkout.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "examples" / "dags" / "retrain_model.py").is_file():
        raise UsageError("the demo needs the source: clone the repository and run `make demo` in it")
    return root


def is_installed(folder: Path, requirements: Path) -> bool:
    """Whether `folder` holds exactly what `requirements` ask for."""
    stamp = folder / "stamp"
    return stamp.is_file() and stamp.read_text() == _stamp(folder, requirements)


async def install(title: str, folder: Path, requirements: Path, say: Say) -> Path:
    """Make the environment below `folder` unless it exists already. Returns it (its programs are in `bin`).

    Two processes that come at once do it once. Raises ServerError when the installation fails.
    """
    environment = folder / "venv"
    async with _alone(folder):
        if is_installed(folder, requirements):
            return environment
        _clear(folder)
        uv = _find_uv()
        say(f"Installing {title} into {environment} with {'uv' if uv else 'pip'}")
        for name, argv in _commands(uv, environment, requirements):
            await run(
                name,
                argv,
                env=clean_environment(),
                log=folder / "install.log",
                cwd=folder,
                within=INSTALL_TIMEOUT,
                say=say,
            )
        (folder / "stamp").write_text(_stamp(folder, requirements))
    return environment


def _commands(uv: str | None, environment: Path, requirements: Path) -> list[tuple[str, list[str | Path]]]:
    python = environment / "bin" / "python"
    if uv is None:
        return [
            ("python -m venv", [sys.executable, "-m", "venv", environment]),
            ("pip install", [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", requirements]),
        ]
    return [
        ("uv venv", [uv, "venv", "--no-project", "--python", sys.executable, environment]),
        (
            "uv pip install",
            [uv, "pip", "install", "--python", python, "--require-hashes", "--compile-bytecode", "-r", requirements],
        ),
    ]


def _clear(folder: Path) -> None:
    (folder / "stamp").unlink(missing_ok=True)
    shutil.rmtree(folder / "venv", ignore_errors=True)


def _find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")


def _stamp(folder: Path, requirements: Path) -> str:
    # The path counts, since the programs of an environment name it: a moved checkout must install again.
    facts = f"{folder.resolve()}\n{sys.version}\n".encode()
    return hashlib.sha256(facts + requirements.read_bytes()).hexdigest()


def _lock_file(folder: Path) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "lock").open("w")


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    with _lock_file(folder) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(0.2)
            else:
                break
        yield
