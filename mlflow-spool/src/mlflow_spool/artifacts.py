"""MLflow's artifact repository with the spool below it: a file that cannot be uploaded now is kept, and uploaded later."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import FileInfo
from mlflow.exceptions import RestException
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.tracking import get_tracking_uri

from mlflow_spool.errors import Refused
from mlflow_spool.files import place
from mlflow_spool.settings import PREFIX
from mlflow_spool.store import SpoolOffline, spool_for
from mlflow_spool.transport import plain_repository


class SpoolArtifacts(ArtifactRepository):
    """The artifacts of a run whose root is `mlflow-artifacts:...`, or is not known yet (`spool-artifacts:...`)."""

    def __init__(self, artifact_uri: str, tracking_uri: str, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        # `runs:/<id>/model` makes a repository of its own, below that of the run.
        root, slash, below = artifact_uri.partition("/artifacts")
        self._root, self._below = root + slash, below.strip("/")
        self._spool = spool_for(tracking_uri)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload or keep one file."""
        verify_artifact_path(artifact_path)
        file = Path(local_file)
        try:
            self._spool.put_file(self._root, self._place(place(artifact_path, file.name)), file)
        except Refused as refused:
            raise RestException({"error_code": "INTERNAL_ERROR", "message": str(refused), **refused.body}) from None

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload or keep every file below a folder."""
        base = Path(local_dir)
        for file in sorted(path for path in base.rglob("*") if path.is_file()):
            below = place(artifact_path, str(PurePosixPath(file.relative_to(base).parent)))
            self.log_artifact(str(file), None if below == "." else below)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The files and folders directly below `path`, on the server and waiting here."""
        kept = {PurePosixPath(name): size for name, size in self._spool.waiting_files(self._root).items()}
        base = PurePosixPath(self._below)
        own = {str(name.relative_to(base)): size for name, size in kept.items() if base in name.parents}
        waiting = dict(_directly_below(own, path or ""))
        real = self._real()
        there = real.list_artifacts(path) if real is not None else []
        merged = {info.path: info for info in there} | {
            name: FileInfo(name, size is None, size) for name, size in waiting.items()
        }
        return [merged[name] for name in sorted(merged)]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        kept = self._spool.waiting_file(self._root, self._place(remote_file_path))
        if kept is not None:
            Path(local_path).write_bytes(kept.read_bytes())
            return
        real = self._real()
        if real is None:
            raise SpoolOffline(f"{remote_file_path} of {self.artifact_uri} is not on this machine")
        real._download_file(remote_file_path, local_path)

    def _place(self, path: str) -> str:
        return str(PurePosixPath(self._below) / path)

    def _real(self) -> Any:
        """MLflow's own repository; None while its root is not known."""
        root = self._spool.real_root(self.artifact_uri)
        if root is None:
            return None
        return plain_repository(root, self.tracking_uri, self.registry_uri)


def repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository for the entry points of both schemes. With a tracking URI without the spool it is MLflow's own."""
    where = tracking_uri or get_tracking_uri()
    if where.startswith(PREFIX):
        return SpoolArtifacts(artifact_uri, where, registry_uri)
    return plain_repository(artifact_uri, where, registry_uri)


def _directly_below(files: dict[str, int], path: str) -> Iterator[tuple[str, int | None]]:
    """The names directly below `path` with their sizes in bytes; None for a folder."""
    base = PurePosixPath(path)
    for name, size in files.items():
        whole = PurePosixPath(name)
        if base not in whole.parents:
            continue
        first = whole.relative_to(base).parts[0]
        is_file = len(whole.relative_to(base).parts) == 1
        yield str(base / first), size if is_file else None
