"""One thread of one process at a time delivers a stream, whatever dies.

Each stream has a byte of a file, which is locked. The kernel frees such a lock when its process ends, and a child of a fork
does not inherit it. The kernel does not tell threads apart, so the threads of one process share a set.
"""

import fcntl
import functools
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_spool.forks import Guard


class _File:
    """One lock file of this process. It is never closed, since that would free all its locks."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.taken: set[int] = set()
        self.changed = threading.Condition()


_files: dict[tuple[int, str], _File] = {}
_guard = Guard()


@functools.cache
def _real(path: Path) -> str:
    """Without links. It is cached, since every call locks, and each folder on the way costs a look at the disk."""
    return str(path.resolve())


def _file(path: Path) -> _File:
    with _guard:
        key = (os.getpid(), _real(path))
        if key not in _files:
            _files[key] = _File(path)
        return _files[key]


def prepare(path: Path) -> None:
    """Make the lock file at `path`. Raises OSError."""
    _file(path)


@contextmanager
def locked(path: Path, stream: str, wait: float = 0.0) -> Iterator[bool]:
    """Hold `stream` if nobody else holds it; yields whether we hold it.

    wait: seconds to wait for another thread of this process. Another process is never waited for.
    """
    file, byte = _file(path), zlib.crc32(stream.encode())
    with file.changed:
        if not file.changed.wait_for(lambda: byte not in file.taken, wait):
            yield False
            return
        file.taken.add(byte)
    try:
        yield _try(file, byte)
    finally:
        with file.changed:
            fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, byte)
            file.taken.discard(byte)
            file.changed.notify_all()


def _try(file: _File, byte: int) -> bool:
    try:
        fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError:
        return False
    return True
