"""The files of runs and models as this machine knows them: those that wait, and those that it has logged before."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow_spool.files import Files
from mlflow_spool.journal import Journal
from mlflow_spool.records import CREATES, Call, Kind, Record, needed, text_at, translated
from mlflow_spool.uploads import artifact

#: Files that a later call of `log_table` reads, to add rows to them.
TABLES = frozenset({".json", ".parquet"})
LARGEST = 8_000_000  # bytes of a table of which a copy is kept
COPIES = 64  # tables of which a copy is kept, the newest
NAMES = 10_000  # names of files that are kept, the newest


class Shelf:
    """The files of one journal's runs and models. Copies that wait for nothing lie beside those that wait."""

    def __init__(self, journal: Journal, files: Files) -> None:
        self._journal = journal
        self._files = files
        self._folder = files.folder.with_name("known")

    def real_root(self, root: str) -> str | None:
        """The real artifact root for `root`; None while the server has not named it."""
        call = Call("GET", root, {"root": root})
        known = all(self._journal.names.name_of(token) for token in needed(call, self._journal.made))
        return translated(call, self._journal.names.name_of).path if known else None

    def knows(self, root: str) -> bool:
        """Whether this machine has logged to the run or model with this artifact root, or was given it to log to."""
        owner = self._stream(root).partition(":")[2]
        nouns = ("artifacts", "logged-model") if owner.startswith("m-") else ("artifacts", "run")
        return (
            self._journal.was_given(owner)
            or any(self._journal.first(f"{noun}:{owner}") for noun in nouns)
            or bool(self._noted(root))
        )

    def made(self, root: str) -> bool:
        """Whether this machine made the run or model with this artifact root, so that it knows its files."""
        owner = self._stream(root).partition(":")[2]
        noun = "logged-model" if owner.startswith("m-") else "run"
        return any(record.kind in CREATES for record in self._journal.first(f"{noun}:{owner}"))

    def waiting(self, root: str) -> dict[str, int]:
        """The paths of the files below `root` whose upload waits, with their sizes in bytes."""
        return {str(body["path"]): int(body["bytes"]) for body in (each.call.body for each in self._records(root))}

    def logged(self, root: str) -> dict[str, int]:
        """The same for all files that were logged here, also those that were uploaded."""
        return self._noted(root) | self.waiting(root)

    def find(self, root: str, path: str, *, uploaded: bool = False) -> Path | None:
        """A copy of an artifact whose upload waits; None when there is none. uploaded: or that was uploaded."""
        keys = [record.key for record in self._records(root) if record.call.body["path"] == path]
        found = self._files.find(keys[-1]) if keys else None
        copy = self._copy(root, path)
        return found or (copy if uploaded and copy.is_file() else None)

    def housed(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a read of a run or model. While its files wait for a store before which MLflow does not stand, its
        root is the one that waits here: the client of that store would not find them."""
        for noun, field in (("run", "run_id"), ("model", "model_id")):
            root, owner = (text_at(body, noun, "info", name) for name in ("artifact_uri", field))
            if not root or root.startswith(("mlflow-artifacts:", "spool-artifacts:")):
                continue
            token = self._journal.names.token_of(owner) or owner
            if self._journal.names.name_of(f"root:{token}") == root and self.waiting(root):
                info = {**body[noun]["info"], "artifact_uri": f"spool-artifacts:/{token}/artifacts"}
                return {**body, noun: {**body[noun], "info": info}}
        return body

    def note(self, root: str, path: str, file: Path) -> None:
        """Remember that `file` was uploaded as `path` below `root`. A table is kept, for the next call that adds to it."""
        size = file.stat().st_size
        if self._noted(root).get(path) != size:
            self._journal.names.remember(f"file:{self._key(root)}:{path}", str(size))
        if Path(path).suffix not in TABLES:
            return
        copy = self._copy(root, path)
        with suppress(OSError):  # On a full disk there is no copy.
            if size > LARGEST:
                copy.unlink(missing_ok=True)
                return
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(file, copy)

    def tidy(self) -> None:
        """Forget the oldest names and copies, beyond what is kept."""
        self._journal.names.keep_newest("file:", NAMES)
        with suppress(OSError):
            copies = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for copy in copies[:-COPIES]:
                copy.unlink(missing_ok=True)

    def _noted(self, root: str) -> dict[str, int]:
        sizes = self._journal.names.facts(f"file:{self._key(root)}:")
        return {path: int(size) for path, size in sizes.items()}

    def _key(self, root: str) -> str:
        return hashlib.sha256((self.real_root(root) or root).encode()).hexdigest()[:32]

    def _copy(self, root: str, path: str) -> Path:
        name = hashlib.sha256(f"{self._key(root)}:{path}".encode()).hexdigest()[:32]
        return self._folder / f"{name}{PurePosixPath(path).suffix}"

    def _stream(self, root: str) -> str:
        noun, _, owner = artifact("", root, "", 0, 0).stream.partition(":")
        return f"{noun}:{self._journal.names.token_of(owner) or owner}"

    def _records(self, root: str) -> list[Record]:
        records = self._journal.pending(self._stream(root), limit=100_000)
        roots = {root, self.real_root(root)}
        return [
            record
            for record in records
            if record.kind is Kind.ARTIFACT
            and roots & {record.call.body["root"], self.real_root(record.call.body["root"])}
        ]
