"""A process that uploads to stores before which MLflow does not stand (S3 and others).

The clients of these stores import while they work, which our thread must not do (see `quiet`). So such a thread asks a
process of its own, by one JSON object a line.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from mlflow_spool.errors import NoAnswer
from mlflow_spool.records import Answer


class Helper:
    """The process, started by the first upload. Only one thread uses it."""

    def __init__(self, uri: str) -> None:
        """uri: of MLflow."""
        self._uri = uri
        self._process: subprocess.Popen[bytes] | None = None

    def store(self, root: str, path: str, file: Path) -> Answer:
        """As `MlflowServer.store`. Raises NoAnswer."""
        asked = json.dumps({"root": root, "path": path, "file": str(file)})
        try:
            if self._process is None or self._process.poll() is not None:
                argv = [sys.executable, "-m", "mlflow_spool.helper"]
                self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                _write(
                    self._process, self._uri
                )  # Everybody on the machine may read arguments, and it may hold a login.
            answer = _exchange(self._process, asked)
            return Answer(int(answer["status"]), dict(answer["body"]))
        except (OSError, ValueError, KeyError) as error:
            raise NoAnswer(f"the process that uploads to {root} failed: {error}") from None


def _write(process: "subprocess.Popen[bytes]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def _exchange(process: "subprocess.Popen[bytes]", asked: str) -> dict[str, Any]:
    _write(process, asked)
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    if "error" in answer:
        raise NoAnswer(answer["error"])
    return answer


def serve(uri: str, questions: IO[str], answers: IO[str]) -> None:
    """Upload what is asked for, until there are no more questions: the other process has ended."""
    from mlflow_spool.transport import MlflowServer

    server = MlflowServer(uri)
    for line in questions:
        asked = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # The clients may print.
                answer = server.store(asked["root"], asked["path"], Path(asked["file"]))
            answered: dict[str, Any] = {"status": answer.status, "body": answer.body}
        except NoAnswer as error:
            answered = {"error": str(error)}
        answers.write(json.dumps(answered) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.readline().strip(), sys.stdin, sys.stdout)
