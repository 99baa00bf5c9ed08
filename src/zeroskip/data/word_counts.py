"""Reuters-52, WebKB and 20 Newsgroups as word counts: the three text sets of Minerva (Reagen et al. 2016).

The vocabulary of each is the words found in most training documents, as many as Minerva's network has inputs; which
words the paper chose is not published. A word's input is log(1 + count) x the square root of its `gain_ratio`, scaled
so that all documents are of one length: supervised term weighting (Debole and Sebastiani 2003), from the training
documents alone. Words that tell nothing of the class, "the" and "and", are then small. An absent word is exactly 0.

Splits: every fifth training document is validation, the test documents are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from zeroskip.data import npz
from zeroskip.data.sparse_rows import SparseRows
from zeroskip.data.splits import Split, Splits, data_folder

EVERY = 5
LENGTH = 10.0
"""Of every document: weights that start as PyTorch's do then give first activations of the order of 1."""
KEYS = ("indptr", "indices", "data", "labels")


def reuters(folder: str | Path | None = None) -> Splits:
    """Reuters-52: 2,837 words, 52 topics. `folder` is the parent of `text/`, by default ZEROSKIP_DATA.

    Raises DataError where the file is absent or damaged; so do the two below.
    """
    return _load(data_folder("text", folder) / "reuters52_bow.npz")


def webkb(folder: str | Path | None = None) -> Splits:
    """WebKB: 3,418 word stems, 4 kinds of pages."""
    return _load(data_folder("text", folder) / "webkb_bow.npz")


def newsgroups(folder: str | Path | None = None) -> Splits:
    """20 Newsgroups, split by date: 21,979 words, 20 groups. Dense it would be 1.7 GB."""
    return _load(data_folder("text", folder) / "newsgroups20_bow.npz")


@dataclass(frozen=True)
class Documents:
    """Word counts of documents, and their classes."""

    counts: SparseRows
    labels: Tensor

    def take(self, which: Tensor) -> Documents:
        """Those documents."""
        return Documents(self.counts.take(which), self.labels[which])


def read(path: Path) -> dict[str, Documents]:
    """ "train" and "test" of a file of word counts; DataError where its lengths or indices do not fit together."""
    names = [f"{part}_{key}" for part in ("train", "test") for key in KEYS]
    arrays = npz.read(path, [*names, "n_features", "classes"])
    npz.check(path, arrays["n_features"].shape == (), "n_features is no number")
    sizes = int(arrays["n_features"]), arrays["classes"].size
    return {part: _documents(path, part, arrays, *sizes) for part in ("train", "test")}


def gain_ratio(documents: Documents, classes: int) -> Tensor:
    """How well a word tells some class from all others: the largest over the classes of the information that its
    presence gives on that class, as a share of the class's entropy, 0..1 (Debole and Sebastiani 2003). (width,)

    >>> both = SparseRows(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), torch.ones(3), 2)
    >>> gain_ratio(Documents(both, torch.tensor([0, 1])), 2)  # the first word tells the class, the second nothing
    tensor([1., 0.])
    """
    counts, labels = documents.counts, documents.labels
    cells = counts.columns * classes + labels[counts.rows]  # a word is at most once in a row
    both = torch.bincount(cells, minlength=counts.width * classes).reshape(-1, classes).double() / len(labels)
    word = both.sum(1, keepdim=True)
    of_class = torch.bincount(labels, minlength=classes).double() / len(labels)
    gain = torch.zeros_like(both)  # (width, classes)
    for part, one, other in (
        (both, word, of_class),
        (word - both, word, 1 - of_class),
        (of_class - both, 1 - word, of_class),
        (1 - word - of_class + both, 1 - word, 1 - of_class),
    ):
        part = part.clamp(min=0.0)  # a difference of sums may be just below
        gain += torch.xlogy(part, part / (one * other)).nan_to_num(0.0)  # 0 log 0 is 0
    entropy = -torch.xlogy(of_class, of_class) - torch.xlogy(1 - of_class, 1 - of_class)
    return (gain / entropy).nan_to_num(0.0).amax(1).clamp(0.0, 1.0).float()


def weighted(counts: SparseRows, weights: Tensor) -> SparseRows:
    """log(1 + count) x the word's weight, every document scaled to length `LENGTH`; one without words stays 0.

    >>> both = SparseRows(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), torch.ones(3), 2)
    >>> weighted(both, torch.tensor([3.0, 4.0]))[:]
    tensor([[ 6.0000,  8.0000],
            [ 0.0000, 10.0000]])
    """
    values = counts.values.log1p() * weights[counts.columns]
    norms = torch.zeros(len(counts)).index_add_(0, counts.rows, values.square()).sqrt()
    return replace(counts, values=LENGTH * values / norms[counts.rows].clamp(min=1e-12))


@cache
def _load(path: Path) -> Splits:
    parts = read(path)
    whole = torch.arange(len(parts["train"].labels))
    held = whole % EVERY == EVERY - 1  # some topics have one document: too few for classes in proportion
    train = parts["train"].take(whole[~held])
    weights = gain_ratio(train, int(train.labels.max()) + 1).sqrt()
    three = (train, parts["train"].take(whole[held]), parts["test"])
    return Splits(*(_split(weighted(one.counts, weights), one.labels) for one in three))


def _split(inputs: SparseRows, targets: Tensor) -> Split:
    # All that is asked of inputs is an index, `split` and `to`; rows have them, and are a hundredth of the tensor.
    return Split(cast(Tensor, inputs), targets)


def _documents(path: Path, part: str, arrays: dict[str, np.ndarray], width: int, classes: int) -> Documents:
    offsets, columns, counts, labels = (arrays[f"{part}_{key}"] for key in KEYS)
    for array in (offsets, columns, counts, labels):
        is_list = array.ndim == 1 and array.dtype.kind in "iu"
        npz.check(path, is_list, f"{part} holds no lists of whole numbers")
    offsets, columns, rows = offsets.astype(np.int64), columns.astype(np.int64), len(offsets) - 1
    npz.check(path, len(labels) > 0, f"{part} holds no documents")
    npz.check(path, rows == len(labels), f"{part} has {rows} rows, {len(labels)} labels")
    whole = offsets[0] == 0 and offsets[-1] == len(columns) == len(counts) and (np.diff(offsets) >= 0).all()
    npz.check(path, whole, f"the rows of {part} do not end where its words do")
    npz.check(path, (columns < width).all() and (columns >= 0).all(), f"{part} has words beyond {width}")
    npz.check(path, (counts > 0).all(), f"{part} counts words that are absent")
    npz.check(path, (labels < classes).all() and (labels >= 0).all(), f"{part} has labels beyond {classes}")
    values = torch.from_numpy(counts.astype(np.float32))
    made = SparseRows(torch.from_numpy(offsets), torch.from_numpy(columns), values, width)
    once = len(torch.unique(made.rows * width + made.columns)) == len(columns)
    npz.check(path, once, f"{part} counts a word twice in one document")
    return Documents(made, torch.from_numpy(labels.astype(np.int64)))
