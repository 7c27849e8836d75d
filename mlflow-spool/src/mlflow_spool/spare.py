"""Room that is kept for delivery: on a full disk new records are refused, but those that are kept can still leave.

To mark a record as delivered takes room too, so that without a reserve a full disk would stay full.
"""

import os
from pathlib import Path


class Spare:
    """A file that only takes room: `size` bytes, 0 for none."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Whether the room is there, or could be taken now."""
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
        """Give the room back; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
