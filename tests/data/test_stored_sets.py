"""Forest, the three text sets and CIFAR-10: read from small files made here, refused where these are damaged."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.feature_selection import mutual_info_classif

from zeroskip.data import cifar10, forest, npz, word_counts
from zeroskip.data.sparse_rows import SparseRows
from zeroskip.errors import DataError

Arrays = dict[str, Any]


@pytest.fixture
def real() -> Path:
    """The folder of the real sets; skips with the reason where ZEROSKIP_DATA does not name one that has them."""
    parent = Path(os.environ.get("ZEROSKIP_DATA") or "absent")
    if not all((parent / name).is_dir() for name in ("forest", "text", "cifar10")):
        pytest.skip("forest, text and cifar10 are absent: set ZEROSKIP_DATA to the folder that holds them")
    return parent


def stored(folder: Path, name: str, arrays: Arrays) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return folder


# npz


def test_arrays_come_back_as_they_were_and_absent_names_and_files_are_told(tmp_path: Path) -> None:
    path = stored(tmp_path, "a.npz", {"x": np.arange(6).reshape(2, 3)}) / "a.npz"
    assert npz.read(path, ["x"])["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match=r"a.npz is damaged: .*y.npy.* Fetch it again"):
        npz.read(path, ["x", "y"])
    with pytest.raises(DataError, match=r"there is no file .*b.npz. Check --data DIR"):
        npz.read(tmp_path / "b.npz", ["x"])


def test_objects_are_refused_since_reading_them_could_run_code(tmp_path: Path) -> None:
    path = stored(tmp_path, "a.npz", {"x": np.array([{}, None], object)}) / "a.npz"
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        npz.read(path, ["x"])


@pytest.mark.parametrize("kept", [0, 10, 100, -30])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kept: int) -> None:
    path = stored(tmp_path, "a.npz", {"x": np.arange(500)}) / "a.npz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="a.npz is damaged"):
        npz.read(path, ["x"])


def test_a_flipped_byte_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(500))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        npz.read(path, ["x"])


# Forest


def patches(count: int = 60) -> Arrays:
    draw = np.random.default_rng(0)
    kinds = {"wilderness": 4, "soil": 40, "y": 7}
    arrays = {name: (np.arange(count) % kind).astype(np.uint8) for name, kind in kinds.items()}
    return arrays | {"numeric": draw.integers(-100, 3000, (count, 10)).astype(np.int16)}


FOREST = "forest/forest_covertype.npz"


def test_a_patch_is_ten_measures_and_one_of_4_areas_and_of_40_soils(tmp_path: Path) -> None:
    arrays = patches()
    inputs = forest.read(stored(tmp_path, FOREST, arrays) / FOREST).inputs
    assert inputs.shape == (60, 54)
    assert (inputs[:, :10].numpy() == arrays["numeric"]).all()
    assert (inputs[:, 10:14].argmax(1).numpy() == arrays["wilderness"]).all()
    assert (inputs[:, 14:].argmax(1).numpy() == arrays["soil"]).all()
    assert (inputs[:, 10:].sum(1) == 2).all()


def test_measures_are_scaled_by_the_training_split_alone_and_the_last_rows_are_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forest, "HELD_OUT", 14)
    arrays = patches()
    splits = forest.load(stored(tmp_path, FOREST, arrays))
    assert splits.counts == {"train": 32, "validation": 14, "test": 14}
    torch.testing.assert_close(splits.train.inputs[:, :10].mean(0), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(splits.train.inputs[:, :10].std(0), torch.ones(10))
    assert splits.test.inputs[:, :10].mean(0).abs().max() > 0.01
    assert splits.test.targets.tolist() == arrays["y"][-14:].tolist()
    assert (splits.test.inputs[:, 10:].sum(1) == 2).all()


BAD_PATCHES: dict[str, tuple[Arrays, str]] = {
    "nine measures": ({"numeric": np.zeros((60, 9), np.int16)}, r"numeric is \(60, 9\), not \(60, 10\)"),
    "a fifth area": ({"wilderness": np.full(60, 4)}, "wilderness is no list of 60 numbers below 4"),
    "soil -1": ({"soil": np.full(60, -1)}, "soil is no list of 60 numbers below 40"),
    "soils too few": ({"soil": np.zeros(59, int)}, "soil is no list"),
    "covers as floats": ({"y": np.zeros(60)}, "y is no list of 60 numbers below 7"),
    "one cover": ({"y": np.uint8(1)}, r"numeric is \(60, 10\), not \(1, 10\)"),
}


@pytest.mark.parametrize(("change", "words"), BAD_PATCHES.values(), ids=BAD_PATCHES)
def test_columns_that_do_not_fit_together_are_refused(tmp_path: Path, change: Arrays, words: str) -> None:
    folder = stored(tmp_path, FOREST, {**patches(), **change})
    with pytest.raises(DataError, match=words):
        forest.load(folder)


def test_too_few_patches_for_three_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 rows are too few for three splits"):
        forest.load(stored(tmp_path, FOREST, patches()))


@pytest.mark.real_data
def test_the_real_forest_is_62962_10000_and_10000_patches(real: Path) -> None:
    splits = forest.load(real)
    assert splits.counts == {"train": 62_962, "validation": 10_000, "test": 10_000}
    assert torch.bincount(forest.read(real / FOREST).targets).tolist() == [
        30187, 40502, 5114, 393, 1352, 2477, 2937,
    ]  # fmt: skip


# Texts

WEBKB = "text/webkb_bow.npz"


def documents() -> Arrays:
    """Ten documents of words 0 to 3, classes 0 and 1: all have "0", class 1 has "1", half have "2", none has "3"."""
    counts = np.array([[1, 2 * (i % 2), i // 5, 0] for i in range(10)], np.uint8)
    row, column = counts.nonzero()
    csr = {
        "indptr": np.append(0, np.bincount(row, minlength=10).cumsum()).astype(np.int32),
        "indices": column.astype(np.uint16),
        "data": counts[row, column],
        "labels": (np.arange(10) % 2).astype(np.uint8),
    }
    both = {f"{part}_{name}": array for part in ("train", "test") for name, array in csr.items()}
    return both | {"n_features": np.int32(4), "classes": np.array([b"a", b"b"])}


def test_every_fifth_training_document_is_validation_and_all_are_of_length_10(tmp_path: Path) -> None:
    splits = word_counts.webkb(stored(tmp_path, WEBKB, documents()))
    assert splits.counts == {"train": 8, "validation": 2, "test": 10}
    assert splits.validation.targets.tolist() == [0, 1]  # documents 4 and 9
    dense = splits.test.inputs[:]
    # Word 1 alone says everything of the class, and word 0 nothing; documents of class 0 lack word 1.
    assert dense[1::2, 1].tolist() == pytest.approx([10.0] * 5, rel=0.02)
    assert (dense[:, 0] == 0).all()
    assert (dense[::2, 1] == 0).all()


def test_a_word_that_names_the_class_weighs_1_and_one_in_all_documents_0(tmp_path: Path) -> None:
    train = word_counts.read(stored(tmp_path, WEBKB, documents()) / WEBKB)["train"]
    found = word_counts.gain_ratio(train, 2).tolist()
    assert found[:2] + found[3:] == pytest.approx([0, 1, 0], abs=1e-6)
    # Word 2: in documents 5 to 9, of which 3 are of class 1. H = log 2, I by hand.
    by_hand = 2 * (0.3 * math.log(0.3 / 0.25) + 0.2 * math.log(0.2 / 0.25)) / math.log(2)
    assert found[2] == pytest.approx(by_hand)


def test_gains_are_those_of_scikit_learn_on_random_documents_of_three_classes() -> None:
    torch.manual_seed(0)
    present, labels = torch.rand(80, 12) < 0.4, torch.randint(3, (80,))
    row, columns = present.nonzero(as_tuple=True)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(row, minlength=80).cumsum(0)])
    made = word_counts.Documents(SparseRows(offsets, columns, torch.ones(len(row)), 12), labels)
    ratios = []
    for one in range(3):
        share = float((labels == one).double().mean())
        entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
        gains = mutual_info_classif(present.numpy(), (labels == one).numpy(), discrete_features=True)
        ratios.append(gains / entropy)
    assert word_counts.gain_ratio(made, 3).tolist() == pytest.approx(
        np.max(ratios, axis=0).tolist(), rel=1e-4
    )


def test_weights_and_lengths_by_hand_and_a_document_without_words_stays_zero() -> None:
    """Counts (3, 1) and none, weights (1, 2): log 4 and 2 log 2 are equal, so each is 10 / sqrt 2."""
    rows = SparseRows(torch.tensor([0, 2, 2]), torch.tensor([0, 1]), torch.tensor([3.0, 1.0]), 2)
    dense = word_counts.weighted(rows, torch.tensor([1.0, 2.0]))[:]
    assert dense.tolist() == [pytest.approx([10 / 2**0.5] * 2), [0, 0]]


BAD_DOCUMENTS: dict[str, tuple[Arrays, str]] = {
    "no documents": ({"test_labels": np.zeros(0, int), "test_indptr": np.zeros(1, int)}, "test holds no documents"),
    "a label too few": ({"train_labels": np.zeros(9, int)}, "train has 10 rows, 9 labels"),
    "class 2 of 2": ({"train_labels": np.full(10, 2)}, "train has labels beyond 2"),
    "word 4 of 4": ({"n_features": np.int32(3), "train_indices": np.full(20, 3)}, "train has words beyond 3"),
    "rows that go back": ({"test_indptr": np.array([0, 9, 2, *range(3, 10), 20])}, "rows of test do not end"),
    "rows beyond the words": ({"test_indptr": np.arange(11)}, "the rows of test do not end where its words do"),
    "a count of 0": ({"train_data": np.zeros(20, int)}, "train counts words that are absent"),
    "a word twice": ({"train_indices": np.zeros(20, int)}, "train counts a word twice in one document"),
    "floats": ({"train_data": np.ones(20)}, "train holds no lists of whole numbers"),
    "two widths": ({"n_features": np.array([4, 4])}, "n_features is no number"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_word_counts_that_do_not_fit_together_are_refused(tmp_path: Path, change: Arrays, words: str) -> None:
    assert len(documents()["train_data"]) == 20
    folder = stored(tmp_path, WEBKB, {**documents(), **change})
    with pytest.raises(DataError, match=words):
        word_counts.webkb(folder)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("load", "counts", "width", "classes", "words"),
    [
        (word_counts.reuters, (5226, 1306, 2568), 2837, 52, 47.5),
        (word_counts.webkb, (2243, 560, 1396), 3418, 4, 70.7),
        (word_counts.newsgroups, (9052, 2262, 7532), 21_979, 20, 112.4),
    ],
    ids=["reuters", "webkb", "newsgroups"],
)
def test_the_real_texts_have_minerva_s_inputs_and_as_many_words_a_document_as_stored(
    real: Path, load: Callable[..., Any], counts: tuple[int, ...], width: int, classes: int, words: float
) -> None:
    splits = load(real)
    assert tuple(splits.counts.values()) == counts
    assert splits.train.inputs.shape == (counts[0], width)
    assert int(splits.train.targets.max()) == classes - 1
    nonzero = [torch.count_nonzero(part.inputs.values) for part in (splits.train, splits.validation)]
    assert float(sum(nonzero)) / sum(counts[:2]) == pytest.approx(words, rel=0.01)


# CIFAR-10


def pictures(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """(count, 32, 32, 3) pixels of one colour a picture, and their labels."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, 32, 32, 3)).copy(), (np.arange(count) % 10).astype(np.uint8)


def differences(pixels: np.ndarray) -> np.ndarray:
    planes = pixels.transpose(0, 3, 1, 2).copy()
    planes[:, [0, 2]] -= planes[:, 1:2]
    return np.diff(planes, axis=-1, prepend=np.uint8(0))


def jpegs(pixels: np.ndarray, size: tuple[int, int] = (32, 32)) -> Arrays:
    every = []
    for one in pixels:
        stream = io.BytesIO()
        Image.fromarray(one).resize(size).save(stream, "JPEG", quality=95, subsampling=0)
        every.append(stream.getvalue())
    ends = np.cumsum([0, *map(len, every)])
    return {"jpeg": np.frombuffer(b"".join(every), np.uint8), "offsets": ends.astype(np.int32)}


def cifar(folder: Path, **changes: Any) -> Path:
    pixels, labels = pictures()
    stored(folder, "cifar10/cifar10_train_jpeg.npz", {**jpegs(pixels), "y": labels, **changes})
    delta = {"x_delta": differences(pixels), "y": labels}
    stored(folder, "cifar10/cifar10_test_jpeg_decoded.npz", delta)
    stored(folder, "cifar10/cifar10_train4k_lossless.npz", delta)
    return stored(folder, "cifar10/cifar10_test100_lossless.npz", {"x": pixels, "y": labels})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "HELD_OUT", 10)


def test_pictures_are_scaled_by_the_mean_and_deviation_of_the_published_networks() -> None:
    grey = cifar10.normalized(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist()
    assert grey == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_differences_modulo_256_give_the_pixels_back_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    name = "cifar10/cifar10_train4k_lossless.npz"
    stored(tmp_path, name, {"x_delta": differences(pixels), "y": np.arange(3)})
    wanted = cifar10.normalized(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    assert torch.equal(cifar10.lossless("train", tmp_path).inputs, wanted)


@pytest.mark.usefixtures("few")
def test_jpeg_pictures_are_decoded_to_within_2_levels_of_what_they_were(tmp_path: Path) -> None:
    folder = cifar(tmp_path)
    splits = cifar10.load(folder)
    assert splits.counts == {"train": 10, "validation": 10, "test": 20}
    for part in (splits.train, splits.validation):
        assert torch.bincount(part.targets).tolist() == [1] * 10
    pixels = cifar10.lossless("test", folder)
    assert torch.equal(pixels.inputs, splits.test.inputs)
    means = {tuple(one.mean((1, 2)).mul(10).round().tolist()) for one in pixels.inputs}
    assert len(means) == 20
    for part in (splits.train, splits.validation):
        apart = torch.cdist(part.inputs.mean((2, 3)), pixels.inputs.mean((2, 3))).amin(1)
        assert apart.max() < 2 * 3**0.5 / 255 / 0.224


BAD_PICTURES: dict[str, tuple[Arrays, str]] = {
    "a label too few": ({"y": np.zeros(19, int)}, "20 pictures have 19 labels"),
    "class 10": ({"y": np.full(20, 10)}, "its labels are no numbers below 10"),
    "an end beyond the bytes": ({"offsets": np.arange(21)}, "do not end where its bytes do"),
    "sizes of 16 pixels": (jpegs(pictures()[0], (16, 32)), "picture 0 has 16x32 pixels, not 32x32"),
    "no JPEG": ({"jpeg": np.zeros(20, np.uint8), "offsets": np.arange(21)}, "picture 0: cannot identify"),
    "words for bytes": ({"jpeg": np.zeros(20, np.int64)}, "it holds no files and where they end"),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("change", "words"), BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_damaged_pictures_are_refused(tmp_path: Path, change: Arrays, words: str) -> None:
    folder = cifar(tmp_path, **change)
    with pytest.raises(DataError, match=f"cifar10_train_jpeg.npz is damaged: .*{words}.* Fetch it again"):
        cifar10.load(folder)


@pytest.mark.usefixtures("few")
def test_a_picture_cut_short_is_named(tmp_path: Path) -> None:
    arrays = jpegs(pictures()[0])
    end = int(arrays["offsets"][1])
    short = np.delete(arrays["jpeg"], np.s_[end // 2 : end])  # without the second half of the first file
    offsets = np.where(arrays["offsets"] > 0, arrays["offsets"] - (end - end // 2), 0)
    with pytest.raises(DataError, match="picture 0"):
        cifar10.load(cifar(tmp_path, jpeg=short, offsets=offsets))


@pytest.mark.real_data
def test_the_real_cifar10_has_4000_and_100_original_pictures(real: Path) -> None:
    train, test = cifar10.lossless("train", real), cifar10.lossless("test", real)
    assert (train.inputs.shape, test.inputs.shape) == ((4000, 3, 32, 32), (100, 3, 32, 32))
    assert test.targets[:8].tolist() == [
        3,
        8,
        8,
        0,
        6,
        6,
        1,
        6,
    ]  # a cat, two ships, an aeroplane, two frogs, ...
