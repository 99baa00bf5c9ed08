"""Memory for machine code: it runs, and can be read, but is at no time writable and executable at once."""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zeroskip.emit import executable_memory as memory
from zeroskip.emit.executable_memory import HUGE, allocate, executable
from zeroskip.emit.x86 import RAX, RDI, add_register, join, move, ret
from zeroskip.errors import EngineError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="machine code runs on Linux")
DOUBLE = join(move(RAX, RDI), add_register(RAX, RDI), ret()).bytes()

WRITES_CODE = """
import ctypes
from zeroskip.emit.executable_memory import executable
code = executable(bytes(100))
print(ctypes.string_at(code.address, 100) == bytes(100), flush=True)
ctypes.memset(code.address, 0xC3, 1)
print("written", flush=True)
"""


def rights(address: int) -> str:
    """What the system says of the page at an address: "r-xp"."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split("-"))
        if start <= address < end:
            return line.split()[1]
    return ""


def doubled(address: int, x: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(x))


@linux
@pytest.mark.parametrize("size", [len(DOUBLE), 4096, 4097, HUGE // 2, HUGE + 1])
def test_code_of_any_size_runs_and_all_its_pages_are_readable_and_executable_only(size: int) -> None:
    code = executable(DOUBLE.ljust(size, b"\x90"))
    assert {rights(code.address + at) for at in (0, size // 2, size - 1)} == {"r-xp"}
    assert doubled(code.address, 21) == 42
    assert ctypes.string_at(code.address, size) == DOUBLE.ljust(size, b"\x90")


@linux
def test_no_page_of_the_process_is_ever_writable_and_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Watched(mmap.mmap):
        def write(self, data: bytes) -> int:
            count = super().write(data)
            seen.append(rights(ctypes.addressof(ctypes.c_char.from_buffer(self))))
            return count

    monkeypatch.setattr(memory.mmap, "mmap", Watched)
    executable(DOUBLE)
    assert seen == ["rw-p"]


@linux
def test_writing_to_code_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", WRITES_CODE], capture_output=True, text=True)
    assert done.stdout == "True\n"
    assert done.returncode == -signal.SIGSEGV


@linux
def test_code_lives_as_long_as_its_object_and_no_longer() -> None:
    code = executable(DOUBLE.ljust(3 * HUGE, b"\x90"))
    address = code.address
    assert rights(address) == "r-xp"
    del code
    assert rights(address) == ""


@linux
def test_no_code_at_all_is_a_page_as_well() -> None:
    assert rights(executable(b"").address) == "r-xp"


def test_elsewhere_than_on_linux_the_error_names_the_kernel_to_leave_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineError, match="darwin.*baked"):
        executable(DOUBLE)


@linux
def test_a_system_that_forbids_executable_memory_is_an_error_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A PROT_EXEC of 8 stands for a right that no system grants.
    monkeypatch.setattr(memory.mmap, "PROT_EXEC", 1 << 10)
    with pytest.raises(EngineError, match="does not allow"):
        executable(DOUBLE)


@pytest.mark.parametrize("size", [1, 63, 64, 4096, HUGE - 1, HUGE, HUGE + 1, 5 * HUGE])
def test_room_is_so_many_bytes_of_zeros_on_a_cache_line_and_large_ones_on_a_large_page(size: int) -> None:
    memory = allocate(size)
    assert memory.nbytes == size
    assert not memory.any()
    assert memory.ctypes.data % (64 if size < HUGE else HUGE) == 0
    memory[:] = 1  # all of it may be written
