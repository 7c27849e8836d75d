"""The files of one server in the data directory: who owns them, who uses them, what is remembered.

* `<name>/`       the server's own files, owned by the user it runs as
* `<name>.log`    its output; emptied at a start when it has grown over 10 MB
* `<name>.json`   port and password, chosen at the first start, readable by its owner only
* `<name>.lock`   locked while a process starts or stops the server, so that one does it at a time
* `<name>.users`  each process that uses the server holds a shared lock; only the last one can get an exclusive lock
* `<name>.alive`  locked by the server and by every child of it, until the last of them is gone

Locks are flock(2). The kernel frees them when a process dies, so there is nothing to clean up after kill -9. They are surer
than a pid file, and they work across containers that share the directory.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from app.kit.embedded import nameless, unprivileged
from app.kit.embedded.processes import wait_for
from app.kit.errors import UsageError

NOBODY = 65534
#: Numbers that no user gets: systemd leaves them free (systemd.io/UIDS-GIDS), and containers have them too.
OWN_USERS = range(60_578, 61_184)
LOCK_SECONDS = 180.0  # longer than the longest start of another process
MAX_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server on loopback."""

    port: int
    password: str


class ServerDirectory:
    """One server's part of a data directory. For root, the files belong to the owner of the directory."""

    def __init__(self, data_dir: Path, name: str) -> None:
        # A directory must have one name, because it marks the server's process.
        self.data_dir = data_dir.expanduser().resolve()
        self.server = self.data_dir / name
        self.log = self.data_dir / f"{name}.log"
        self._access = self.data_dir / f"{name}.json"
        self._lock = self.data_dir / f"{name}.lock"
        self._users = self.data_dir / f"{name}.users"
        self._alive = self.data_dir / f"{name}.alive"
        self._root = os.geteuid() == 0

    def open(self) -> None:
        """Make the data directory. Raises UsageError when the server's files belong to another user."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.server.is_dir() and not self._root and (owner := self.server.stat().st_uid) != os.geteuid():
            raise UsageError(
                f"{self.server} belongs to the user with id {owner}: run the gateway as that user, or set "
                "GATEWAY_DATA_DIR to a directory of your own."
            )
        if self._root:
            self._let_server_pass()
        with suppress(FileNotFoundError, PermissionError):  # fsGroup lets a group read it; not ours to change: leave it
            self._access.chmod(0o600)

    def _let_server_pass(self) -> None:
        """Let the server's user, and no other, pass through a directory of root to its own files."""
        if self.data_dir.stat().st_uid == NOBODY:
            # A gateway that ran as nobody left it. What is nobody's is everybody's, so it is root's from here on.
            for path in (*self.data_dir.iterdir(), self.data_dir):
                if path.lstat().st_uid == NOBODY and (path.is_file() or path == self.data_dir):
                    os.chown(path, 0, 0, follow_symlinks=False)
        facts = self.data_dir.stat()
        # 0711: as versions until 2026-11 made it. 0710: as this made it, perhaps at another place.
        ours = stat.S_IMODE(facts.st_mode) in (0o700, 0o710, 0o711) and facts.st_gid in (0, os.getegid(), *OWN_USERS)
        if facts.st_uid == 0 and ours:
            os.chown(self.data_dir, -1, self.server_user()[1])
            self.data_dir.chmod(0o710)

    # Who runs the server.

    def server_user(self) -> tuple[int, int]:
        """uid and gid that the server runs as: ours. For root: those of the directory's owner, or, where that is root, of a
        user of its own. Other programs run as nobody, and could read the files of a server that did.

        Raises UsageError when there is no such user.
        """
        if not self._root:
            return os.geteuid(), os.getegid()
        for path in (self.server, self.data_dir):
            if path.is_dir() and (facts := path.stat()).st_uid not in (0, NOBODY) and nameless.may_run(facts.st_uid):
                return facts.st_uid, facts.st_gid
        own = self._own_user()
        if not nameless.may_run(own):
            raise UsageError(
                f"The servers in {self.data_dir} need a user of their own, neither root nor nobody: give the directory to "
                "one with chown, or start the gateway as an ordinary user."
            )
        return own, own

    def _own_user(self) -> int:
        """A number that no user of this machine has, the same for this directory each time."""
        first = int.from_bytes(hashlib.sha256(os.fsencode(self.data_dir)).digest()[:4], "big")
        numbers = [OWN_USERS[(first + step) % len(OWN_USERS)] for step in range(len(OWN_USERS))]
        return next((number for number in numbers if not nameless.has_name(number)), numbers[0])

    @contextmanager
    def name_for_server(self) -> Iterator[tuple[int, ...]]:
        """What a program of the server must inherit to find a name for the server's user: `nameless.named`."""
        with nameless.named(self.server_user()[0], self.data_dir) as descriptors:
            yield descriptors

    def as_server_user(self, command: list[str], directory: Path | None = None) -> list[str]:
        """The command line that runs `command` as the server's user, who must be able to write to `directory`."""
        if not self._root:
            return command
        uid, gid = (str(number) for number in self.server_user())
        return [sys.executable, "-I", "-S", unprivileged.__file__, uid, gid, str(directory or self.server), *command]

    def make_for_server(self, path: Path) -> None:
        """Make an empty directory (0700) of the server's user at `path`. Deletes what was there."""
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
        self._give(path, self.server_user())

    def keep_private(self) -> None:
        """Take the rights of others away. Kubernetes gives them to a group (fsGroup); PostgreSQL does not accept them."""
        mode = self.server.stat().st_mode
        if mode & 0o077:
            self.server.chmod(stat.S_IMODE(mode) & ~0o077)

    def claim(self) -> None:
        """Give the server's files to its user when they belong to root, as after root has restored a backup."""
        user = self.server_user()
        if not self._root or not self.server.is_dir() or self.server.stat().st_uid == user[0]:
            return
        for folder, _, files in os.walk(self.server, topdown=False):
            # Bottom up: the outermost directory changes its owner last, so a walk that was cut off begins again.
            for path in (*(Path(folder, file) for file in files), Path(folder)):
                self._give(path, user)

    @staticmethod
    def move(source: Path, target: Path) -> None:
        """Rename, and sync the directory so that a power cut cannot undo it."""
        source.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_for_server(self, path: Path, text: str) -> None:
        """Write a private file (0600) of the server's user, whole or not at all."""
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
        """Keep port and password for every later start. They are on the disk when this returns."""
        self._write(self._access, json.dumps(asdict(access)) + "\n", self._owner())

    def open_log(self) -> BinaryIO:
        """The log, opened for appending. It is emptied first when it has grown too large."""
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
        """While this is open, no other process starts or stops this server. Raises UsageError when one does so for 180 s."""
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
        """A lock that shows other processes that this one uses the server, until `os.close`. Call it inside `alone`."""
        share = self._open(self._users, os.O_RDWR)
        _try_lock(share, fcntl.LOCK_SH)
        return share

    @staticmethod
    def is_last(share: int) -> bool:
        """Whether no other process holds a share. Call it inside `alone`, only to give the share up: it may lose it."""
        return _try_lock(share, fcntl.LOCK_EX)

    @contextmanager
    def life(self) -> Iterator[int]:
        """A lock for a server to inherit that is started while this is open. Call it inside `alone`."""
        descriptor = self._open(self._alive, os.O_RDWR)
        try:
            _try_lock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def is_alive(self) -> bool:
        """Whether a server of this directory, or a child of one, is left in any state. Call it inside `alone`."""
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


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
