"""Run a program as an unprivileged user: `python -I -S unprivileged.py UID GID DIRECTORY PROGRAM [ARGUMENT...]`.

PostgreSQL refuses to run as root. Root starts this small program in a fresh process; it gives up every right of root and
becomes PROGRAM. It is a file of its own and runs in a fresh interpreter, because code between fork and exec can deadlock in
a process with threads.

It may keep one right: CAP_DAC_OVERRIDE, when PROGRAM or DIRECTORY lie below a directory that only root may enter (/root,
a mkdtemp). It keeps it as an ambient capability (capabilities(7)), which survives exec without setuid files, setpriv or
a change of the machine's users. Where the kernel does not allow it, PROGRAM runs without it and reports what it lacks.
"""

import ctypes
import os
import sys

CAP_DAC_OVERRIDE = 1
CAP_SETPCAP = 8
# From linux/prctl.h, linux/securebits.h and linux/capability.h; they are part of the kernel's stable interface.
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _prctl(*arguments: int) -> None:
    """Call prctl(2). A kernel that does not know the option changes nothing."""
    padded = (*arguments, 0, 0, 0, 0)[:5]
    ctypes.CDLL(None).prctl(ctypes.c_int(padded[0]), *(ctypes.c_ulong(value) for value in padded[1:]))


def _capset(*capabilities: int) -> None:
    mask = sum(1 << capability for capability in capabilities)
    sets = (_Sets * 2)(_Sets(mask, mask, mask))
    ctypes.CDLL(None).capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets)


def _keep_dac_override() -> None:
    # PostgreSQL's programs first call access(2) on their own file. For a user other than root access(2) ignores
    # capabilities, unless this bit is set (access_override_creds in the kernel's fs/open.c).
    _capset(CAP_DAC_OVERRIDE, CAP_SETPCAP)
    _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    _capset(CAP_DAC_OVERRIDE)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def become(uid: int, gid: int, directory: str, command: list[str]) -> None:
    """Turn this process of root into `command`, run by `uid` and `gid`. Does not return.

    Raises OSError when the process may not change its user or the program cannot be run.
    """
    linux = sys.platform == "linux"
    if linux:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # access(2) checks the real user without capabilities, so it shows whether this user can reach them alone.
    reachable = os.access(command[0], os.R_OK | os.X_OK) and os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    if linux and not reachable:
        _keep_dac_override()
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[4]} as user {sys.argv[1]}: {error}")
