"""The library that lends PostgreSQL's programs a name for their user."""

import ctypes
import platform
import struct
from pathlib import Path

import pytest

from app.kit.embedded.nameless import library


def test_any_number_has_the_name(tmp_path: Path) -> None:
    file = tmp_path / "name.so"
    file.write_bytes(library(platform.machine()))
    ask = ctypes.CDLL(str(file)).getpwuid
    ask.restype = ctypes.POINTER(ctypes.c_char_p * 2)
    assert [ask(number).contents[0] for number in (0, 54321)] == [b"gateway"] * 2


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_code_returns_the_address_of_the_record(machine: str) -> None:
    file = library(machine)
    # The second program header: where the record is in memory. The symbol: where the code is, in the file too.
    record, code = struct.unpack_from("<Q", file, 64 + 56 + 16)[0], struct.unpack_from("<Q", file, 0x138 + 24 + 8)[0]
    if machine == "x86_64":
        assert file[code : code + 3] == b"\x48\x8d\x05"
        assert file[code + 7] == 0xC3
        points_to = code + 7 + struct.unpack_from("<i", file, code + 3)[0]
    else:
        word, end = struct.unpack_from("<II", file, code)
        assert (word & 0x9F00001F, end) == (0x10000000, 0xD65F03C0)  # adr x0, ...; ret
        points_to = code + ((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3)
    assert points_to == record
