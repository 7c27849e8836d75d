"""A name for a user without one, for initdb and the single-user mode of PostgreSQL.

Both ask the C library for the name of their user (getpwuid(3)) and end when it has none, as in a container that runs under
any number. They do nothing more with the name: the role of the cluster comes from an option. Only root may add a line to
/etc/passwd. So both get a library of one function before the C library (LD_PRELOAD, ld.so(8)): a getpwuid that has the same
answer for every number. It is put together here, because a container has no compiler.
"""

import os
import platform
import pwd
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_PAGE: Final = 0x10000  # the largest page of these machines
_CODE: Final = 0x200  # where the function is in the file and in memory
_NAMES: Final = 0x210
#: The record lies in a page of its own, because the loader writes the addresses of its texts into it.
_RECORD_IN_FILE: Final = 0x400
_RECORD: Final = _PAGE + _RECORD_IN_FILE

#: For each machine: its number in ELF, the number of its relocation "add where the library was loaded", and the code of
#: "return the address of the record".
_MACHINES: Final = {
    # lea rax, [rip + distance]; ret. The distance counts from the end of the first instruction, which has 7 bytes.
    "x86_64": (62, 8, b"\x48\x8d\x05" + struct.pack("<i", _RECORD - _CODE - 7) + b"\xc3"),
    # adr x0, distance; ret. The distance is a multiple of 4.
    "aarch64": (183, 1027, struct.pack("<II", 0x10000000 | (_RECORD - _CODE) >> 2 << 5, 0xD65F03C0)),
}


def has_name(uid: int) -> bool:
    """Whether the user has a name on this machine."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def may_run(uid: int) -> bool:
    """Whether PostgreSQL's programs run as this user: it has a name, or can be lent a name on this machine."""
    return has_name(uid) or (sys.platform == "linux" and platform.machine() in _MACHINES)


@contextmanager
def named(uid: int, directory: Path) -> Iterator[tuple[int, ...]]:
    """Descriptors for a program of this user to inherit; `environment` tells it what they are for. Empty when it needs none.

    The library is an unnamed file in `directory`, or in memory where the file system of `directory` runs nothing.
    """
    if has_name(uid) or not may_run(uid):
        yield ()
        return
    with _unnamed_file(directory) as file:
        file.write(library(platform.machine()))
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # The program opens it again, as its own user.
        yield (file.fileno(),)


def environment(descriptors: tuple[int, ...]) -> dict[str, str]:
    """The variables for a program that inherits these descriptors from `named`. Its children inherit both."""
    # By number: the loader would split a path at blanks and colons.
    return {"LD_PRELOAD": f"/proc/self/fd/{descriptors[0]}"} if descriptors else {}


def _unnamed_file(directory: Path) -> BinaryIO:
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return os.fdopen(os.memfd_create("name"), "wb")
    return tempfile.TemporaryFile(dir=directory)


def library(name_of_machine: str) -> bytes:
    """The shared library for x86_64 or aarch64, as the bytes of its file (elf(5))."""
    machine, relative, code = _MACHINES[name_of_machine]
    hashes, symbols, strings, relocations = 0x120, 0x138, 0x168, 0x178
    name, empty = _NAMES, _NAMES + len("gateway")

    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    # struct passwd: name, password, uid and gid of nobody, description, home, shell.
    record = struct.pack("<QQIIQQQ", name, empty, 65534, 65534, empty, empty, empty)
    pointers = {0: name, 8: empty, 24: empty, 32: empty, 40: empty}
    names = b"\0getpwuid\0"
    dynamic = [(4, hashes), (6, symbols), (5, strings), (10, len(names)), (11, 24), (7, relocations)]
    dynamic += [(8, 24 * len(pointers)), (9, 24), (0, 0)]
    data = record + b"".join(struct.pack("<QQ", *entry) for entry in dynamic)
    dynamic_at, dynamic_size = len(record), 16 * len(dynamic)

    header += _segment(1, 5, 0, 0, 0x220)  # what is read and run
    header += _segment(1, 6, _RECORD_IN_FILE, _RECORD, len(data))  # what the loader writes
    header += _segment(2, 6, _RECORD_IN_FILE + dynamic_at, _RECORD + dynamic_at, dynamic_size)
    header += _segment(0x6474E551, 6, 0, 0, 0)  # a stack that cannot be run; without this line the loader asks for one
    parts = {
        0: header,
        hashes: struct.pack("<5I", 1, 2, 1, 0, 0),  # one list that holds one symbol
        symbols: bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, _CODE, len(code)),
        strings: names,
        relocations: b"".join(struct.pack("<QQq", _RECORD + at, relative, to) for at, to in pointers.items()),
        _CODE: code,
        _NAMES: b"gateway\0",
        _RECORD_IN_FILE: data,
    }
    file = bytearray(_RECORD_IN_FILE + len(data))
    for at, part in parts.items():
        file[at : at + len(part)] = part
    return bytes(file)


def _segment(kind: int, rights: int, in_file: int, address: int, size: int) -> bytes:
    """A program header. `rights`: 4 to read, 2 to write, 1 to run."""
    return struct.pack("<IIQQQQQQ", kind, rights, in_file, address, address, size, size, _PAGE)
