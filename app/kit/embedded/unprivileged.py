"""Run a program as an unprivileged user: `python -I -S unprivileged.py UID GID DIRECTORY PROGRAM [ARGUMENT...]`.

PostgreSQL refuses to run as root. Root starts this small program in a fresh process; it gives up every right of root and
becomes PROGRAM. It is a file of its own and runs in a fresh interpreter, because code between fork and exec can deadlock in
a process with threads.

The user may have to pass a directory that only root may enter (/root, a mkdtemp) to reach PROGRAM or DIRECTORY. It gets no
right of root for that, since that right would open every file of the machine. Instead the process gets a view of the file
system of its own (mount_namespaces(7)). There an empty directory stands in the place of the closed one, with nothing in it
but the way to PROGRAM and to DIRECTORY. Where root may not mount, the program ends with a sentence.
"""

import ctypes
import os
import sys

# From linux/prctl.h, linux/sched.h and linux/mount.h; they are part of the kernel's stable interface.
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1 << 1, 1 << 2, 1 << 12, 1 << 14, 1 << 18


def become(uid: int, gid: int, directory: str, command: list[str]) -> None:
    """Turn this process of root into `command`, run by `uid` and `gid`. Does not return.

    Raises OSError when the process may not change its user or the program cannot be run.
    """
    linux = sys.platform == "linux"
    program, directory = os.path.realpath(command[0]), os.path.realpath(directory)
    wanted = (*_homes(program), directory)
    closed = {path: top for path in wanted if (top := _first_closed(path, uid, gid)) is not None}
    if closed and linux:
        _open_ways(closed)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)  # The kernel takes every capability of root away.
    if linux:
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0)))
    if not os.access(command[0], os.X_OK):
        command = [program, *command[1:]]
    os.execv(command[0], command)


def _homes(program: str) -> list[str]:
    """The directories that a program reads: the one above its own, and those that a wheel keeps its libraries in. They
    stand beside the package, as `package.libs` (auditwheel)."""
    home = os.path.dirname(os.path.dirname(program))
    above = home.split("/")
    beside = ["/".join(above[:number]) + ".libs" for number in range(2, len(above) + 1)]
    return [home, *(path for path in beside if os.path.isdir(path))]


def _first_closed(path: str, uid: int, gid: int) -> str | None:
    """The outermost directory above `path` that the user may not pass; None when it may pass all of them."""
    parts = path.split("/")[1:]
    for number in range(len(parts)):
        above = "/" + "/".join(parts[:number])
        facts = os.stat(above)
        shift = 6 if facts.st_uid == uid else 3 if facts.st_gid == gid else 0
        if not facts.st_mode >> shift & 1:
            return above
    return None


def _open_ways(closed: dict[str, str]) -> None:
    """Let this process alone pass: `closed` has the directories to reach, each with the outermost closed one above it.

    Raises PermissionError with a sentence when root may not mount here.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result != 0:
            top = next(iter(closed.values()))
            raise PermissionError(
                f"it has to pass {top}, which only root may enter, and root may not mount here "
                f"({os.strerror(ctypes.get_errno())}). Move the gateway or its data directory to a place that others may "
                f"enter, run `chmod o+x {top}`, or start the gateway as an ordinary user"
            )

    def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        texts = (os.fsencode(text) for text in (source, target, kind))
        check(libc.mount(*texts, ctypes.c_ulong(flags), os.fsencode(options) or None))

    check(libc.unshare(CLONE_NEWNS))
    mount("none", "/", "none", MS_REC | MS_PRIVATE)  # What is mounted from here on, no other process sees.
    found = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in closed}
    mask = os.umask(0)
    for top in sorted(set(closed.values())):
        mount("tmpfs", top, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=1m")
    for path, descriptor in found.items():
        os.makedirs(path, 0o711, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, "none", MS_BIND | MS_REC)
    os.umask(mask)


if __name__ == "__main__":
    try:
        become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[4]} as user {sys.argv[1]}: {error}")
