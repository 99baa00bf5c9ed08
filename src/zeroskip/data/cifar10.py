"""CIFAR-10 (Krizhevsky 2009): 60,000 pictures of 32x32 pixels in ten classes.

`load` has pictures that went through JPEG: networks trained on the original pixels lose about ten points on them, so
they are for training networks of one's own and for comparisons. `lossless` has original pixels, 4,000 of the training
set and 100 of the test set: enough to see whether a published network was read right.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zeroskip.data import npz
from zeroskip.data.splits import Split, Splits, data_folder, hold_out
from zeroskip.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each colour, 0..1: what the published networks were trained with."""

HELD_OUT = 5_000
CLASSES, SIDE = 10, 32


def load(folder: str | Path | None = None) -> Splits:
    """The three splits from JPEG; inputs (count, 3, 32, 32), RGB scaled to 0..1, minus MEAN, over STD.

    folder  parent of `cifar10/`, by default ZEROSKIP_DATA. Decoding takes ten seconds, once in a process. Raises
            DataError where files are absent or damaged.
    """
    return _load(data_folder("cifar10", folder))


def lossless(part: str, folder: str | Path | None = None) -> Split:
    """Original pixels, in the original order: 4,000 pictures of the "train" part, 100 of the "test" part."""
    path = data_folder("cifar10", folder)
    if part == "train":
        return _differences(path / "cifar10_train4k_lossless.npz")
    path /= "cifar10_test100_lossless.npz"
    arrays = npz.read(path, ["x", "y"])
    pixels = arrays["x"]
    npz.check(path, pixels.ndim == 4, f"its pictures are {pixels.shape}")
    return _split(path, pixels.transpose(0, 3, 1, 2), arrays["y"])


def normalized(pixels: Tensor) -> Tensor:
    """uint8 RGB (count, 3, h, w) as the networks see it, float32.

    >>> normalized(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[0, :, 0, 0]
    tensor([-2.1179, -2.0357, -1.8044])
    """
    mean, std = (torch.tensor(one).reshape(3, 1, 1) for one in (MEAN, STD))
    return pixels.float().div_(255).sub_(mean).div_(std)


@cache
def _load(path: Path) -> Splits:
    train, validation = hold_out(_pictures(path / "cifar10_train_jpeg.npz"), HELD_OUT)
    return Splits(train, validation, _differences(path / "cifar10_test_jpeg_decoded.npz"))


def _differences(path: Path) -> Split:
    """Pictures stored as green, red - green and blue - green, each as differences along the row, modulo 256."""
    arrays = npz.read(path, ["x_delta", "y"])
    stored = arrays["x_delta"]
    npz.check(path, stored.ndim == 4 and stored.shape[1] == 3, f"its pictures are {stored.shape}")
    npz.check(path, stored.dtype == np.uint8, f"its pictures are {stored.dtype}, not bytes")
    pixels = np.cumsum(stored, -1, dtype=np.uint8)
    pixels[:, [0, 2]] += pixels[:, 1:2]  # wraps around, as it should
    return _split(path, pixels, arrays["y"])


def _pictures(path: Path) -> Split:
    """Pictures stored as JPEG files, end to end."""
    arrays = npz.read(path, ["jpeg", "offsets", "y"])
    content, offsets, labels = (arrays[name] for name in ("jpeg", "offsets", "y"))
    lists = content.ndim == offsets.ndim == labels.ndim == 1 and offsets.dtype.kind in "iu"
    npz.check(path, lists and content.dtype == np.uint8, "it holds no files and where they end")
    npz.check(path, len(offsets) == len(labels) + 1, f"{len(offsets) - 1} pictures have {len(labels)} labels")
    ends = offsets.astype(np.int64)
    whole = ends[0] == 0 and ends[-1] == len(content) and (np.diff(ends) > 0).all()
    npz.check(path, whole, "its pictures do not end where its bytes do")
    pixels = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for index in range(len(labels)):
        pixels[index] = _decoded(path, index, content[ends[index] : ends[index + 1]].tobytes())
    return _split(path, pixels.transpose(0, 3, 1, 2), labels)


def _decoded(path: Path, index: int, content: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            width, height = picture.size  # known before anything is decoded
            if (width, height) == (SIDE, SIDE):
                return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as fact:
        raise DataError(npz.damaged(path, f"picture {index}: {fact}")) from None
    raise DataError(npz.damaged(path, f"picture {index} has {width}x{height} pixels, not {SIDE}x{SIDE}"))


def _split(path: Path, pixels: np.ndarray, labels: np.ndarray) -> Split:
    npz.check(path, pixels.shape == (labels.size, 3, SIDE, SIDE), f"{pixels.shape} has {labels.size} labels")
    npz.check(path, pixels.dtype == np.uint8, f"its pictures are {pixels.dtype}, not bytes")
    right = labels.ndim == 1 and labels.dtype.kind in "iu" and ((labels >= 0) & (labels < CLASSES)).all()
    npz.check(path, right, f"its labels are no numbers below {CLASSES}")
    inputs = normalized(torch.from_numpy(np.ascontiguousarray(pixels)))
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))
