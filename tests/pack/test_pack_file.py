"""A `.zs` file is what `save` wrote, or it is refused: cut, altered, foreign and hostile files."""

from __future__ import annotations

import dataclasses
import tracemalloc
import zlib

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip import pack
from zeroskip.errors import FileError, PackError

GOLDEN_STATE = {
    "w": torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -0.0]]),
    "n": torch.tensor(7),
    "g": torch.tensor([0] * 299 + [5], dtype=torch.uint8),
}
GOLDEN = (
    bytes.fromhex("3800000000000000")
    + b'{"zs":{"dtype":"U8","shape":[53],"data_offsets":[0,53]}}'
    + bytes.fromhex("5a534b50 01 3c69e1c7 03")  # magic, version, CRC-32, 3 tensors
    + bytes.fromhex(
        "0177 08 020203 01 02  24  0000c03f 00000080"
    )  # "w": float32, 2 x 3, bitmask 001001, 2 kept
    + bytes.fromhex("016e 05 00 00 01  0700000000000000")  # "n": int64, no sides, dense, 1 non-zero
    + bytes.fromhex("0167 01 01ac02 08 01 02  ff2c  05")  # "g": uint8, 300, gaps8, 1 kept, 2 bytes: 255 + 44
)


def small_state() -> dict[str, torch.Tensor]:
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)) < 0.15
    weight = torch.arange(60.0).reshape(6, 10) * mask  # no negative weights, so no -0.0
    return {"fc.weight": weight, "fc.bias": torch.tensor([0.5, 0.0, -1.0]), "steps": torch.tensor(1234)}


SMALL = pack.to_bytes(pack.encode(small_state()))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def tensor(
    *, name=b"w", dtype=8, shape=(2, 2), coding=0, nonzeros=4, length=None, positions=b"", values=b"\x01" * 16
) -> bytes:
    """One tensor by the specification, nothing checked; as it stands, a good dense float32 of 2 x 2."""
    sides = varint(len(shape)) + b"".join(varint(side) for side in shape)
    counts = varint(nonzeros) + (b"" if length is None else varint(length))
    return varint(len(name)) + name + bytes([dtype]) + sides + bytes([coding]) + counts + positions + values


def file(*tensors: bytes, count: int | None = None, magic: bytes = b"ZSKP\x01", after: bytes = b"") -> bytes:
    """A whole file with a right checksum, so that only the check behind it can refuse it."""
    content = varint(len(tensors) if count is None else count) + b"".join(tensors) + after
    body = magic + zlib.crc32(magic + content).to_bytes(4, "little") + content
    return safetensors.numpy.save({"zs": np.frombuffer(body, np.uint8)})


def rewrapped(old: bytes, new: bytes) -> bytes:
    """A good file whose safetensors header has `new` for `old`, of another length if so."""
    data = file(tensor())
    header = data[8 : 8 + data[0]].replace(old, new)
    assert header != data[8 : 8 + data[0]]
    return len(header).to_bytes(8, "little") + header + data[8 + data[0] :]


BITMASK = {"coding": 1, "nonzeros": 2, "positions": b"\xa0", "values": b"\x01" * 8}
GAPS = {"coding": 4, "nonzeros": 2, "length": 1, "positions": b"\x01", "values": b"\x01" * 8}
HUGE = {"values": b"", "nonzeros": 0}

HOSTILE = {
    "fewer tensors than counted": (file(tensor(), count=2), "ends after"),
    "absurdly many tensors": (file(tensor(), count=2**34), "tensors are more than"),
    "a count without end": (file(count=2**35), "the number of tensors is longer than 5 bytes"),
    "bytes after the last tensor": (file(tensor(), after=b"!"), "1 bytes follow its last tensor"),
    "two tensors of one name": (file(tensor(), tensor()), 'two tensors "w"'),
    "a name that is not UTF-8": (file(tensor(name=b"\xff")), "not UTF-8"),
    "a name of 1,025 bytes": (file(tensor(name=b"a" * 1025)), "1,025 bytes of name are more than 1,024"),
    "the name of the ledger's rest": (file(tensor(name=b"(file)")), "a name is a text"),
    "an unknown dtype": (file(tensor(dtype=10)), 'tensor "w": dtype 10 is unknown'),
    "an unknown coding": (file(tensor(coding=9)), 'tensor "w": coding 9 is unknown'),
    "65 sides": (file(tensor(shape=(1,) * 65)), "65 sides are more than 64"),
    "a side of 2^32": (file(tensor(shape=(2**32,), **HUGE)), "elements are more than 2,147,483,648"),
    "2^32 elements": (
        file(tensor(shape=(2**16, 2**16), **HUGE)),
        "at most 64 sides and 2,147,483,648 elements",
    ),
    "no elements, absurd strides": (file(tensor(shape=(0, 2**31, 2**31), **HUGE)), "at most 64 sides"),
    "8 GB of dense values": (file(tensor(shape=(2**31,))), "ends after"),
    "256 MB of bitmask": (file(tensor(shape=(2**31,), coding=1, **HUGE)), "ends after"),
    "gaps longer than the file": (file(tensor(**GAPS | {"length": 2**30})), "bytes of gaps are more than"),
    "values that are not there": (file(tensor(values=b"")), "ends after"),
    "more non-zeros than elements": (file(tensor(nonzeros=5)), "5 non-zeros are more than 4"),
    "a zero among the dense values": (
        file(tensor(values=bytes(4) + b"\x01" * 12)),
        "3 of its values are not zero",
    ),
    "a zero among the kept values": (
        file(tensor(**BITMASK | {"values": bytes(8)})),
        "0 of its values are not zero",
    ),
    "a bitmask with a bit too many": (file(tensor(**BITMASK | {"positions": b"\xe0"})), "3 positions, not 2"),
    "a bitmask with a bit too few": (file(tensor(**BITMASK | {"positions": b"\x80"})), "1 positions, not 2"),
    "a bitmask with a bit after its end": (file(tensor(**BITMASK | {"positions": b"\xa8"})), "a bit is set"),
    "gaps beyond the last element": (file(tensor(**GAPS | {"positions": b"\x04"})), "position 5 of 4"),
    "gaps with a position too few": (file(tensor(**GAPS | {"positions": b"\x0f"})), "fewer than 2 positions"),
    "gaps with a byte too many": (
        file(tensor(**GAPS | {"positions": b"\x01\x00", "length": 2})),
        "more in 2 bytes",
    ),
    "a bool of 2": (
        file(tensor(dtype=0, shape=(1,), nonzeros=1, values=b"\x02")),
        "a bool is neither 0 nor 1",
    ),
    "a number spelled in more bytes than needed": (file(b"\x81\x00w" + tensor()[2:]), "it differs from"),
    "another magic": (file(tensor(), magic=b"ZSKQ\x01"), "no .zs file"),
    "a later version": (file(tensor(), magic=b"ZSKP\x02"), "format version is not 1"),
    "another name in the wrapper": (rewrapped(b'"zs"', b'"zt"'), "it differs from"),
    "another dtype in the wrapper": (rewrapped(b'"U8"', b'"I8"'), "it differs from"),
    "blanks in the wrapper": (rewrapped(b"}}", b"}}        "), "it differs from"),
    "a note in the wrapper": (rewrapped(b'{"zs"', b'{"__metadata__":{"a":"b"},"zs"'), "it differs from"),
}


@pytest.mark.parametrize(("data", "fact"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_with_a_right_checksum_is_refused_for_what_is_wrong_with_it(data, fact):
    with pytest.raises(PackError, match=fact):
        pack.from_bytes(data)


@pytest.mark.parametrize("parts", [{}, BITMASK, GAPS], ids=["dense", "bitmask", "gaps4"])
def test_the_hand_made_files_are_good_where_nothing_is_wrong(parts):
    ones = pack.decode(pack.from_bytes(file(tensor(**parts))))["w"]
    assert torch.count_nonzero(ones) == parts.get("nonzeros", 4)


@pytest.mark.parametrize("data", [data for data, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_refusing_a_hostile_file_takes_less_than_a_megabyte_of_memory(data):
    tracemalloc.start()
    with pytest.raises(PackError):
        pack.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_golden_file_of_three_tensors_is_written_and_read_byte_for_byte():
    packed = pack.encode(GOLDEN_STATE)
    assert pack.to_bytes(packed).hex(" ") == GOLDEN.hex(" ")
    assert pack.from_bytes(GOLDEN) == packed


def test_any_safetensors_reader_finds_one_tensor_of_bytes_in_a_zs_file(tmp_path):
    path = pack.save(pack.encode(small_state()), tmp_path / "model.zs")
    inside = safetensors.numpy.load_file(path)
    assert list(inside) == ["zs"]
    assert inside["zs"].tobytes()[:5] == b"ZSKP\x01"


def test_what_is_saved_loads_equal_and_the_ledger_sums_to_the_size_on_disk(tmp_path):
    packed = pack.encode(small_state())
    path = pack.save(packed, str(tmp_path / "new folder" / "model.zs"))
    assert pack.load(path) == packed
    assert path.stat().st_size == packed.stored_bytes
    assert {one.coding[:4] for one in packed.tensors} == {"dens", "bitm", "gaps"}


@pytest.mark.parametrize("length", range(len(pack.to_bytes(pack.encode(small_state())))))
def test_a_file_cut_at_any_byte_is_refused(length):
    with pytest.raises(PackError):
        pack.from_bytes(pack.to_bytes(pack.encode(small_state()))[:length])


@pytest.mark.parametrize("tail", [b"\0", b" ", b"more"])
def test_a_file_with_bytes_after_its_end_is_refused(tail):
    with pytest.raises(PackError, match="truncated or altered"):
        pack.from_bytes(pack.to_bytes(pack.encode(small_state())) + tail)


@settings(max_examples=2000, deadline=None)
@given(flips=st.dictionaries(st.integers(0, len(SMALL) - 1), st.integers(1, 255), min_size=1, max_size=4))
def test_2000_files_with_1_to_4_random_bytes_changed_are_all_refused(flips):
    altered = bytearray(SMALL)
    for place, flip in flips.items():
        altered[place] ^= flip
    with pytest.raises(PackError):
        pack.from_bytes(bytes(altered))


def test_every_single_bit_of_a_file_matters():
    good = pack.to_bytes(pack.encode(small_state()))
    for bit in range(8 * len(good)):
        altered = bytearray(good)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PackError):
            pack.from_bytes(bytes(altered))


@given(start=st.integers(0, 28), noise=st.binary(max_size=30), parts=st.sampled_from([{}, BITMASK, GAPS]))
def test_any_content_behind_a_right_checksum_is_refused_or_written_again_byte_for_byte(start, noise, parts):
    good = tensor(**parts)
    data = file(good[:start] + noise + good[start + len(noise) :])
    try:
        packed = pack.from_bytes(data)
    except PackError:
        return
    assert pack.to_bytes(packed) == data


FOREIGN = {
    "empty": b"",
    "text": b"not a model\n",
    "zip": b"PK\x03\x04" + bytes(40),
    "other safetensors": safetensors.numpy.save({"w": np.ones(3, np.float32)}),
    "absurd safetensors header": b"\xff" * 80,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_loading_a_foreign_file_says_which_file_it_is_and_what_to_do(tmp_path, content):
    path = tmp_path / "foreign.zs"
    path.write_bytes(content)
    with pytest.raises(
        PackError, match=r"foreign.zs: it is no .zs file. Give a file that `zeroskip pack` wrote"
    ):
        pack.load(path)


def test_loading_an_absent_file_or_a_folder_is_a_file_error(tmp_path):
    for path in (tmp_path / "absent.zs", tmp_path):
        with pytest.raises(FileError, match="cannot read"):
            pack.load(path)


def test_a_place_that_cannot_be_written_is_a_file_error_and_nothing_is_left_behind(tmp_path):
    packed = pack.encode(small_state())
    (tmp_path / "taken").write_text("a file, no folder")
    (tmp_path / "folder.zs").mkdir()
    for path in (tmp_path / "taken" / "model.zs", tmp_path / "folder.zs"):
        with pytest.raises(FileError, match="cannot"):
            pack.save(packed, path)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["folder.zs", "taken"]


def test_a_failed_save_leaves_the_older_file_as_it_was(tmp_path, monkeypatch):
    path = pack.save(pack.encode(small_state()), tmp_path / "model.zs")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="No space left"):
        pack.save(pack.encode({}), path)
    assert [one.name for one in tmp_path.iterdir()] == ["model.zs"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"values": bytes(4)}, "take 8 bytes, not 4"),
        ({"coding": "dense", "shape": (2,)}, "has no positions"),
        ({"nonzeros": 3, "values": b"\x01" * 12}, "2 positions, not 3"),
    ],
)
def test_a_packed_tensor_put_together_by_hand_is_checked_before_it_is_decoded(change, fact):
    packed = pack.from_bytes(file(tensor(**BITMASK)))
    (one,) = packed.tensors
    with pytest.raises(PackError, match=fact):
        pack.decode(dataclasses.replace(packed, tensors=(dataclasses.replace(one, **change),)))
