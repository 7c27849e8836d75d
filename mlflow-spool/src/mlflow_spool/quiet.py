"""What our thread must not do by itself.

A training thread may hold MLflow's lock of import hooks, Python's import locks or a lock of `logging` for long, while it
waits for us. So our thread imports nothing, calls nothing of MLflow, and leaves what it has to log to the next call of
training code, or to the end of the process.
"""

import logging
import os
import threading
from collections import deque

_log = logging.getLogger("mlflow_spool")
_thread = threading.local()
MOST = 1000  # messages that wait; older ones are dropped
_waiting: "deque[tuple[int, str, tuple[object, ...], BaseException | None]]" = deque(maxlen=MOST)


def begin() -> None:
    """The current thread is ours from now on."""
    _thread.ours = True


def is_ours() -> bool:
    """Whether the current thread is ours."""
    return getattr(_thread, "ours", False)


def note(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a message, at once on a thread of training code."""
    _waiting.append((level, message, args, error))
    if not is_ours():
        speak()


def speak() -> None:
    """Log what waits. Only for threads of training code."""
    while _waiting:
        try:
            level, message, args, error = _waiting.popleft()
        except IndexError:  # Another thread was faster.
            return
        _log.log(level, message, *args, exc_info=error)


os.register_at_fork(after_in_child=_waiting.clear)
