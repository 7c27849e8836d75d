"""What children of this process leave: they end without exit handlers, so that their parent, or they, have to see to it.

A child of a fork runs no exit handler of its own. If its parent has loaded the plugin, the parent delivers at its end what
its children left. So does a child that ends in the normal way, as a daemon, for its own children: its parent may be gone. A
child of `multiprocessing` whose parent has not loaded the plugin does it at its own end.
"""

import multiprocessing
import multiprocessing.process
import multiprocessing.util
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow_spool.journal import Journal

#: The same in a process and the children that it forks.
_name = uuid.uuid4().hex
_born_in = os.getpid()
_forked = False
KEPT = 100  # marks in a journal, the newest
MARK = "family:"


def _note_fork() -> None:
    global _forked
    _forked = True


def _forget_forks() -> None:
    global _forked
    _forked = False


os.register_at_fork(after_in_parent=_note_fork, after_in_child=_forget_forks)


def mark(journal: Journal) -> None:
    """Note that a child of a process with the plugin uses the journal, so that its parent finds it."""
    if os.getpid() == _born_in or journal.names.fact(MARK + _name) is not None:
        return
    journal.names.remember(MARK + _name, "")
    journal.names.keep_newest(MARK, KEPT)


def left(folder: Path, max_bytes: int) -> Iterator[Journal]:
    """The journals that children of this process have used, and others of its family."""
    if not _forked:
        return
    for file in sorted(folder.glob("*/journal.db")):
        journal = Journal(file.parent, max_bytes)
        if journal.names.fact(MARK + _name) is not None:
            yield journal


def at_end_of_child(finish: Callable[[], None]) -> None:
    """Run `finish` at the end of this process if it is a child of `multiprocessing` that ends without exit handlers, and is
    the first of its family with the plugin."""

    def register(_: object = None) -> None:
        # A child of `spawn` runs exit handlers. What a fork of this process leaves, this process delivers. To ask for the
        # start method without `allow_none` would choose one in place of the script.
        if os.getpid() == _born_in and multiprocessing.get_start_method(allow_none=True) != "spawn":
            multiprocessing.util.Finalize(None, finish, exitpriority=-1)

    if multiprocessing.process.parent_process() is not None:
        register()
    else:
        # A child of `forkserver` imports its main module before it is a child, and forgets then what runs at its end.
        multiprocessing.util.register_after_fork(mark, register)
