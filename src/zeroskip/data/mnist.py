"""MNIST (LeCun, Cortes, Burges): 70,000 images of 28x28 pixels, read from the four idx `.gz` files.

Splits: 50,000 train and 10,000 validation (a fixed stratified hold-out of the 60,000), 10,000 test.
"""

from __future__ import annotations

import gzip
import struct
from functools import cache
from pathlib import Path

import numpy as np
import torch

from zeroskip import files
from zeroskip.data.splits import Split, Splits, data_folder, hold_out
from zeroskip.errors import DataError

HELD_OUT = 10_000
FILES = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


def load(folder: str | Path | None = None) -> Splits:
    """The three splits; inputs (count, 1, 28, 28) scaled to 0..1, so that the border is exactly 0.

    folder  parent of `mnist/`, by default ZEROSKIP_DATA. Raises DataError where files are absent or damaged.
    """
    return _load(data_folder("mnist", folder))


@cache
def _load(path: Path) -> Splits:
    train, validation = hold_out(_read_split(path, "train"), HELD_OUT)
    return Splits(train, validation, _read_split(path, "t10k"))


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of one gzipped idx file; DataError where it is absent, cut short or no idx file.

    >>> _ = Path("labels.gz").write_bytes(_idx(np.array([7, 2, 1], np.uint8)))
    >>> read_idx(Path("labels.gz"))
    array([7, 2, 1], dtype=uint8)
    """
    try:
        content = gzip.decompress(files.read(path))
        zero, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
        if (zero, kind) != (0, 8):  # 8 is the idx code of uint8
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as fact:
        raise DataError(f"{path} is damaged: {fact}. Fetch it again.") from None


def is_complete(folder: str | Path) -> bool:
    """Whether `folder`/mnist holds all four files."""
    return all((Path(folder) / "mnist" / name).is_file() for name in FILES)


def download(folder: str | Path) -> Path:
    """Fetch MNIST from OpenML through scikit-learn and store it as the four idx files in `folder`/mnist.

    Needs a network; takes about a minute. Raises DataError where the fetch fails.
    """
    from sklearn.datasets import fetch_openml

    arrays = {"as_frame": False, "return_X_y": True, "parser": "liac-arff"}  # the parser that needs no pandas
    try:
        pixels, labels = fetch_openml("mnist_784", version=1, **arrays)
    except OSError as fact:
        raise DataError(f"MNIST was not fetched: {fact}. Check the network, or give --data DIR.") from None
    path = Path(folder) / "mnist"
    images, classes = pixels.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    for name, rows in (("train", slice(0, 60_000)), ("t10k", slice(60_000, None))):
        files.write(path / f"{name}-images-idx3-ubyte.gz", _idx(images[rows]))
        files.write(path / f"{name}-labels-idx1-ubyte.gz", _idx(classes[rows]))
    return path


def _read_split(path: Path, name: str) -> Split:
    images = read_idx(path / f"{name}-images-idx3-ubyte.gz")  # (count, 28, 28)
    labels = read_idx(path / f"{name}-labels-idx1-ubyte.gz")  # (count,)
    if images.shape != (len(labels), 28, 28):
        raise DataError(f"{path}: {name} has images {images.shape}, {len(labels)} labels. Fetch them again.")
    inputs = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))


def _idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)
