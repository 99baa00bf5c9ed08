"""The bytes of a saved program are those that were written, or are refused; what is shared is stored once."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import run
from zeroskip.errors import EngineError
from zeroskip.run import program_bytes
from zeroskip.run.dense import pytorch
from zeroskip.run.program_bytes import opened, sealed


@cache
def saved() -> bytes:
    """A whole saved program, as small as they get: a little over a thousand bytes."""
    program = run.compile(nn.Linear(2, 1), torch.ones(1, 2), kernels=[pytorch.KERNEL])
    return run.save(program, Path("tiny.program")).read_bytes()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_program_with_any_single_bit_flipped_is_refused() -> None:
    whole, accepted = bytearray(saved()), []
    opened(bytes(whole))
    for bit in range(8 * len(whole)):
        whole[bit // 8] ^= 1 << bit % 8
        try:
            opened(bytes(whole))
            accepted.append(bit)
        except EngineError:
            pass
        whole[bit // 8] ^= 1 << bit % 8
    assert accepted == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_other_damage_is_refused_in_our_words(data: st.DataObject) -> None:
    whole = saved()
    start, length = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 20))
    other = data.draw(st.binary(max_size=20))
    damaged = whole[:start] + other + whole[start + length :]  # cut, put in, appended or changed
    Path("damaged").write_bytes(damaged)
    if damaged != whole:
        with pytest.raises(EngineError, match="damaged holds no program that can run here: it is"):
            run.load("damaged")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1])
def test_a_file_cut_off_is_refused(length: int) -> None:
    with pytest.raises(EngineError, match="it is "):
        opened(saved()[:length])


def test_a_weight_or_a_word_exchanged_within_the_format_is_refused() -> None:
    length = int.from_bytes(saved()[:8], "little")
    content = json.loads(saved()[8 : 8 + length])["__metadata__"]
    tensors = safetensors.torch.load(saved())
    first = next(iter(tensors))
    other_weight = safetensors.torch.save(tensors | {first: tensors[first] + 1}, content)
    other_word = safetensors.torch.save(
        tensors, {key: text.replace('"batch"', '"bench"') for key, text in content.items()}
    )
    for forged in (other_weight, other_word):
        with pytest.raises(EngineError, match="its checksum does not match"):
            opened(forged)


def test_a_version_of_the_future_is_named() -> None:
    with pytest.raises(EngineError, match="it is of version 3, and this zeroskip reads 1 and 2"):
        opened(safetensors.torch.save({}, {program_bytes.KEY: '{"version": 3}'}))


def test_bytes_without_a_program_are_refused() -> None:
    for foreign in (b"", b"PK\x03\x04" * 9, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"):
        with pytest.raises(EngineError, match="it is "):
            opened(foreign)


def test_shared_memory_is_stored_once_and_is_shared_again() -> None:
    matrix, row = torch.randn(200, 300), torch.randn(7)
    given_tensors = {
        "embedding": matrix,
        "decoder": matrix,
        "transposed": matrix.t(),
        "parameter": nn.Parameter(row),
        "part": matrix[:100],
        "equal by chance": row.clone(),
    }
    data = sealed({}, given_tensors)
    again = opened(data)[1]
    assert len(data) < 4 * (matrix.numel() + matrix.numel() // 2 + 2 * row.numel()) + 1500
    assert all(torch.equal(again[name], tensor) for name, tensor in given_tensors.items())
    shared = {again[name].data_ptr() for name in ("embedding", "decoder", "transposed")}
    assert len(shared) == 1
    assert again["equal by chance"].data_ptr() != again["parameter"].data_ptr()
    assert sealed({}, again) == data


LAID = {
    "row by row": torch.randn(3, 4, 5, 6),
    "pixel by pixel": torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).t(),
    "with gaps": torch.randn(6, 8)[::2, ::4],
    "expanded": torch.randn(3, 1).expand(3, 5),
    "a number": torch.tensor(1.5),
    "nothing": torch.zeros(0, 4),
    "bf16": torch.randn(4, 3).bfloat16().t(),
    "whole numbers": torch.arange(6).view(2, 3),
}


@pytest.mark.parametrize("kind", LAID)
def test_tensors_come_back_as_they_lay_in_memory(kind: str) -> None:
    tensor = LAID[kind]
    again: Tensor = opened(sealed({}, {"x": tensor}))[1]["x"]
    assert again.dtype is tensor.dtype
    assert torch.equal(again, tensor)
    if kind not in ("with gaps", "expanded"):
        assert again.stride() == tensor.stride()


def test_a_weight_of_two_layers_is_one_weight_in_the_file() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.decoder = nn.Embedding(500, 32), nn.Linear(32, 500, bias=False)
            self.decoder.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.words(x))

    model, x = Tied().eval(), torch.randint(0, 500, (2, 3))
    path = run.save(run.compile(model, x, kernels=[pytorch.KERNEL]), "tied.program")
    assert 4 * 500 * 32 < path.stat().st_size < 4 * 500 * 32 * 1.2
    assert torch.equal(run.load(path)(x), model(x))
