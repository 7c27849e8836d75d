"""MLflow's artifact repository with the spool below it: a file that cannot be uploaded now is kept, and uploaded later."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mlflow.entities import FileInfo
from mlflow.exceptions import RestException
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.tracking import get_tracking_uri
from mlflow.utils.uri import validate_path_is_safe

from mlflow_spool.errors import NoAnswer, Offline, Refused, TransportError
from mlflow_spool.files import place
from mlflow_spool.records import Answer, Call
from mlflow_spool.settings import PREFIX
from mlflow_spool.spool import Spool
from mlflow_spool.store import SpoolOffline, is_logging, is_registering, server_for, spool_for
from mlflow_spool.stores import Stores
from mlflow_spool.transport import plain_repository
from mlflow_spool.uploads import split_root


class SpoolArtifacts(ArtifactRepository):
    """The artifacts of a run whose root is `mlflow-artifacts:...`, or is not known yet (`spool-artifacts:...`)."""

    def __init__(self, spool: Spool, artifact_uri: str, tracking_uri: str, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        # `runs:/<id>/model` makes a repository of its own, below that of the run.
        self._root, self._below = split_root(artifact_uri)
        self._spool = spool

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload or keep one file."""
        verify_artifact_path(artifact_path)
        file = Path(local_file)
        try:
            self._spool.put_file(self._root, self._place(place(artifact_path, file.name)), file)
        except Refused as refused:
            raise _rest(refused) from None

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload or keep every file below a folder."""
        base = Path(local_dir)
        for file in sorted(path for path in base.rglob("*") if path.is_file()):
            below = place(artifact_path, str(PurePosixPath(file.relative_to(base).parent)))
            self.log_artifact(str(file), None if below == "." else below)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The files and folders directly below `path`, on the server and waiting here.

        While MLflow is away: what this machine has logged to the run or model. If that is nothing, and somebody else made
        it, nobody here knows its files.
        """
        shelf, there = self._spool.shelf, []
        kept, away = shelf.waiting(self._root), ""
        try:
            there = self._there(path)
        except Offline as error:
            if not shelf.knows(self._root):
                raise SpoolOffline(str(error)) from None
            kept, away = shelf.logged(self._root), str(error)
        base = PurePosixPath(self._below)
        named = {PurePosixPath(name): size for name, size in kept.items()}
        own = {str(name.relative_to(base)): size for name, size in named.items() if base in name.parents}
        waiting = dict(_directly_below(own, path or ""))
        merged = {info.path: info for info in there} | {
            name: FileInfo(name, size is None, size) for name, size in waiting.items()
        }
        known = merged or (path or "") in own or shelf.made(self._root)
        if away and not (known or is_logging() or is_registering()):
            raise SpoolOffline(away)
        return [merged[name] for name in sorted(merged)]

    def _there(self, path: str | None) -> list[FileInfo]:
        """What the server has. Raises Offline."""
        root = self._real_root()
        if root is None:
            return []
        if not self._is_proxied(root):
            answer = self._outside(lambda stores: stores.files(root, path))
            return [FileInfo(file["path"], file["is_dir"], file["file_size"]) for file in answer.body["files"]]
        try:
            files = self._spool.list_files(root, path or "")
        except Refused as refused:
            raise _rest(refused) from None
        infos = [
            FileInfo(
                str(PurePosixPath(path or "") / validate_path_is_safe(file["path"])),
                bool(file.get("is_dir")),
                int(file["file_size"]) if "file_size" in file else None,
            )
            for file in files
        ]
        # MLflow shows a file as its own content; nothing is below it.
        is_file = len(infos) == 1 and path and infos[0].path == str(PurePosixPath(path) / PurePosixPath(path).name)
        return [] if is_file and not infos[0].is_dir else infos

    def _real_root(self) -> str | None:
        """The real artifact root; None while the server does not know the run or model. That of others is looked up. Raises
        Offline."""
        shelf = self._spool.shelf
        if (root := shelf.real_root(self.artifact_uri)) is not None or shelf.made(self._root):
            return root
        try:
            self._spool.knowledge.find_elsewhere(Call("GET", "", {"root": self._root}), self._spool.found)
        except (TransportError, Refused) as error:
            raise Offline(str(error)) from None
        if (root := shelf.real_root(self.artifact_uri)) is None:
            raise Offline("where its files are is not known here")
        return root

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        where = self._place(remote_file_path)
        try:
            root = self._real_root()
        except Offline:
            root = None  # It may be here.
        if root is not None and not self._is_proxied(root) and self._spool.shelf.find(self._root, where) is None:
            target = Path(local_path)
            try:
                self._outside(lambda stores: stores.fetch(root, remote_file_path, target))
            except Offline as error:
                copy = self._spool.shelf.find(self._root, where, uploaded=True)
                if copy is None:
                    raise SpoolOffline(str(error)) from None
                shutil.copyfile(copy, target)
            return
        try:
            self._spool.fetch_file(self._root, where, Path(local_path))
        except Refused as refused:
            raise _rest(refused) from None
        except Offline as error:
            raise SpoolOffline(str(error)) from None

    def _outside(self, ask: Callable[[Stores], Answer]) -> Answer:
        """What a store answers before which MLflow does not stand. Raises Offline."""
        try:
            answer = ask(server_for(self.tracking_uri).stores)
        except NoAnswer as error:
            raise Offline(str(error)) from None
        if answer.status != 200:
            raise _rest(Refused(answer.status, answer.body))
        return answer

    def _is_proxied(self, root: str) -> bool:
        """Whether MLflow itself stands before the store, at the tracking server."""
        return root.startswith("mlflow-artifacts:") and not urlsplit(root).netloc

    def _place(self, path: str) -> str:
        return str(PurePosixPath(self._below) / path)


def _rest(refused: Refused) -> RestException:
    return RestException({"error_code": "INTERNAL_ERROR", "message": str(refused), **refused.body})


def repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository for the entry points of both schemes. With a tracking URI without the spool it is MLflow's own."""
    where = tracking_uri or get_tracking_uri()
    spool = spool_for(where) if where.startswith(PREFIX) else None
    if spool is not None:
        return SpoolArtifacts(spool, artifact_uri, where, registry_uri)
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
