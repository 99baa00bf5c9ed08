"""ImageNet folders: which pictures each split holds, what becomes of a picture, clear words where one is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zeroskip.data import imagenet
from zeroskip.data.imagenet import CAFFE, TORCHVISION, Preprocess
from zeroskip.errors import DataError, FileError

PLAIN = Preprocess(crop=6, order="RGB", mean=(0.0, 0.0, 0.0), resize=8)
WNIDS = ("n01", "n02", "n03")


@pytest.fixture(autouse=True)
def _no_folder_is_remembered() -> Iterator[None]:
    imagenet._load.cache_clear()
    yield
    imagenet._load.cache_clear()


def draw(
    path: Path, *, size: tuple[int, int] = (10, 8), colour: tuple[int, int, int] = (200, 100, 50)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def challenge(root: Path, *, parts: tuple[str, ...] = ("train", "val"), each: int = 6) -> Path:
    """`each` pictures of three classes in every part, and the table of class indices 10, 20, 30."""
    for part in parts:
        for wnid in WNIDS:
            for index in range(each):
                draw(root / part / wnid / f"{wnid}_{index}.JPEG")
    rows = [f"{10 * (place + 1)},{wnid},name" for place, wnid in enumerate(WNIDS)]
    (root / "classes.csv").write_text("\n".join(["class_index,wnid,name", *rows]))
    return root


def flat(root: Path, rows: str = "a.png,7\nb.png,3\n", header: str = "file,class_index\n") -> Path:
    draw(root / "a.png")
    draw(root / "b.png")
    (root / "labels.csv").write_text(header + rows)
    return root


def test_val_is_the_test_split_and_validation_is_held_out_of_train(tmp_path: Path) -> None:
    splits = imagenet.load(challenge(tmp_path))
    assert {name: len(one) for name, one in splits.items()} == {"train": 15, "validation": 3, "test": 18}
    assert splits["validation"].targets.tolist() == [10, 20, 30]
    assert splits["test"].targets.tolist() == [10] * 6 + [20] * 6 + [30] * 6
    assert (splits["train"].root, splits["test"].root) == (tmp_path / "train", tmp_path / "val")
    assert not set(splits["train"].names) & set(splits["validation"].names)
    every = sorted([*splits["train"].names, *splits["validation"].names])
    assert every == sorted(f"{wnid}/{wnid}_{index}.JPEG" for wnid in WNIDS for index in range(6))


def test_the_hold_out_is_the_same_each_time(tmp_path: Path) -> None:
    first = imagenet.load(challenge(tmp_path))["validation"].names
    imagenet._load.cache_clear()
    assert imagenet.load(tmp_path)["validation"].names == first


def test_without_val_the_test_split_is_held_out_of_train_too(tmp_path: Path) -> None:
    splits = imagenet.load(challenge(tmp_path, parts=("train",)))
    assert {name: len(one) for name, one in splits.items()} == {"train": 12, "validation": 3, "test": 3}
    names = [set(one.names) for one in splits.values()]
    assert len(set.union(*names)) == 18


def test_val_alone_serves_as_all_three_and_a_warning_says_so(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match="one set of 18 pictures: training, validation and test are all these same"
    ):
        splits = imagenet.load(challenge(tmp_path, parts=("val",)))
    assert [len(one) for one in splits.values()] == [18, 18, 18]


def test_a_flat_folder_takes_class_indices_from_its_table(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="same pictures"):
        test = imagenet.load(flat(tmp_path))["test"]
    assert (test.names, test.targets.tolist()) == (("a.png", "b.png"), [7, 3])


@pytest.mark.parametrize("name", ["imagenet", "imagenet_sample", "."])
def test_the_folder_may_be_given_itself_or_by_its_parent(tmp_path: Path, name: str) -> None:
    flat(tmp_path / name)
    assert imagenet.find(tmp_path).resolve() == (tmp_path / name).resolve()


def test_the_folder_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", str(flat(tmp_path)))
    assert imagenet.find() == tmp_path
    monkeypatch.delenv("ZEROSKIP_DATA")
    with pytest.raises(DataError, match="Name its folder with --data DIR"):
        imagenet.find()
    with pytest.raises(DataError, match="there is no ImageNet in /nowhere"):
        imagenet.find("/nowhere")


def test_a_thousand_folders_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    for index in range(1000):
        (tmp_path / "val" / f"n{index:08}").mkdir(parents=True)
    draw(tmp_path / "val" / "n00000417" / "x.JPEG")
    with pytest.warns(UserWarning, match="one set of 1 pictures"):
        assert imagenet.load(tmp_path)["test"].targets.tolist() == [417]


def test_fewer_classes_than_1000_need_a_table_of_their_indices(tmp_path: Path) -> None:
    (challenge(tmp_path) / "classes.csv").unlink()
    with pytest.raises(DataError, match=r"3 of the 1000 classes.*Put a classes.csv \(class_index, wnid\)"):
        imagenet.load(tmp_path)


def test_a_class_that_is_not_in_the_table_is_named(tmp_path: Path) -> None:
    draw(challenge(tmp_path) / "val" / "n99" / "x.JPEG")
    with pytest.raises(DataError, match="n99 is none of the 3 classes. Rename or remove it"):
        imagenet.load(tmp_path)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    challenge(tmp_path, each=0)
    (tmp_path / "train" / "n01").mkdir(parents=True)
    (tmp_path / "train" / "n01" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="train holds no pictures. Expected: train/<wnid>"):
        imagenet.load(tmp_path)


def test_a_file_in_place_of_the_folder_train_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("")
    with pytest.raises(DataError, match="cannot be listed"):
        imagenet.load(tmp_path)


def test_two_pictures_a_class_are_too_few_to_hold_out_two_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Give every class at least three pictures"):
        imagenet.load(challenge(tmp_path, parts=("train",), each=2))


BAD_TABLES = {
    "no rows": ("file,class_index\n", "", "should have rows with file and class_index"),
    "no class_index": ("file,label\n", "a.png,7\n", "should have rows with file and class_index"),
    "row cut short": ("file,class_index\n", "a.png\n", "should have rows with file and class_index"),
    "class 1000": ("file,class_index\n", "a.png,1000\n", 'class_index "1000" is none of 0 to 999'),
    "class -1": ("file,class_index\n", "a.png,-1\n", 'class_index "-1" is none of 0 to 999'),
    "class of words": ("file,class_index\n", "a.png,tench\n", 'class_index "tench" is none of 0 to 999'),
    "superscript": ("file,class_index\n", "a.png,²\n", 'class_index "²" is none'),
    "field without end": ("file,class_index\n", "a" * 140_000 + ",1\n", "is no CSV file"),
}


@pytest.mark.parametrize(("header", "rows", "words"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, header: str, rows: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        imagenet.load(flat(tmp_path, rows, header))


def test_a_table_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no CSV file"):
        imagenet.load(tmp_path)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(FileError, match="cannot read"):
        imagenet.load(tmp_path)


def test_caffe_wants_bgr_minus_its_means_and_torchvision_rgb_over_its_deviations(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", size=(300, 256), colour=(200, 100, 50))
    caffe, torchvision = imagenet.read_picture(path, CAFFE), imagenet.read_picture(path, TORCHVISION)
    assert (caffe.shape, torchvision.shape) == ((3, 227, 227), (3, 224, 224))
    assert caffe[:, 100, 100].tolist() == [50 - 104, 100 - 117, 200 - 123]
    wanted = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]
    assert torchvision[:, 100, 100].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_picture_whose_shorter_side_fits_is_only_cut_out_of_the_middle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 13, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    ours = imagenet.read_picture(tmp_path / "a.png", PLAIN)
    assert torch.equal(ours, torch.from_numpy(pixels[1:7, 3:9].transpose(2, 0, 1).astype(np.float32)))


def test_a_crop_larger_than_the_picture_is_refused_and_not_filled_with_black() -> None:
    with pytest.raises(DataError, match="299 pixels cannot be cut out of 256"):
        Preprocess(299, "RGB", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (5, 9), (1, 40)])
def test_any_other_picture_is_scaled_to_the_shorter_side_first(tmp_path: Path, size: tuple[int, int]) -> None:
    """A ramp along the longer side: its middle value stays in the middle."""
    longer = np.linspace(0, 250, max(size))
    pixels = np.broadcast_to(longer[None, :] if size[0] > size[1] else longer[:, None], size[::-1])
    Image.fromarray(np.stack([pixels] * 3, -1).astype(np.uint8)).save(tmp_path / "a.png")
    ours = imagenet.read_picture(tmp_path / "a.png", PLAIN)
    assert ours.shape == (3, 6, 6)
    assert float(ours.mean()) == pytest.approx(125, abs=2)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_pictures_that_are_not_rgb_become_so(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), (102, 102, 102)).convert(mode).save(path)
    assert float(imagenet.read_picture(path, PLAIN).sub(102).abs().max()) <= 4


def test_a_random_part_lies_within_the_picture_at_every_corner_of_chance(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", size=(20, 11), colour=(9, 9, 9))
    for corner in torch.cartesian_prod(*[torch.tensor([0.0, 0.999999])] * 5):
        part = imagenet.read_picture(path, PLAIN, corner)
        assert torch.equal(part, torch.full((3, 6, 6), 9.0))


def test_a_mirrored_part_is_the_other_one_back_to_front(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    plain, mirrored = (
        imagenet.read_picture(tmp_path / "a.png", PLAIN, torch.tensor([0.5, 0.5, 0.1, 0.9, coin]))
        for coin in (0.9, 0.1)
    )
    assert torch.equal(plain.flip(2), mirrored)
    assert not torch.equal(plain, mirrored)


def test_batches_hold_every_picture_once_in_order(tmp_path: Path) -> None:
    """Picture i is of colour (i, i, i), and its class is i."""
    for index in range(7):
        draw(tmp_path / f"{index}.png", colour=(index, index, index))
    pictures = imagenet.Pictures(tmp_path, tuple(f"{index}.png" for index in range(7)), torch.arange(7))
    seen = list(imagenet.batches(pictures, PLAIN, size=3))
    assert [len(targets) for _, targets in seen] == [3, 3, 1]
    for inputs, targets in seen:
        assert inputs.shape[1:] == (3, 6, 6)
        assert torch.equal(inputs.amax((1, 2, 3)).long(), targets)
    assert torch.cat([targets for _, targets in seen]).tolist() == list(range(7))


def test_training_batches_are_shuffled_whole_and_repeat_with_the_seed(tmp_path: Path) -> None:
    for index in range(30):
        noise = np.random.default_rng(index).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    pictures = imagenet.Pictures(tmp_path, tuple(f"{index}.png" for index in range(30)), torch.arange(30))

    def epoch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        inputs, targets = zip(*imagenet.batches(pictures, PLAIN, size=8, training=True), strict=True)
        return torch.cat(inputs), torch.cat(targets)

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert sorted(first[1].tolist()) == sorted(other[1].tolist()) == list(range(30))
    assert first[1].tolist() != other[1].tolist()


def test_pictures_are_read_one_batch_ahead_and_no_further(tmp_path: Path) -> None:
    """The fourth of five batches is damaged: three can be had before anybody notices."""
    names = [f"{index}.png" for index in range(5)]
    for name in names:
        draw(tmp_path / name)
    (tmp_path / "3.png").write_bytes(b"damaged")
    seen = imagenet.batches(imagenet.Pictures(tmp_path, tuple(names), torch.arange(5)), PLAIN, size=1)
    assert [int(next(seen)[1]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"3.png is no whole picture"):
        next(seen)


def damaged(path: Path, what: str) -> Path:
    good = draw(path / "good.jpg", size=(64, 64)).read_bytes()
    content = {
        "empty": b"",
        "cut short": good[: len(good) * 2 // 3],
        "text": b"not found",
        "png": b"\x89PNG\r\n\x1a\n",
    }
    (path / "bad.jpg").write_bytes(content[what])
    return path / "bad.jpg"


@pytest.mark.parametrize("what", ["empty", "cut short", "text", "png"])
def test_a_damaged_picture_is_named_with_what_to_do(tmp_path: Path, what: str) -> None:
    with pytest.raises(DataError, match=r"bad.jpg is no whole picture: .* Fetch it again, or take it out"):
        imagenet.read_picture(damaged(tmp_path, what), PLAIN)


def test_an_absent_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.jpg is no whole picture: .*No such file"):
        imagenet.read_picture(tmp_path / "absent.jpg", PLAIN)
