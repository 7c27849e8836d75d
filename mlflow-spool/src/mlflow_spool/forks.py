"""A fork copies the locks of other threads as they are, and a connection of SQLite must not cross one.

Before a fork everything here stops for a moment: nobody holds one of our locks then, and the journals are closed. In the
child every lock is new.
"""

import os
import threading
import time
import weakref
from typing import Protocol

#: Seconds, at most, that a fork waits for all our locks. A disk that hangs must not stop training code.
PATIENCE = 2.0


class Forkable(Protocol):
    """Something that a fork could leave in a state of no use."""

    def before_fork(self, until: float) -> None:
        """Prepare for a fork. until: monotonic seconds, the end of every wait."""
        ...

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after a fork."""
        ...


_known: "list[weakref.ref[Forkable]]" = []


def register(thing: Forkable) -> None:
    """Prepare `thing` for every fork from now on, as long as somebody uses it, and after what was registered before."""
    _known.append(weakref.ref(thing, _known.remove))


class Guard:
    """A lock that every fork leaves free in the child. The thread that holds it may take it again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking: set[int] = set()  # threads that hold it for a fork
        register(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_held_for_fork(self) -> bool:
        """Whether the current thread, which is about to fork, holds it."""
        return threading.get_ident() in self._forking

    def before_fork(self, until: float) -> None:
        if self._lock.acquire(timeout=max(until - time.monotonic(), 0.0)):
            self._forking.add(threading.get_ident())

    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._lock = threading.RLock()
            self._forking.clear()
        elif self.is_held_for_fork:
            self._forking.discard(threading.get_ident())
            self._lock.release()


def _all() -> "list[Forkable]":
    return [thing for thing in (reference() for reference in tuple(_known)) if thing is not None]


def _before() -> None:
    until = time.monotonic() + PATIENCE
    for thing in _all():
        thing.before_fork(until)


def _after(*, in_child: bool) -> None:
    for thing in _all():
        thing.after_fork(in_child=in_child)


os.register_at_fork(
    before=_before, after_in_parent=lambda: _after(in_child=False), after_in_child=lambda: _after(in_child=True)
)
