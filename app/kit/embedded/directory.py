"""The files of one server in the data directory: who owns them, who is using them, what is remembered.

* `<name>/`       the server's own files, owned by the user it runs as
* `<name>.log`    what it says; emptied at a start when it has grown over 10 MB
* `<name>.json`   port and password, chosen at the first start, readable by its owner only
* `<name>.lock`   held while a process starts or stops the server, so that one does it at a time
* `<name>.users`  held shared for as long as a process uses the server; who can have it alone is the last one
* `<name>.alive`  held by the server itself and by every child of it, until the last of them is gone

Locks are flock(2): the kernel lets go of them when a process dies, so nothing has to be cleaned up after kill -9, and it
knows better than any pid file, across containers that share the directory too.
"""

import fcntl
import json
import os
import pwd
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from app.kit.embedded import unprivileged
from app.kit.embedded.processes import wait_for
from app.kit.errors import UsageError

NOBODY = 65534
LOCK_SECONDS = 180.0  # longer than the longest start another process may be making
MAX_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server on loopback."""

    port: int
    password: str


class ServerDirectory:
    """One server's part of a data directory. As root everything is kept in the name of the directory's owner."""

    def __init__(self, data_dir: Path, name: str) -> None:
        # One name for one directory: the server's process is known by it.
        self.data_dir = data_dir.expanduser().resolve()
        self.server = self.data_dir / name
        self.log = self.data_dir / f"{name}.log"
        self._access = self.data_dir / f"{name}.json"
        self._lock = self.data_dir / f"{name}.lock"
        self._users = self.data_dir / f"{name}.users"
        self._alive = self.data_dir / f"{name}.alive"
        self._root = os.geteuid() == 0

    def open(self) -> None:
        """Make the data directory; UsageError when the server's files are another user's."""
        # Others may pass below a directory of root's, so that the unprivileged server reaches its own files.
        self.data_dir.mkdir(mode=0o711 if self._root else 0o700, parents=True, exist_ok=True)
        if self.server.is_dir() and not self._root and (owner := self.server.stat().st_uid) != os.geteuid():
            raise UsageError(
                f"{self.server} belongs to the user with id {owner}: run the gateway as that user, or set "
                "GATEWAY_DATA_DIR to a directory of your own."
            )

    # Who runs the server.

    def server_user(self) -> tuple[int, int]:
        """uid and gid the server runs as: ours, and for root those of the directory's owner, or nobody's."""
        if not self._root:
            return os.geteuid(), os.getegid()
        for path in (self.server, self.data_dir):
            if path.is_dir() and (facts := path.stat()).st_uid != 0 and _has_name(facts.st_uid):
                return facts.st_uid, facts.st_gid
        return NOBODY, NOBODY

    def as_server_user(self, command: list[str], directory: Path | None = None) -> list[str]:
        """The command line that runs `command` as the server's user; `directory` is where it must be able to write."""
        if not self._root:
            return command
        uid, gid = (str(number) for number in self.server_user())
        return [sys.executable, "-I", "-S", unprivileged.__file__, uid, gid, str(directory or self.server), *command]

    def make_for_server(self, path: Path) -> None:
        """An empty directory (0700) of the server's user in place of whatever is at `path`."""
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
        self._give(path, self.server_user())

    def claim(self) -> None:
        """Give the server's files to its user where root's hands left them to root, as a restored backup does."""
        user = self.server_user()
        if not self._root or not self.server.is_dir() or self.server.stat().st_uid == user[0]:
            return
        for folder, _, files in os.walk(self.server, topdown=False):
            # Bottom up: the outermost directory changes hands last, so a walk that was cut off begins again.
            for path in (*(Path(folder, file) for file in files), Path(folder)):
                self._give(path, user)

    @staticmethod
    def move(source: Path, target: Path) -> None:
        """Rename, and be sure that a power cut cannot undo it."""
        source.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_for_server(self, path: Path, text: str) -> None:
        """Write a private file (0600) of the server's user, at once or not at all."""
        self._write(path, text, self.server_user())

    # What is remembered.

    def remembered(self) -> Access | None:
        """Port and password of the last start; None before the first."""
        try:
            known = json.loads(self._access.read_text())
            return Access(port=int(known["port"]), password=str(known["password"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def remember(self, access: Access) -> None:
        """Keep port and password for every later start, on the disk before this returns."""
        self._write(self._access, json.dumps(asdict(access)) + "\n", self._owner())

    def open_log(self) -> BinaryIO:
        """The log, opened to be added to; emptied before when it has grown too big."""
        descriptor = self._open(self.log, os.O_WRONLY | os.O_APPEND)
        if os.fstat(descriptor).st_size > MAX_LOG_BYTES:
            os.ftruncate(descriptor, 0)
        log = os.fdopen(descriptor, "ab")
        log.seek(0, os.SEEK_END)
        return log

    def log_since(self, position: int) -> str:
        """What was logged after the first `position` bytes."""
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")

    # Who uses it.

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or stops this server meanwhile; UsageError when another process does for 180 s."""
        lock = self._open(self._lock, os.O_RDWR)
        try:
            if not wait_for(lambda: _try_lock(lock, fcntl.LOCK_EX) or None, LOCK_SECONDS):
                raise UsageError(
                    f"Another process has been starting or stopping the server in {self.server} for "
                    f"{LOCK_SECONDS:.0f} s: end it, or set GATEWAY_DATA_DIR to another directory."
                )
            yield
        finally:
            os.close(lock)

    def take_share(self) -> int:
        """A lock that tells other processes that this one uses the server; it lasts until `os.close`. Inside `alone`."""
        share = self._open(self._users, os.O_RDWR)
        _try_lock(share, fcntl.LOCK_SH)
        return share

    @staticmethod
    def is_last(share: int) -> bool:
        """Whether nobody else holds a share. Ask inside `alone`, and only to let go: a no may cost the share itself."""
        return _try_lock(share, fcntl.LOCK_EX)

    @contextmanager
    def life(self) -> Iterator[int]:
        """A lock to be inherited by the server that is started meanwhile. Inside `alone`."""
        descriptor = self._open(self._alive, os.O_RDWR)
        try:
            _try_lock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def is_alive(self) -> bool:
        """Whether a server of this directory or a child of one is left, in whatever state. Inside `alone`."""
        descriptor = self._open(self._alive, os.O_RDWR)
        try:
            return not _try_lock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    # Files, with an owner.

    def _owner(self) -> tuple[int, int]:
        facts = self.data_dir.stat()
        return facts.st_uid, facts.st_gid

    def _give(self, path: Path | int, user: tuple[int, int]) -> None:
        if not self._root:
            return
        if isinstance(path, int):
            os.fchown(path, *user)
        else:
            os.chown(path, *user, follow_symlinks=False)

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._give(descriptor, self._owner())
        return descriptor

    def _write(self, path: Path, text: str, user: tuple[int, int]) -> None:
        fresh = path.with_name(path.name + ".new")
        with suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            self._give(descriptor, user)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        self.move(fresh, path)


def _has_name(uid: int) -> bool:
    """Whether the machine knows the user; initdb refuses to run as one without a name."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
