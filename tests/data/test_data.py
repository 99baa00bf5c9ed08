"""Data sets: fixed splits that never overlap, and clear words where files are absent or damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch

from zeroskip.data import Split, data_folder, digits, mnist
from zeroskip.data.splits import hold_out
from zeroskip.errors import DataError


def test_digits_are_1077_360_and_360_real_images_without_overlap() -> None:
    splits = digits.load()
    assert splits.counts == {"train": 1077, "validation": 360, "test": 360}
    ours = torch.cat([part.inputs.flatten(1) for part in (splits.train, splits.validation, splits.test)])
    theirs = torch.from_numpy(sklearn.datasets.load_digits().data).float() / 16
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))


def test_every_split_of_digits_holds_every_class_in_proportion() -> None:
    splits = digits.load()
    for part in (splits.validation, splits.test):
        assert torch.bincount(part.targets).tolist() == pytest.approx([36] * 10, abs=2)


def test_the_split_of_digits_is_the_documented_one_on_every_machine() -> None:
    test = digits.load().test
    assert test.targets[:8].tolist() == [1, 4, 8, 6, 5, 9, 9, 1]
    assert test.inputs.shape == (360, 1, 8, 8)
    assert float(test.inputs.double().sum() * 16) == 112_350


def test_holding_out_keeps_inputs_and_targets_together() -> None:
    whole = Split(torch.arange(40.0).reshape(40, 1), torch.arange(40) % 2)
    rest, held = hold_out(whole, 10)
    for part in (rest, held):
        assert (part.inputs.flatten() % 2 == part.targets).all()
    assert sorted([*rest.inputs.flatten().tolist(), *held.inputs.flatten().tolist()]) == list(range(40))


def test_without_a_folder_mnist_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(DataError, match="--data DIR or ZEROSKIP_DATA"):
        mnist.load()
    with pytest.raises(DataError, match='there is no folder "mnist" in'):
        data_folder("mnist", tmp_path)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return gzip.compress(
        struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()
    )


def test_an_idx_file_reads_as_the_array_it_was(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.gz").write_bytes(idx(array))
    assert (mnist.read_idx(tmp_path / "a.gz") == array).all()


DAMAGED = {
    "empty": b"",
    "no gzip": b"no gzip",
    "cut short": idx(np.zeros(5, np.uint8))[:-6],
    "floats": idx(np.zeros(5, np.uint8), kind=13),
    "no header": gzip.compress(b"\0\0"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a.gz is damaged: .* Fetch it again"):
        mnist.read_idx(tmp_path / "a.gz")


def test_images_and_labels_that_do_not_match_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for name in ("train", "t10k"):
        (tmp_path / "mnist" / f"{name}-images-idx3-ubyte.gz").write_bytes(
            idx(np.zeros((3, 28, 28), np.uint8))
        )
        (tmp_path / "mnist" / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(DataError, match="2 labels"):
        mnist.load(tmp_path)


def test_a_download_is_stored_as_the_files_that_load_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No two images are the same, and all are mostly black: random pixels take seconds to compress.
    pixels, labels = np.zeros((70_000, 784), np.uint8), np.arange(70_000) % 10
    pixels[:, :3] = np.arange(70_000)[:, None] // (1, 256, 65_536) % 256
    monkeypatch.setattr(
        sklearn.datasets, "fetch_openml", lambda *_, **__: (pixels.astype(np.int64), labels.astype(str))
    )
    path = mnist.download(tmp_path)
    images = mnist.read_idx(path / "t10k-images-idx3-ubyte.gz")
    assert (images.reshape(10_000, 784) == pixels[60_000:]).all()
    assert mnist.read_idx(path / "train-labels-idx1-ubyte.gz").tolist() == (labels[:60_000] % 10).tolist()


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", unreachable)
    with pytest.raises(DataError, match="no route to host. Check the network, or give --data DIR"):
        mnist.download(tmp_path)
    assert not (tmp_path / "mnist").exists()


@pytest.mark.real_data
def test_mnist_is_50000_10000_and_10000_images_scaled_to_0_to_1(mnist_folder: Path) -> None:
    splits = mnist.load(mnist_folder)
    assert splits.counts == {"train": 50_000, "validation": 10_000, "test": 10_000}
    # Class counts of the test set as LeCun published it.
    assert torch.bincount(splits.test.targets).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert splits.train.inputs.shape == (50_000, 1, 28, 28)
    assert (splits.train.inputs.min(), splits.train.inputs.max()) == (0.0, 1.0)
