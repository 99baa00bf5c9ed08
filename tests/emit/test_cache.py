"""Compiled code is kept for its owner alone, and whatever is wrong with it only costs time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zeroskip.emit import compile_function, detect, llvm
from zeroskip.emit.code_cache import cached, tidy
from zeroskip.emit.llvm import POINTER, Function
from zeroskip.run.convolution.tiles import baked_steps
from zeroskip.run.convolution.tiles.activation import RELU, Activation
from zeroskip.run.convolution.tiles.convolution_job import Job, Map, RowWeights
from zeroskip.run.convolution.tiles.layout import fresh
from zeroskip.run.convolution.tiles.steps import Epilogue

MACHINE = detect()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept"
    monkeypatch.setenv("ZEROSKIP_CACHE", str(path))
    return path


class Maker:
    """Returns b"code", and counts how often it had to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return b"code"


def make_twice(*, first: bytes = b"pattern", second: bytes = b"pattern") -> int:
    """How often something is made that is asked for twice."""
    maker = Maker()
    assert [cached([__file__], [one], MACHINE, maker) for one in (first, second)] == [b"code"] * 2
    return maker.calls


def doubling() -> str:
    f = Function("double", {"x": POINTER})
    value = f.load("float", "%x")
    f.store("float", f.value(f"fadd float {value}, {value}"), "%x")
    return f.text(MACHINE)


def job(weight: np.ndarray) -> Job:
    layout = fresh((weight.shape[1], 4, 4), images=1, lanes=16)
    x = Map(layout, 4096, range(weight.shape[1]))
    y = Map(replace(layout, channels=len(weight)), 1 << 16, range(len(weight)))
    bias, offsets = np.zeros(len(weight), np.float32), np.arange(weight.shape[1]) * layout.vector_bytes
    weights = RowWeights(weight, bias, offsets)
    return Job("conv", weights, (1, 1), x, y, residual=None, epilogue=Epilogue(activation=RELU))


def test_what_is_asked_for_twice_is_made_once(folder: Path) -> None:
    assert make_twice() == 1
    assert len(list(folder.iterdir())) == 1


def test_another_source_machine_or_maker_is_another_entry(folder: Path, tmp_path: Path) -> None:
    assert make_twice(second=b"other") == 2
    maker = Maker()
    cached([__file__], [b"a", b"b"], MACHINE, maker)
    cached([__file__], [b"ab"], MACHINE, maker)
    cached([__file__], [b"ab"], replace(MACHINE, features=MACHINE.features ^ {"sse3"}), maker)
    (tmp_path / "maker.py").write_text("x = 1")
    cached([str(tmp_path / "maker.py")], [b"ab"], MACHINE, maker)
    assert maker.calls == 4
    assert len(list(folder.iterdir())) == 6


def test_a_function_compiled_again_does_not_ask_llvm_to_optimise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_function(doubling(), "double", MACHINE, 1)
    monkeypatch.setattr(llvm, "_optimised", lambda *_: pytest.fail("LLVM was asked"))
    x = np.array([1.5], np.float32)
    compile_function(doubling(), "double", MACHINE, 1)(x.ctypes.data)
    assert x.tolist() == [3.0]


@pytest.mark.parametrize("bound", [None, 6.0])
def test_a_convolution_is_baked_once_and_comes_back_to_the_last_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: float | None
) -> None:
    weight = np.random.default_rng(0).normal(size=(40, 9)).astype(np.float32) * (np.arange(9) % 3 == 0)
    bounded = replace(job(weight), epilogue=Epilogue(activation=Activation("bounded", (bound,))))
    first = baked_steps._baked(bounded, MACHINE)
    direct = baked_steps._bake(bounded, MACHINE)
    monkeypatch.setattr(baked_steps, "bake", lambda *_, **__: pytest.fail("it was baked again"))
    again = baked_steps._baked(bounded, MACHINE)
    for each in (first, again):
        assert each.code == direct.code
        assert np.array_equal(each.weights, direct.weights)
        assert np.array_equal(each.chunks, direct.chunks)


@pytest.mark.parametrize("change", ["weight", "bias", "offsets", "taps", "relu", "bound", "residual"])
def test_jobs_that_differ_in_one_thing_do_not_share_code(folder: Path, change: str) -> None:
    plain = job(np.ones((4, 3), np.float32))
    weights, epilogue = plain.weights, plain.epilogue
    other = {
        "weight": replace(plain, weights=replace(weights, weight=np.full((4, 3), 2, np.float32))),
        "bias": replace(plain, weights=replace(weights, bias=np.ones(4, np.float32))),
        "offsets": replace(plain, weights=replace(weights, offsets=weights.offsets[::-1])),
        "taps": replace(plain, weights=replace(weights, taps=3)),
        "relu": replace(plain, epilogue=replace(epilogue, activation=None)),
        "bound": replace(plain, epilogue=replace(epilogue, activation=Activation("bounded", (6.0,)))),
        "residual": replace(plain, epilogue=replace(epilogue, residual=True), residual=plain.y),
    }
    baked_steps._baked(plain, MACHINE)
    baked_steps._baked(other[change], MACHINE)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_anew_and_then_whole_again(folder: Path, damage: str) -> None:
    make_twice()
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes({"flip": whole[:-1] + b"\0", "cut": whole[:-1], "empty": b""}[damage])
    assert make_twice() == 1
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o704])
def test_a_folder_that_others_may_look_into_is_left_alone(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert make_twice() == 2
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert make_twice() == 2
    assert list(folder.iterdir()) == []


def test_a_link_in_place_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert make_twice() == 2


@pytest.mark.parametrize("named", ["", "FILE"])
def test_without_a_folder_everything_is_made_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "FILE").write_text("no folder")
    monkeypatch.setenv("ZEROSKIP_CACHE", named and str(tmp_path / named))
    assert make_twice() == 2


def test_it_is_a_private_folder_below_xdg_cache_home_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZEROSKIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make_twice() == 1
    assert (tmp_path / "zeroskip").stat().st_mode & 0o777 == 0o700


def test_a_full_disk_costs_nothing_but_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert make_twice() == 2


def test_the_entries_not_used_for_longest_go_first_and_other_files_stay(folder: Path) -> None:
    maker = Maker()
    for number in range(4):
        cached([], [bytes([number])], MACHINE, maker)
        for entry in folder.iterdir():
            os.utime(entry, ns=(0, entry.stat().st_mtime_ns - 10**9))
    (folder / "notes.txt").write_text("mine")
    cached([], [bytes([0])], MACHINE, maker)  # the oldest, but used just now
    size = next(folder.glob("*.code")).stat().st_size
    tidy(folder, most_bytes=2 * size, most_entries=4)
    assert len(list(folder.glob("*.code"))) == 2
    tidy(folder, most_bytes=100 * size, most_entries=1)
    assert maker.calls == 4
    cached([], [bytes([0])], MACHINE, maker)
    assert maker.calls == 4
    assert (folder / "notes.txt").read_text() == "mine"
