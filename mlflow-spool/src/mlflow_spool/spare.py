"""Room for delivery: on a full disk new records are refused, but the records that it holds can still leave.

The mark that a record was delivered takes room too. Without a reserve a full disk would stay full.
"""

import os
from pathlib import Path


class Spare:
    """A file whose only purpose is its size: `size` bytes, 0 for no file."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Take the room if it is not taken; whether it is."""
        if not self._size or self._path.exists():
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room back; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
