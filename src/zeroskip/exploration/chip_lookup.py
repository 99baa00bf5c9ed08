"""Chips by the words of a user: names with commas between them, or a Python file that makes some."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import zeroskip
from zeroskip import files
from zeroskip.errors import AcceleratorError
from zeroskip.simulate import CHIPS, Accelerator, parameters
from zeroskip.tasks.load import run_file


def identity(chip: Accelerator, words: str) -> dict[str, object]:
    """What results on a chip that `find_chips(words)` found depend on, as points of a sweep have it.

    machine  its numbers as text, since JSON has no infinity
    file     SHA-256 of the user's file that it comes from, "" for a published chip;  version: zeroskip's

    >>> identity(find_chips("eie")[0], "eie")
    {'machine': {'lanes': '64', ...}, 'file': '', 'version': ...}
    """
    numbers = {name: str(number) for name, number in parameters(chip).items()}
    own = hashlib.sha256(files.read(words)).hexdigest() if words.endswith(".py") else ""
    return {"machine": numbers, "file": own, "version": zeroskip.__version__}


def one_chip(words: str) -> Accelerator:
    """The chip that the words name; AcceleratorError where they name several."""
    chips = find_chips(words)
    if len(chips) > 1:
        raise AcceleratorError(f"one chip is needed, and {words} names {len(chips)}. Name one, such as eie.")
    return chips[0]


def find_chips(words: str | None) -> list[Accelerator]:
    """The chips that the words name, all published ones for None.

    AcceleratorError for a name that is none, with those that there are, and for a file that makes no chip; TaskError
    for a file that fails when it is run.

    >>> [chip.name for chip in find_chips("eie,scnn")]
    ['EIE', 'SCNN']
    """
    if words is None:
        return list(CHIPS)
    if words.endswith(".py"):
        return _own(Path(words))
    known = {_slug(chip.name): chip for chip in CHIPS}
    names = [_slug(word) for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        named = f'there is no chip "{unknown[0]}"' if unknown else "no chip is named"
        raise AcceleratorError(f"{named}. Chips are {', '.join(known)}; or give a Python file.")
    return [known[name] for name in names]


def _own(path: Path) -> list[Accelerator]:
    """The chips that a user's file makes, in its order."""
    chips = [value for value in vars(run_file(path)).values() if isinstance(value, Accelerator)]
    if not chips:
        raise AcceleratorError(
            f"{path} makes no Accelerator. Write one: CHIP = dataclasses.replace(chips.SCNN, name='mine')."
        )
    return chips


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9:]+", name.lower()))
