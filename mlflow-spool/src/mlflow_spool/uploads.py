"""Deliver one artifact: `replay` for files. The record of an artifact stays on this machine, with the bytes."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.files import names_local_ids
from mlflow_spool.questions import CREDENTIALS, UNWELL, is_strange
from mlflow_spool.records import Answer, Call, IsLocal, Kind, Record, needed, translated
from mlflow_spool.replay import Done, Later, Never, Outcome, Resolve, Waits, later

FILES = "/api/2.0/mlflow-artifacts/artifacts"  # where MLflow shows and takes the files before whose store it stands
RATE = 2_000_000  # bytes a second: the slowest upload that is waited for
_OWNER = re.compile(r"/((?:m-)?(?:spool-)?[0-9a-f]{32})/artifacts(?:/|$)")


class Uploader(Protocol):
    """An artifact store, by MLflow's client or another."""

    def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        """Put `file` at `path` below the artifact root `root`. Raises NotSent or NoAnswer."""
        ...

    def download(self, root: str, path: str, target: Path, timeout: float) -> Answer:
        """Write what lies at `path` below `root` to `target`. Raises NotSent or NoAnswer."""
        ...

    def is_at_hand(self, root: str) -> bool:
        """Whether an upload below `root` may begin at once: the way to a store that is not behind MLflow takes seconds to
        open."""
        ...


def artifact(key: str, root: str, path: str, size: int, made_at: int) -> Record:
    """The record of a file kept under `key`. root: an artifact URI; size: bytes; made_at: milliseconds since 1970, UTC.

    The files of a logged model are in the stream of its other records, so that the model is not ready before its files are
    there. The files of a run have a stream of their own, so that the metadata of the run does not wait for them.
    """
    found = _OWNER.search(root)
    owner = found[1] if found else root
    stream = f"logged-model:{owner}" if owner.startswith("m-") else f"artifacts:{owner}"
    return Record(key, stream, Kind.ARTIFACT, Call("PUT", "", {"root": root, "path": path, "bytes": size}), made_at)


def split_root(uri: str) -> tuple[str, str]:
    """The artifact root of a run or model in an address, and the path below it. A server may have a folder `artifacts`
    above all of them."""
    if (found := _OWNER.search(uri)) is None:
        root, slash, below = uri.partition("/artifacts")
        return root + slash, below.strip("/")
    end = found.end(1) + len("/artifacts")
    return uri[:end], uri[end:].strip("/")


def send_file(
    record: Record, file: Path | None, uploader: Uploader, resolve: Resolve, is_local: IsLocal, timeout: float
) -> Outcome:
    """Upload the file of `record`; a second upload changes nothing.

    is_local: see `needed`. timeout: seconds, and more for a large file.
    """
    wanted = needed(record.call, is_local)
    if file is not None and names_local_ids(file):  # Its upload is the last chance to put the real ids into it.
        wanted |= needed(Call("PUT", file.read_text(errors="replace")), is_local)
    missing = {token for token in wanted if resolve(token) is None}
    if missing:
        return Waits(frozenset(missing))
    if file is None:
        return Never(Answer(410, {"error_code": "FILE_IS_GONE", "message": "the spool's copy was removed"}))
    body = translated(record.call, resolve).body
    try:
        with _with_real_ids(file, resolve) as ready:
            answer = uploader.upload(body["root"], body["path"], ready, timeout + file.stat().st_size / RATE)
    except NotSent as error:
        return Later(str(error), unwell=True)
    except NoAnswer as error:
        return Later(str(error), unwell=True, maybe=True)
    if 200 <= answer.status < 300 and not answer.body.get("message"):
        return Done({})  # MLflow answers an upload with no content, and a login page has some.
    if is_strange(answer):
        # A store refused it (no such bucket), which a person mends; or a proxy answered in MLflow's place.
        refused = 400 <= answer.status < 500 and answer.status not in UNWELL | CREDENTIALS
        return replace(later(answer, maybe=False), unwell=False, suspect=True, refused=refused)
    if answer.status >= 500 or answer.status in UNWELL | CREDENTIALS:
        return later(answer, maybe=False)
    return Never(answer)


@contextmanager
def _with_real_ids(file: Path, resolve: Resolve) -> Iterator[Path]:
    if not names_local_ids(file):
        yield file
        return
    # Beside the copy: `tempfile` has a lock of its own, which a fork could catch (see `quiet`).
    ready = file.parent / "ready" / file.name
    ready.parent.mkdir(exist_ok=True)
    try:
        ready.write_text(translated(Call("PUT", file.read_text()), resolve).path)
        yield ready
    finally:
        shutil.rmtree(ready.parent, ignore_errors=True)


def lane(record: Record) -> str:
    """What has to keep its order: a stream, or one path of a run's files, which do not wait for each other."""
    return f"{record.stream}:{record.call.body['path']}" if record.stream.startswith("artifacts:") else record.stream


def folder_of(path: str) -> str | None:
    """The folder part of an artifact's path, None at the root."""
    parent = str(PurePosixPath(path).parent)
    return None if parent == "." else parent
