"""STS-Benchmark (Cer et al. 2017), pairs of sentences and how alike people found them, and sentences without scores.

The folder `sts/` holds stsb.tsv.gz (split, dataset, year, score, sentence1, sentence2, ...) and sentences.tsv.gz
(source, sentence), each with a line of titles.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from zeroskip import files
from zeroskip.data.splits import data_folder
from zeroskip.errors import DataError

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class SentencePairs:
    """Pairs in step with their scores, (pairs,) float64, 0 to 5.

    >>> len(SentencePairs(("a cat", "a dog"), ("one cat", "rain"), torch.tensor([4.6, 0.2])))
    2
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def every(self, step: int) -> SentencePairs:
        """One pair of `step`, spread over all."""
        return SentencePairs(self.first[::step], self.second[::step], self.scores[::step])


def pairs(folder: str | Path | None = None) -> dict[str, SentencePairs]:
    """The splits "train", "validation" (called dev there) and "test" of STS-Benchmark.

    folder  parent of `sts/`, by default ZEROSKIP_DATA. DataError where the file is absent or damaged; so does the next.
    """
    return _pairs(data_folder("sts", folder) / "stsb.tsv.gz")


def unlabelled(folder: str | Path | None = None) -> tuple[str, ...]:
    """200,781 sentences of no pair, in a random order that is always the same."""
    return _unlabelled(data_folder("sts", folder) / "sentences.tsv.gz")


@cache
def _pairs(path: Path) -> dict[str, SentencePairs]:
    rows = _rows(path, columns=6)
    found = {}
    for name, split in SPLITS.items():
        own = [row for row in rows if row[0] == name]
        if not own:
            raise DataError(f"{path} has no pair of the split {name}. Fetch it again.")
        try:
            scores = torch.tensor([float(row[3]) for row in own], dtype=torch.float64)
        except ValueError as fact:
            raise DataError(f"{path} has a score that is no number: {fact}. Fetch it again.") from None
        found[split] = SentencePairs(tuple(row[4] for row in own), tuple(row[5] for row in own), scores)
    return found


@cache
def _unlabelled(path: Path) -> tuple[str, ...]:
    found = [row[1] for row in _rows(path, columns=2)]
    random.Random(0).shuffle(found)  # the file is sorted
    return tuple(found)


def _rows(path: Path, columns: int) -> Sequence[list[str]]:
    """The lines of a table without its titles, each cut at its tabs."""
    try:
        text = gzip.decompress(files.read(path)).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as fact:
        raise DataError(f"{path} is damaged: {fact}. Fetch it again.") from None
    rows = [line.split("\t") for line in text.split("\n")[1:] if line]
    short = next((number for number, row in enumerate(rows, 2) if len(row) < columns), None)
    if short is not None or not rows:
        raise DataError(
            f"{path} should have {columns} columns, and line {short or 2} has fewer. Fetch it again."
        )
    return rows
