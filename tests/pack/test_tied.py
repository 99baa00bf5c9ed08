"""Tied tensors, as layers that share a weight have them: stored once, and every file that says so checked."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zs_bytes import file_of, refused_or_written_again

from zeroskip import pack, prune, retrain
from zeroskip.concepts import Packed
from zeroskip.errors import PackError


def tied_network() -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict({"table": nn.Embedding(9, 4), "middle": nn.Linear(4, 4), "last": nn.Linear(4, 9)})
    model["last"].weight = model["table"].weight
    return model


def state() -> dict[str, torch.Tensor]:
    weight = torch.tensor([[0.1, 0.0], [0.0, 2.0]])
    return {"a": weight, "n": torch.tensor(7), "b": weight, "c": weight.view(2, 2)}


TIED = pack.to_bytes(pack.encode(state()))
GOLDEN_BODY = (
    # 2 tensors: "a", float32 exact, 2 x 2, dense, 2 non-zeros; "n", int64 exact, dense
    bytes.fromhex("02  0161 08 020202 01 02  90  cdcccc3d 00000040")
    + bytes.fromhex("016e 05 00 00 01  0700000000000000")
    # 2 ties, "b" and "c", to tensor 0
    + bytes.fromhex("02  0162 00  0163 00")
)


def file(content: bytes, version: int = 3) -> bytes:
    """A file of this content with a right checksum."""
    return file_of(content, b"ZSKP" + bytes([version]))


def test_a_golden_file_of_two_tensors_and_two_ties_is_written_and_read_byte_for_byte() -> None:
    assert file(GOLDEN_BODY) == TIED
    packed = pack.from_bytes(TIED)
    assert packed.tied == {"b": "a", "c": "a"}
    assert pack.to_bytes(packed) == TIED


def test_tied_tensors_come_back_under_every_name_as_one_tensor() -> None:
    decoded = pack.decode(pack.from_bytes(TIED))
    assert {name: tensor.tolist() for name, tensor in decoded.items()} == {
        name: tensor.tolist() for name, tensor in state().items()
    }
    assert decoded["a"] is decoded["b"] is decoded["c"]


def test_a_network_with_a_tied_matrix_takes_its_bytes_once_and_loads_everywhere(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = tied_network()
    sparse = retrain.as_sparse(model)
    packed = pack.encode(sparse)
    apart = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name_bytes = 1 + len("last.weight") + 1
    assert packed.ledger["last.weight"] == {
        "values": 0, "positions": 0, "codebook": 0, "scales": 0, "tables": 0, "header": name_bytes
    }  # fmt: skip
    assert pack.encode(apart).stored_bytes - packed.stored_bytes > 9 * 4 * 4 - name_bytes
    path = pack.save(packed, tmp_path / "tied.zs")
    assert path.stat().st_size == packed.stored_bytes == sum(sum(e.values()) for e in packed.ledger.values())
    other = tied_network()
    with torch.no_grad():
        other["table"].weight.zero_()
    other.load_state_dict(pack.decode(pack.load(path)))
    assert all(torch.equal(tensor, apart[name]) for name, tensor in other.state_dict().items())
    assert list(pack.decode(packed)) == [
        "table.weight",
        "middle.weight",
        "middle.bias",
        "last.bias",
        "last.weight",
    ]


def test_a_masked_tied_network_is_stored_once_after_it_is_released() -> None:
    model = prune.hold_(tied_network(), {"table": torch.rand(9, 4) < 0.5})
    held = pack.decode(pack.encode(model))
    packed = pack.encode(prune.release_(model))
    assert packed.tied == {"last.weight": "table.weight"}
    assert all(torch.equal(held[name], tensor) for name, tensor in pack.decode(packed).items())


def test_without_ties_a_file_is_of_version_2_whatever_else_shares_memory() -> None:
    row = torch.arange(8.0)
    complexes = torch.complex(row, row)
    views = {"rows": row.view(2, 4), "columns": row.view(4, 2), "start": row[:4], "end": row[4:]}
    views |= {"bits": row.view(torch.int32), "empty": torch.zeros(0), "none": torch.zeros(0)}
    views |= {"imaginary": complexes.imag, "negated": complexes.conj().imag}  # lazily: one memory
    packed = pack.encode(views)
    assert packed.tied == {}
    data = pack.to_bytes(packed)
    assert data[data.index(b"ZSKP") + 4] == 2
    decoded = pack.decode(pack.from_bytes(data))
    assert all(torch.equal(decoded[name], tensor) for name, tensor in views.items())


HOSTILE = {
    "a tie to a tensor that is not there": (
        GOLDEN_BODY[:-1] + b"\2",
        "2 tensors before a tied one are more than 1",
    ),
    "a tie to a tie": (GOLDEN_BODY[:-7] + b"\2\1b\0\1c\3", "3 tensors before a tied one are more than 1"),
    "two ties of one name": (GOLDEN_BODY.replace(b"\1c\0", b"\1b\0"), 'two tensors "b"'),
    "a tie with a tensor's name": (GOLDEN_BODY.replace(b"\1c\0", b"\1n\0"), 'two tensors "n"'),
    "a tie to itself": (GOLDEN_BODY.replace(b"\1b\0", b"\1a\0"), 'two tensors "a"'),
    "no ties": (GOLDEN_BODY[:-7] + b"\0", "differs from what"),
    "ties left out": (GOLDEN_BODY[:-7], "ends after"),
    "fewer ties than it says": (GOLDEN_BODY[:-3], "ends after"),
    "more bytes": (GOLDEN_BODY + b"\0", "1 bytes follow its last tensor"),
    "a long index": (GOLDEN_BODY[:-1] + b"\x80\0", "differs from what"),
    "a name of 300 bytes that ends": (GOLDEN_BODY[:-7] + b"\1\xac\2b", "ends after"),
    "a name that is no text": (GOLDEN_BODY.replace(b"\1b\0", b"\1\xff\0"), "is not UTF-8"),
    "the ledger's own name": (GOLDEN_BODY[:-7] + b"\1\6(file)\0", 'not "(file)"'),
    "a tie, no tensor": (b"\0\1\1b\0", '"b" is tied to a tensor, and there is none'),
}


@pytest.mark.parametrize(("content", "fact"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_tie_with_a_right_checksum_is_refused_for_what_is_wrong_with_it(
    content: bytes, fact: str
) -> None:
    with pytest.raises(PackError) as refused:
        pack.from_bytes(file(content))
    assert fact in str(refused.value)


def test_ties_in_a_file_of_version_2_are_bytes_too_many() -> None:
    with pytest.raises(PackError, match="7 bytes follow its last tensor"):
        pack.from_bytes(file(GOLDEN_BODY, version=2))
    with pytest.raises(PackError, match="format version is not 2, 3 or 4"):
        pack.from_bytes(file(GOLDEN_BODY, version=5))
    with pytest.raises(PackError, match="differs from what"):
        pack.from_bytes(file(GOLDEN_BODY, version=4))


def test_every_single_bit_of_a_file_with_ties_matters() -> None:
    for place in range(len(TIED)):
        for bit in range(8):
            changed = bytearray(TIED)
            changed[place] ^= 1 << bit
            with pytest.raises(PackError):
                pack.from_bytes(bytes(changed))


@pytest.mark.parametrize("length", range(len(TIED)))
def test_a_file_with_ties_cut_at_any_byte_is_refused(length: int) -> None:
    with pytest.raises(PackError):
        pack.from_bytes(TIED[:length])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(GOLDEN_BODY)), st.binary(max_size=12))
def test_any_ties_behind_a_right_checksum_are_refused_or_written_again_byte_for_byte(
    start: int, noise: bytes
) -> None:
    packed = refused_or_written_again(file(GOLDEN_BODY[:start] + noise + GOLDEN_BODY[start + len(noise) :]))
    assert packed is None or set(pack.decode(packed)) == {one.name for one in packed.tensors} | set(
        packed.tied
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_any_choice_of_ties_comes_back(which: list[int]) -> None:
    tensors = [torch.arange(6.0), torch.zeros(2, 2), torch.tensor(True), torch.ones(3, dtype=torch.float16)]
    given_ = {f"t{index}": tensors[choice] for index, choice in enumerate(which)}
    packed = pack.encode(given_)
    assert len(packed.tensors) == len(set(which))
    decoded = pack.decode(pack.from_bytes(pack.to_bytes(packed)))
    assert all(torch.equal(decoded[name], tensor) for name, tensor in given_.items())
    assert sum(sum(entry.values()) for entry in packed.ledger.values()) == len(pack.to_bytes(packed))


@pytest.mark.parametrize(
    ("name", "tensor", "fact"),
    [
        ("b", "nowhere", "tied to 'nowhere', which is not stored"),
        ("a", "a", "'a' is stored, so it cannot be tied"),
        ("(file)", "a", "(file)"),
        ("b" * 1025, "a", "at most 1,024 bytes"),
    ],
)
def test_ties_put_together_by_hand_are_checked_before_they_are_written(
    name: str, tensor: str, fact: str
) -> None:
    whole = pack.encode({"a": torch.ones(2)})
    with pytest.raises(PackError, match=re.escape(fact)):
        pack.to_bytes(Packed(whole.tensors, whole.ledger, {name: tensor}))
    if tensor == "nowhere":
        with pytest.raises(PackError, match="tied to 'nowhere', which is not there"):
            pack.decode(Packed(whole.tensors, whole.ledger, {name: tensor}))
