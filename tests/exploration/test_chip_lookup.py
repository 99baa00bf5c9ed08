"""Chips found by the words of a user, and what results on them depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import zeroskip
from zeroskip.errors import AcceleratorError, TaskError
from zeroskip.exploration import find_chips, identity
from zeroskip.exploration.chip_lookup import one_chip
from zeroskip.simulate import CHIPS, chips, parameters

OWN = """
from dataclasses import replace
from zeroskip.simulate import chips
SECOND_NAME = "no chip"
SMALL = replace(chips.EIE, name="small", lanes=4)
LARGE = replace(chips.EIE, name="large", lanes=128)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A user's file with two chips."""
    (tmp_path / "my_chips.py").write_text(OWN)
    return str(tmp_path / "my_chips.py")


def test_without_words_all_published_chips_are_found() -> None:
    assert find_chips(None) == list(CHIPS)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_every_published_chip_is_found_by_its_name_in_any_writing(chip: chips.Accelerator) -> None:
    for words in (chip.name, chip.name.upper(), f" {chip.name.lower().replace(' ', '-')} ", f"{chip.name},"):
        assert find_chips(words) == [chip]


def test_several_words_find_several_chips_in_their_order() -> None:
    assert find_chips("scnn,EIE, dense array") == [chips.SCNN, chips.EIE, chips.DENSE]


def test_a_file_gives_its_chips_and_nothing_else(own: str) -> None:
    found = find_chips(own)
    assert [(chip.name, chip.lanes) for chip in found] == [("small", 4), ("large", 128)]


@pytest.mark.parametrize("words", ["tpu", "eie,tpu", "eie2"])
def test_a_name_that_is_no_chip_is_answered_with_those_that_are(words: str) -> None:
    with pytest.raises(
        AcceleratorError, match=r'there is no chip ".*". Chips are dense-array, eyeriss, .*2:4-tensor-core'
    ):
        find_chips(words)


@pytest.mark.parametrize("words", ["", ",", " , "])
def test_words_without_a_name_are_refused(words: str) -> None:
    with pytest.raises(AcceleratorError, match="no chip is named"):
        find_chips(words)


def test_a_file_without_chips_is_refused_with_how_to_write_one(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("CHIP = 'EIE'")
    with pytest.raises(
        AcceleratorError, match=r"makes no Accelerator. Write one: CHIP = dataclasses.replace"
    ):
        find_chips(str(tmp_path / "empty.py"))


@pytest.mark.parametrize("text", ["1 / 0", "import nothing_of_the_kind", "def"])
def test_a_file_that_fails_says_how(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(TaskError, match="fails when it is run"):
        find_chips(str(tmp_path / "broken.py"))


def test_one_chip_is_one(own: str) -> None:
    assert one_chip("scnn") is chips.SCNN
    for words, count in (("scnn,eie", 2), (own, 2)):
        with pytest.raises(AcceleratorError, match=f"names {count}. Name one"):
            one_chip(words)


def test_an_identity_is_the_numbers_the_file_and_the_version(own: str) -> None:
    published, mine = identity(chips.EIE, "eie"), identity(find_chips(own)[0], own)
    assert published["machine"] == {name: str(number) for name, number in parameters(chips.EIE).items()}
    assert (published["file"], published["version"]) == ("", zeroskip.__version__)
    assert len(str(mine["file"])) == 64
    assert mine["machine"]["lanes"] == "4"  # type: ignore[index]


def test_an_identity_changes_with_the_text_of_the_file(own: str) -> None:
    before = identity(chips.EIE, own)
    Path(own).write_text(OWN + "# a remark")
    assert identity(chips.EIE, own)["file"] != before["file"]


def test_an_identity_goes_through_json_although_json_has_no_infinity() -> None:
    value = identity(chips.EIE, "eie")
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["machine"]["dram_bytes_per_cycle"] == "inf"  # type: ignore[index]
