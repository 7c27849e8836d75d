"""A process that asks stores before which MLflow does not stand, for a process with the spool: see `stores`."""

import json
import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

from mlflow_spool.errors import NoAnswer
from mlflow_spool.transport import plain_repository
from mlflow_spool.uploads import folder_of

#: Codes in the errors of botocore that a new login mends.
EXPIRED = frozenset({"ExpiredToken", "InvalidToken"})


def answer(uri: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What comes of one question. uri: of MLflow."""
    try:
        return {"status": 200, "body": _done(plain_repository(asked["root"], uri), asked)}
    except Exception as error:  # Each kind of store has errors of its own.
        body = {"message": str(error)[:1000]}
        code = getattr(error, "error_code", None)
        if asked["do"] != "store" and isinstance(code, str):
            body["error_code"] = code
        return {"status": status_of(error) or 0, "silent": is_no_answer(error), "body": body}


def _done(repository: Any, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["do"] == "store":
        repository.log_artifact(asked["file"], folder_of(asked["path"]))
        return {}
    if asked["do"] == "fetch":
        repository._download_file(asked["path"], asked["file"])
        return {}
    found = repository.list_artifacts(asked["path"])
    return {"files": [{"path": file.path, "is_dir": file.is_dir, "file_size": file.file_size} for file in found]}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those from which it was made: boto3 hides the answer of a store in them."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an error of botocore or requests; None when the error has none."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if response.get("Error", {}).get("Code") in EXPIRED:
                return 401
        else:
            status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_no_answer(error: BaseException) -> bool:
    """Whether the client of a store got no answer: its own errors have no status then. MLflow's errors, those of this
    machine's files, and wrong arguments say nothing of the store."""
    if status_of(error) is not None:
        return False
    if isinstance(error, NoAnswer | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return not (isinstance(error, ValueError | TypeError | LookupError | ImportError) or hasattr(error, "error_code"))


def _end_with_the_other_process(questions: int) -> None:
    """Nobody waits for an answer any more: the upload of an old file must not go on for minutes."""
    poll = select.poll()
    poll.register(questions, 0)  # The end of the other process is an event without being asked for.
    poll.poll()
    os._exit(0)


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Read the address of MLflow, then answer what is asked."""
    uri = questions.readline().strip()
    threading.Thread(target=_end_with_the_other_process, args=(questions.fileno(),), daemon=True).start()
    _write(answers, {})
    for line in questions:
        _write(answers, answer(uri, json.loads(line)))


def _write(answers: IO[str], line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # The clients may print.
    serve(sys.stdin, own)
