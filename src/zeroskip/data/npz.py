"""Arrays out of an `.npz` file, checked: the form in which the data sets below are stored."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zeroskip.errors import DataError


def read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays called `names`; DataError where the file is absent or damaged, or lacks one of them.

    Objects are refused: numpy stores them as pickles, and a pickle can run code when it is read.

    >>> np.savez("a.npz", x=np.arange(6), y=np.arange(3))
    >>> read(Path("a.npz"), ["y"])
    {'y': array([0, 1, 2])}
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
                    stream.read()  # to the end, where the checksum is looked at
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check --data DIR or ZEROSKIP_DATA.") from None
    except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as fact:
        raise DataError(damaged(path, fact)) from None
    return arrays


def check(path: Path, right: bool | np.bool_, fact: str) -> None:
    """DataError with `fact` unless it is `right`."""
    if not right:
        raise DataError(damaged(path, fact))


def damaged(path: Path, fact: object) -> str:
    """What is said of a file that does not hold what it should."""
    return f"{path} is damaged: {fact}. Fetch it again."
