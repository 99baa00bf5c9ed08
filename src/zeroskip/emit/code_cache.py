"""Compiled code on disk, so that a network compiled once more spends almost nothing on it.

The folder is $ZEROSKIP_CACHE, else $XDG_CACHE_HOME/zeroskip, else ~/.cache/zeroskip; an empty ZEROSKIP_CACHE keeps
nothing. It belongs to one user, since what it holds is run: a folder that others own, read or write is left alone.
An entry is named by the SHA-256 of all that it was made from, and starts with the SHA-256 of its own content.
Nothing here is needed: whatever is absent, damaged or impossible is made anew without a word.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

import zeroskip
from zeroskip import files
from zeroskip.concepts import Machine
from zeroskip.errors import FileError

MOST_BYTES = 512 << 20
MOST_ENTRIES = 4096  # going through the folder then takes some milliseconds
DIGEST = hashlib.sha256().digest_size
ENTRY = re.compile(r"\.?[0-9a-f]{64}\.code.*")  # also those that are being written


def cached(
    makers: Sequence[str], sources: Sequence[bytes | memoryview], machine: Machine, make: Callable[[], bytes]
) -> bytes:
    """What `make` returns, from the folder where it is there already.

    makers   the source files with what `make` does, whose text is part of the entry's name
    sources  everything else that it depends on, besides the machine

    >>> os.environ["ZEROSKIP_CACHE"] = "kept"
    >>> cached([__file__], [b"pattern"], machine, lambda: b"code")
    b'code'
    >>> cached([__file__], [b"pattern"], machine, lambda: b"not asked for")
    b'code'
    """
    folder = _private()
    if folder is None:
        return make()
    path = folder / _name([*map(_text, makers), *sources], machine)
    content = _read(path)
    if content is None:
        content = make()
        _keep(path, content)
    return content


def tidy(folder: Path, *, most_bytes: int = MOST_BYTES, most_entries: int = MOST_ENTRIES) -> None:
    """Delete the entries that were not used for longest, until no more are left than may be."""
    # The folder may have been named by hand and hold other files.
    with os.scandir(folder) as there:
        entries = [(entry.stat(), entry.path) for entry in there if ENTRY.fullmatch(entry.name)]
    size, count = sum(about.st_size for about, _ in entries), len(entries)
    if size <= most_bytes and count <= most_entries:
        return
    for about, path in sorted(entries, key=lambda entry: entry[0].st_mtime_ns):
        if size <= most_bytes and count <= most_entries:
            return
        Path(path).unlink(missing_ok=True)
        size, count = size - about.st_size, count - 1


def _private() -> Path | None:
    """The folder, made where absent; None where there is to be none or it is not this user's alone."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = os.environ.get("ZEROSKIP_CACHE", f"{home}/zeroskip")
    if not named or not hasattr(os, "getuid"):
        return None
    path = Path(os.path.expanduser(named))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        about = path.lstat()  # a link may lead to a folder of others
    except OSError:
        return None
    is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return path if is_own and not about.st_mode & 0o077 else None


def _name(sources: Sequence[bytes | memoryview], machine: Machine) -> str:
    made_by = zeroskip.__version__, llvmlite.__version__, llvm.llvm_version_info, llvm.get_process_triple()
    made_for = llvm.get_host_cpu_name(), machine.vector_bytes, sorted(machine.features)
    sizes = [memoryview(source).nbytes for source in sources]
    digest = hashlib.sha256(repr((made_by, made_for, sizes)).encode())
    for source in sources:
        digest.update(source)
    return f"{digest.hexdigest()}.code"


@cache
def _text(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # a program packed without sources; the version then has to do
        return b""


def _read(path: Path) -> bytes | None:
    try:
        whole = path.read_bytes()
        os.utime(path)  # it was used just now
    except OSError:
        return None
    content = whole[DIGEST:]
    return content if hashlib.sha256(content).digest() == whole[:DIGEST] else None


def _keep(path: Path, content: bytes) -> None:
    try:
        files.write(path, hashlib.sha256(content).digest() + content, through=False)
        tidy(path.parent)
    except (FileError, OSError):
        pass  # no room, or another process tidied up at the same time
