"""Run a training script as a process of its own, through the spool or without it."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.spool.mlflow import Environment

SCRIPTS = Path(__file__).with_name("scripts")


@dataclass(frozen=True)
class Site:
    """A machine that trains: its environment, its spool's folder, and the address that it was told."""

    environment: Environment
    folder: Path
    tracking_uri: str
    settings: dict[str, str] = field(default_factory=dict)
    noise: list[str] = field(default_factory=list)  # what each process wrote to stderr
    limit: float = 240.0  # seconds of a process

    def train(self, script: str = "train.py", **variables: str) -> str:
        """What the script said; fails the test when it fails."""
        return self._run([self.environment.python, SCRIPTS / script], variables)

    def spool(self, *arguments: str, code: int | None = 0) -> str:
        """What `mlflow-spool ARGUMENTS` said; fails the test when it ends with another code, unless that is None."""
        return self._run([self.environment.python, "-m", "mlflow_spool.cli", *arguments], {}, code)

    def _run(self, argv: list[str | Path], variables: dict[str, str], code: int | None = 0) -> str:
        own = {"MLFLOW_TRACKING_URI": self.tracking_uri, "MLFLOW_SPOOL_DIR": str(self.folder), **self.settings}
        done = subprocess.run(
            argv,
            env=self.environment.variables(own | variables),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=self.limit,
        )
        print(done.stdout, done.stderr, file=sys.stderr)
        self.noise.append(done.stderr)
        assert code in (None, done.returncode), done.stderr[-3000:]
        return done.stdout
