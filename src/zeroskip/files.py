"""Files are written whole or not at all: to a temporary name first, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from zeroskip.errors import FileError

STREAMS = tuple(Path("/dev") / name for name in ("stdin", "stdout", "stderr"))


def folder(path: str | Path) -> Path:
    """`path` as an existing folder, made where absent."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as fact:
        raise FileError(f"cannot make the folder {path}: {fact.strerror}. Choose another place.") from None
    return path


def write(path: str | Path, content: bytes | str, *, through: bool = True) -> Path:
    """Write `content` to `path` so that a reader sees the old file or the new one, never half of it.

    Text is stored as UTF-8. Raises FileError (disk full, no permission) and then leaves nothing new behind.
    A device or a pipe, such as /dev/stdout, is written to and stays what it is.

    through  wait until it is on the disk itself, so that it survives a power cut and not only a killed process
    """
    path, data = Path(path), content.encode() if isinstance(content, str) else content
    folder(path.parent)
    special = path.exists() and not path.is_file() and not path.is_dir()
    if special or path in STREAMS:  # of which a name may be a link to a plain file
        return _write_into(path, data)
    temporary = None
    try:
        # The same folder, so that the rename stays on one file system and is atomic.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            if through:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as fact:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(fact, OSError):
            raise
        raise FileError(
            f"cannot write {path}: {fact.strerror}. Free some space there, or choose another place."
        ) from None
    return path


def _write_into(device: Path, data: bytes) -> Path:
    try:
        device.write_bytes(data)
    except OSError as fact:
        raise FileError(f"cannot write into {device}: {fact.strerror}. Choose a file.") from None
    return device


def read(path: str | Path) -> bytes:
    """The bytes of `path`; FileError where it is absent or unreadable.

    >>> read(write("note.txt", "done"))
    b'done'
    """
    try:
        return Path(path).read_bytes()
    except OSError as fact:
        raise FileError(f"cannot read {path}: {fact.strerror}. Check the name and its permissions.") from None


def write_json(path: str | Path, value: object) -> Path:
    """Write `value` as indented JSON, whole or not at all."""
    return write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in `path`; FileError where it is absent or no JSON.

    >>> read_json(write_json("summary.json", {"task": "digits"}))
    {'task': 'digits'}
    """
    try:
        return json.loads(read(path))
    except ValueError as fact:
        raise FileError(f"{path} is not JSON: {fact}. Delete it and run the command again.") from None


def _umask() -> int:
    # mkstemp makes private files; what we write should have the rights any other new file would have.
    mask = os.umask(0)
    os.umask(mask)
    return mask
