"""What every data set hands out: three fixed splits, and where data sets are found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroskip.errors import DataError


@dataclass(frozen=True)
class Split:
    """Examples in step: inputs (count, *shape) float32, targets (count,) int64.

    >>> len(Split(torch.zeros(10, 6), torch.zeros(10, dtype=torch.long)))
    10
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Splits:
    """`train` to learn from, `validation` for every decision, `test` for the one final figure.

    >>> part = Split(torch.zeros(10, 6), torch.zeros(10, dtype=torch.long))
    >>> Splits(part, part, part).counts
    {'train': 10, 'validation': 10, 'test': 10}
    """

    train: Split
    validation: Split
    test: Split

    @property
    def counts(self) -> dict[str, int]:
        """Examples in each split."""
        return {name: len(getattr(self, name)) for name in ("train", "validation", "test")}


def hold_out(whole: Split, count: int) -> tuple[Split, Split]:
    """Split off `count` examples, classes in proportion, always the same ones. Returns (rest, held out).

    >>> whole = Split(torch.arange(10.0), torch.arange(10) % 2)
    >>> [part.targets.tolist() for part in hold_out(whole, 4)]
    [[0, 1, 0, 1, 0, 1], [0, 1, 0, 1]]
    """
    from sklearn.model_selection import train_test_split  # a second to import

    # sklearn with an integer seed promises the same shuffle on every platform and version.
    classes = whole.targets.numpy()
    rest, held = train_test_split(np.arange(len(whole)), test_size=count, stratify=classes, random_state=0)
    parts = [torch.from_numpy(np.sort(index)) for index in (rest, held)]
    return tuple(Split(whole.inputs[i], whole.targets[i]) for i in parts)  # type: ignore[return-value]


def data_folder(name: str, folder: str | Path | None = None) -> Path:
    """The folder of the data set `name`, inside `folder` or, without one, inside `ZEROSKIP_DATA`.

    Raises DataError where neither is given or the folder is absent.

    >>> _ = Path("data/mnist").mkdir(parents=True)
    >>> data_folder("mnist", "data")
    PosixPath('data/mnist')
    """
    parent = folder or os.environ.get("ZEROSKIP_DATA")
    if not parent:
        fetch = ", or fetch it with --download" if name == "mnist" else ""  # the only one that can be fetched
        raise DataError(
            f'the data set "{name}" is not part of the package. Name the folder that holds "{name}/" '
            f"with --data DIR or ZEROSKIP_DATA{fetch}."
        )
    path = Path(parent) / name
    if not path.is_dir():
        raise DataError(f'there is no folder "{name}" in {parent}. Check --data DIR or ZEROSKIP_DATA.')
    return path
