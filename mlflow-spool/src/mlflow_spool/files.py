"""Artifacts that wait: copies of files below the spool's folder, one folder for each record."""

import os
import re
import shutil
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from mlflow_spool.errors import SpoolFull
from mlflow_spool.records import TOKEN

#: The one file of a model that names runs and models; it is small text.
NAMES_IDS = "MLmodel"
ORPHAN_AGE = 3600.0  # seconds; a younger folder without a record may still be filled


class Files:
    """The files of one journal, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, key: str, source: Path) -> Path:
        """Copy `source` for the record `key`. On return the copy is durable. Raises SpoolFull when the disk is full.

        A link would not do: the script may write to its file again.
        """
        target = self.folder / key / source.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(source, target)
            for path, mode in ((target, os.O_RDONLY), (target.parent, os.O_RDONLY), (self.folder, os.O_RDONLY)):
                descriptor = os.open(path, mode)
                os.fsync(descriptor)
                os.close(descriptor)
        except OSError as error:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise SpoolFull(f"{source} could not be copied to {target.parent}: {error}") from error
        return target

    def find(self, key: str) -> Path | None:
        """The copy for the record `key`; None when it is gone."""
        folder = self.folder / key
        found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        return found[0] if found else None

    def drop(self, key: str) -> None:
        """Remove the copy for the record `key`, which was delivered."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def orphans(self) -> list[str]:
        """Keys of old folders. Their records may be missing: a process may have died between a copy and its record."""
        if not self.folder.is_dir():
            return []
        limit = time.time() - ORPHAN_AGE
        return [path.name for path in self.folder.iterdir() if path.stat().st_mtime < limit]


def names_local_ids(file: Path) -> bool:
    """Whether `file` has local ids, which are replaced before its upload."""
    return file.name == NAMES_IDS and bool(TOKEN.search(file.read_text(errors="replace")))


def place(artifact_path: str | None, name: str) -> str:
    """The path below the artifact root of a file with this name, logged under `artifact_path`."""
    return str(PurePosixPath(artifact_path or "") / name)


def sent_as(path: str) -> str:
    """The name under which MLflow has a file of this name. Its own client puts names into addresses as they are, so that a
    `#` ends the name, and `%41` is an `A`; and its server refuses a `#`."""
    path = re.split("[#?]", path, maxsplit=1)[0]
    return path if re.search("%(?![0-9a-fA-F]{2})[0-9A-Za-z]{2}", path) else unquote(path)
