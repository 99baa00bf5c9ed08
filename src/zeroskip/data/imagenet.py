"""ImageNet (ILSVRC 2012) in a folder of the user's own: names are read at once, pictures batch by batch.

A folder is one of

    train/<wnid>/*.JPEG, val/<wnid>/*.JPEG    the challenge's layout
    labels.csv (file, class_index, ...)       a flat sample, with its pictures beside it

Splits: `val/` is the test split, as the papers report it, and a fixed stratified hold-out of `train/` is the
validation split that decisions look at. Without `val/` the test split is held out of `train/` too. Where there
is one set of pictures only (a flat sample, or `val/` alone), it serves as all three, and a warning says so.
"""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroskip import files
from zeroskip.data.splits import Split, hold_out
from zeroskip.errors import DataError

CLASSES = 1000
HELD_OUT = 10_000
SUFFIXES = (".jpeg", ".jpg", ".png")
LAYOUT = "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or pictures with a labels.csv (file, class_index)"


@dataclass(frozen=True)
class Preprocess:
    """From a picture to the input of a network: (3, crop, crop) float32, (pixel - mean) / std.

    mean, std  of pixels 0..255, in `order`
    resize     length of the shorter side before the middle is cut out
    """

    crop: int
    order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: int = 256

    def __post_init__(self) -> None:
        if self.crop > self.resize:
            raise DataError(f"{self.crop} pixels cannot be cut out of {self.resize}. Resize to more.")


CAFFE = Preprocess(227, "BGR", (104.0, 117.0, 123.0))
TORCHVISION = Preprocess(224, "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class Pictures:
    """Picture files below `root`, in step with their classes: targets (count,) int64."""

    root: Path
    names: tuple[str, ...]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: Tensor) -> Pictures:
        """The pictures at these places, in this order."""
        return Pictures(self.root, tuple(self.names[i] for i in index.tolist()), self.targets[index])


def load(folder: str | Path | None = None) -> dict[str, Pictures]:
    """The splits "train", "validation" and "test", as names of files; no picture is opened.

    folder  ImageNet itself or the parent of `imagenet/` or `imagenet_sample/`, by default ZEROSKIP_DATA.
    Raises DataError where there is none, a class is unknown or a folder is empty.
    """
    return _load(find(folder))


def find(folder: str | Path | None = None) -> Path:
    """The folder of ImageNet in `folder` (or ZEROSKIP_DATA), or that folder itself; else DataError."""
    parent = folder or os.environ.get("ZEROSKIP_DATA")
    if not parent:
        raise DataError(f"ImageNet is not part of the package. Name its folder with --data DIR: {LAYOUT}.")
    for path in (Path(parent) / "imagenet", Path(parent) / "imagenet_sample", Path(parent)):
        if any((path / one).exists() for one in ("labels.csv", "train", "val")):
            return path
    raise DataError(f"there is no ImageNet in {parent}, nor in imagenet/ inside it. Expected: {LAYOUT}.")


def batches(
    pictures: Pictures, preprocess: Preprocess, *, size: int = 32, training: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (at most size, 3, crop, crop) and targets, read while the batch before is at work.

    training  in random order, and each picture a random part of itself, mirrored or not; repeatable for a
              given torch seed. Raises DataError naming the file where a picture is damaged.

    >>> Image.new("RGB", (300, 260)).save("black.png")
    >>> pictures = Pictures(Path("."), ("black.png",) * 5, torch.arange(5))
    >>> [tuple(inputs.shape) for inputs, _ in batches(pictures, CAFFE, size=4)]
    [(4, 3, 227, 227), (1, 3, 227, 227)]
    """
    order = torch.randperm(len(pictures)) if training else torch.arange(len(pictures))
    with ThreadPoolExecutor() as pool:
        waiting: tuple[Iterator[Tensor], Tensor] | None = None
        for index in order.split(size):
            chosen = pictures.take(index)
            # Drawn here and not by the threads, so that chance does not depend on which of them is first.
            draws = torch.rand(len(index), 5) if training else repeat(None)
            paths = [chosen.root / name for name in chosen.names]
            begun = pool.map(read_picture, paths, repeat(preprocess), draws), chosen.targets
            if waiting is not None:
                yield torch.stack(list(waiting[0])), waiting[1]
            waiting = begun
        if waiting is not None:
            yield torch.stack(list(waiting[0])), waiting[1]


def read_picture(path: Path, preprocess: Preprocess, draw: Tensor | None = None) -> Tensor:
    """One picture as (3, crop, crop): its middle, or a random part of it that `draw` (5,) in 0..1 decides.

    Raises DataError where the file is absent or no whole picture.

    >>> Image.new("RGB", (300, 260)).save("black.png")
    >>> read_picture(Path("black.png"), CAFFE)[:, 0, 0]  # minus the mean of blue, green and red
    tensor([-104., -117., -123.])
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fact:
        raise DataError(f"{path} is no whole picture: {fact}. Fetch it again, or take it out.") from None
    image = _center_crop(image, preprocess) if draw is None else _random_crop(image, preprocess.crop, draw)
    pixels = np.asarray(image, np.float32)[..., :: 1 if preprocess.order == "RGB" else -1]  # (h, w, 3)
    mean, std = (np.array(three, np.float32) for three in (preprocess.mean, preprocess.std))
    scaled = (pixels - mean) / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def _center_crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    crop, shorter = preprocess.crop, min(image.size)
    if shorter != preprocess.resize:
        width, height = (round(side * preprocess.resize / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = ((side - crop) // 2 for side in image.size)
    return image.crop((left, top, left + crop, top + crop))


def _random_crop(image: Image.Image, crop: int, draw: Tensor) -> Image.Image:
    """8 to 100 % of the area, sides 3:4 to 4:3 (Szegedy et al. 2015, section 6), mirrored half of the time."""
    size, shape, across, down, turn = draw.tolist()
    area, aspect = image.width * image.height * (0.08 + 0.92 * size), (3 / 4) * (16 / 9) ** shape
    width, height = min(image.width, math.sqrt(area * aspect)), min(image.height, math.sqrt(area / aspect))
    left, top = (image.width - width) * across, (image.height - height) * down
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    part = image.resize((crop, crop), Image.Resampling.BILINEAR, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn < 0.5 else part


@cache
def _load(root: Path) -> dict[str, Pictures]:
    if (root / "labels.csv").exists():
        return _same_for_all(_flat(root))
    classes = _classes(root)
    if not (root / "train").exists():
        return _same_for_all(_tree(root / "val", classes))
    train = _tree(root / "train", classes)
    if (root / "val").exists():
        test = _tree(root / "val", classes)
    else:
        train, test = _hold_out(train)
    train, validation = _hold_out(train)
    return {"train": train, "validation": validation, "test": test}


def _same_for_all(pictures: Pictures) -> dict[str, Pictures]:
    warnings.warn(
        f"{pictures.root} holds one set of {len(pictures):,} pictures: training, validation and test are all "
        "these same pictures, so an error after training or pruning says nothing about new ones.",
        stacklevel=2,
    )
    return dict.fromkeys(("train", "validation", "test"), pictures)


def _hold_out(pictures: Pictures) -> tuple[Pictures, Pictures]:
    count = max(len(pictures.targets.unique()), min(HELD_OUT, len(pictures) // 10))
    try:
        parts = hold_out(Split(torch.arange(len(pictures)), pictures.targets), count)
    except ValueError as fact:
        raise DataError(
            f"{count} of the {len(pictures)} pictures in {pictures.root} cannot be held out, classes in "
            f"proportion: {fact} Give every class at least three pictures."
        ) from None
    rest, held = (pictures.take(part.inputs) for part in parts)
    return rest, held


def _flat(root: Path) -> Pictures:
    rows = _table(root / "labels.csv", ("file", "class_index"))
    targets = torch.tensor([_class(row["class_index"], root / "labels.csv") for row in rows])
    return Pictures(root, tuple(row["file"] for row in rows), targets)


def _tree(root: Path, classes: dict[str, int]) -> Pictures:
    """The pictures in the folders <wnid>/ of `root`."""
    names: list[str] = []
    targets: list[int] = []
    for wnid in _folders(root):
        if wnid not in classes:
            raise DataError(f"{root / wnid} is none of the {len(classes)} classes. Rename or remove it.")
        found = sorted(one for one in os.listdir(root / wnid) if one.lower().endswith(SUFFIXES))
        names += [f"{wnid}/{one}" for one in found]
        targets += [classes[wnid]] * len(found)
    if not names:
        raise DataError(f"{root} holds no pictures. Expected: {root.name}/<wnid>/*.JPEG.")
    return Pictures(root, tuple(names), torch.tensor(targets))


def _classes(root: Path) -> dict[str, int]:
    """wnid -> class index, the place among all 1,000 in alphabetical order."""
    table = root / "classes.csv"
    if table.exists():
        rows = _table(table, ("wnid", "class_index"))
        return {row["wnid"]: _class(row["class_index"], table) for row in rows}
    wnids = _folders(root / "train" if (root / "train").exists() else root / "val")
    if len(wnids) != CLASSES:
        raise DataError(
            f"{root} has {len(wnids)} of the {CLASSES} classes, so their class indices are unknown. Put a "
            f"classes.csv (class_index, wnid) beside train/ and val/."
        )
    return {wnid: index for index, wnid in enumerate(wnids)}


def _folders(root: Path) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(root) if one.is_dir())
    except OSError as fact:
        raise DataError(f"{root} cannot be listed: {fact.strerror}. Expected: {LAYOUT}.") from None


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns, all of them filled."""
    try:
        rows = list(csv.DictReader(io.StringIO(files.read(path).decode())))
    except (UnicodeDecodeError, csv.Error) as fact:
        raise DataError(f"{path} is no CSV file: {fact}. Fetch it again.") from None
    if not rows or any(not row.get(column) for row in rows for column in columns):
        raise DataError(f"{path} should have rows with {' and '.join(columns)}. Complete it.")
    return rows


def _class(text: str, path: Path) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) < CLASSES):
        raise DataError(f'{path}: class_index "{text}" is none of 0 to {CLASSES - 1}. Correct it.')
    return int(text)
