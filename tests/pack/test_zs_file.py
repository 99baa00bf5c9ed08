"""A `.zs` file is what `save` wrote, or it is refused: cut, altered, foreign and hostile files."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zs_bytes import file_of, refused_or_written_again

from zeroskip import pack
from zeroskip.codecs import arithmetic, huffman
from zeroskip.errors import FileError, PackError

GOLDEN_STATE = {
    "w": torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, -0.0]]),
    "n": torch.tensor(7),
    "g": torch.tensor([0] * 299 + [5], dtype=torch.uint8),
    "c": torch.tensor([0.5, -0.5, 0.0, 0.5] * 3),
    "h": torch.tensor([0, 0, 3.0] * 60 + [0, -2.0] * 6 + [0, 0, 0, 0, 0, 0, 0, 9.0, 4.0]),
}
GOLDEN = (
    bytes.fromhex("4000000000000000")
    + b'{"zs":{"dtype":"U8","shape":[114],"data_offsets":[0,114]}}      '
    + bytes.fromhex("5a534b50 02 79df3891 05")  # magic, version, CRC-32, 5 tensors
    # "w": float32 exact, 2 x 3, bitmask 001001, 2 kept
    + bytes.fromhex("0177 08 020203 01 02  24  cdcccc3d 00000080")
    # "n": int64 exact, no sides, dense, 1 non-zero
    + bytes.fromhex("016e 05 00 00 01  0700000000000000")
    # "g": uint8 exact, 300, gaps of 8 bits, 1 kept, 1 escape: 255 + 44
    + bytes.fromhex("0167 01 01ac02 08 01 01  ff2c  05")
    # "c": float32 in codes of fixed width, codebook of float16, 12, bitmask 1101 1101 1101, 9 kept, 2 levels,
    # 0.5 and -0.5, codes 010 010 010
    + bytes.fromhex("0163 58 010c 01 09 02  0038 00b8  ddd0  4900")
    # "h": float32 in Huffman codes, codebook of float16, 201, Huffman codes of gaps of 2 bits, 68 kept, 2 escapes,
    # 11 bytes of positions, 4 levels, 10 bytes of values
    + bytes.fromhex("0168 68 01c901 11 44 02 0b 04 0a")
    # gaps 0 ... 3 have codes of 3, 2, 1, 3 bits: 010 (+1), 011 (-1), 011 (-1), 00101 (+2); the values 1, 3, 3, 2:
    # 011 (-1), 00101 (+2), 1 (0), 011 (-1)
    + bytes.fromhex("4d94 65b0")
    + bytes.fromhex("0042 0044 8048 00c0")  # 3, 4, 9, -2 (as unsigned integers they increase)
    + bytes.fromhex(
        "00000000000000 0aaafec0"
    )  # 60 x 0 (gap 2), 6 x 10 (gap 1), 111 111 10 (gap 7), 110 (gap 0)
    + bytes.fromhex("00000000000000 0aaaf8")  # 60 x 0 (3.0), 6 x 10 (-2.0), 111 (9.0), 110 (4.0)
)


def small_state() -> dict[str, torch.Tensor]:
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)) < 0.15
    weight = torch.arange(60.0).reshape(6, 10) * mask  # no negative weights, so no -0.0
    return {
        "fc.weight": weight,
        "fc.bias": torch.tensor([0.1, 0.0, -0.7]),
        "steps": torch.tensor(1234),
        "shared": GOLDEN_STATE["h"],
    }


SMALL = pack.to_bytes(pack.encode(small_state()))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def tensor(
    *,
    name=b"w",
    kind=8,
    shape=(2, 2),
    coding=0,
    fields=(4,),
    tables=b"",
    book=b"",
    positions=b"",
    values=b"\1" * 16,
) -> bytes:
    """One tensor by the specification, nothing checked; as it stands, a good dense float32 of 2 x 2."""
    sides = varint(len(shape)) + b"".join(varint(side) for side in shape)
    header = varint(len(name)) + name + bytes([kind]) + sides + bytes([coding])
    return header + b"".join(map(varint, fields)) + tables + book + positions + values


def file(*tensors: bytes, count: int | None = None, magic: bytes = b"ZSKP\x02", after: bytes = b"") -> bytes:
    """A whole file with a right checksum, so that only the check behind it can refuse it."""
    content = varint(len(tensors) if count is None else count) + b"".join(tensors) + after
    return file_of(content, magic)


def rewrapped(old: bytes, new: bytes) -> bytes:
    """A good file whose safetensors header has `new` for `old`, of another length if so."""
    data = file(tensor())
    header = data[8 : 8 + data[0]].replace(old, new)
    assert header != data[8 : 8 + data[0]]
    return len(header).to_bytes(8, "little") + header + data[8 + data[0] :]


ONE_TWO = np.array([1, 2], "<f4").tobytes()
BITMASK = {"coding": 1, "fields": (2,), "positions": b"\xa0", "values": b"\x01" * 8}
GAPS = {"coding": 4, "fields": (2, 0), "positions": b"\x01", "values": b"\x01" * 8}
CODES = {"kind": 8 + 16, "fields": (4, 2), "book": ONE_TWO, "values": b"\x50"}
HALVES = {"kind": 8 + 16 + 64, "fields": (4, 2), "book": np.array([1, 2], "<f2").tobytes(), "values": b"\x50"}
HUFFMAN = {  # gaps 0 and 1, codes 0 and 1: tables 011 1 00100 010 and 1 1
    "kind": 8 + 32,
    "coding": 17,
    "fields": (2, 0, 1, 2, 1),
    "tables": b"\x72\x20\xc0",
    "book": ONE_TWO,
    "positions": b"\x40",
    "values": b"\x40",
}
JOINT_DATA = arithmetic.encode(np.array([[True, False], [True, False]]), np.array([0, 1]), 2)
JOINT = {
    "kind": 8 + 48,
    "coding": 32,
    "fields": (2, 0, 2, len(JOINT_DATA)),
    "book": ONE_TWO,
    "values": JOINT_DATA,
}
PLACES_DATA = arithmetic.encode(np.array([[True, False], [True, False]]), np.array([0, 0]), 1)
PLACES = {
    "coding": 32,
    "fields": (2, len(PLACES_DATA)),
    "positions": PLACES_DATA,
    "values": b"\x01" * 8,
}
GOOD = {
    "dense": {},
    "bitmask": BITMASK,
    "gaps4": GAPS,
    "codes": CODES,
    "halves": HALVES,
    "huffman": HUFFMAN,
    "joint": JOINT,
    "places": PLACES,
}
HUGE = {"values": b"", "fields": (0,)}


def bad(parts: dict, **changes: object) -> bytes:
    return file(tensor(**parts | changes))


HOSTILE = {
    "fewer tensors than counted": (file(tensor(), count=2), "ends after"),
    "absurdly many tensors": (file(tensor(), count=2**34), "tensors are more than"),
    "a count without end": (file(count=2**35), "the number of tensors is longer than 5 bytes"),
    "bytes after the last tensor": (file(tensor(), after=b"!"), "1 bytes follow its last tensor"),
    "two tensors of one name": (file(tensor(), tensor()), 'two tensors "w"'),
    "a name that is not UTF-8": (bad({}, name=b"\xff"), "not UTF-8"),
    "a name of 1,025 bytes": (bad({}, name=b"a" * 1025), "1,025 bytes of name are more than 1,024"),
    "the name of the ledger's rest": (bad({}, name=b"(file)"), "a name is a text"),
    "an unknown dtype": (bad({}, kind=10), 'tensor "w": dtype 10 is unknown'),
    "an unknown coding": (bad({}, coding=33), 'tensor "w": coding 33 is unknown'),
    "a codebook's mark without one": (bad({}, kind=8 + 64), "it differs from"),
    "the eighth bit of the kind": (
        bad(CODES, kind=8 + 16 + 128),
        "it differs from",
    ),
    "65 sides": (bad({}, shape=(1,) * 65), "65 sides are more than 64"),
    "a side of 2^32": (bad(HUGE, shape=(2**32,)), "elements are more than 2,147,483,648"),
    "2^32 elements": (bad(HUGE, shape=(2**16, 2**16)), "at most 64 sides and 2,147,483,648 elements"),
    "no elements, absurd strides": (bad(HUGE, shape=(0, 2**31, 2**31)), "at most 64 sides"),
    "8 GB of dense values": (bad({}, shape=(2**31,)), "ends after"),
    "256 MB of bitmask": (bad(HUGE, shape=(2**31,), coding=1), "ends after"),
    "1 GB of gaps": (bad(GAPS, shape=(2**31,), fields=(2**31, 0)), "ends after"),
    "2 billion escapes": (bad(GAPS, shape=(2**31,), fields=(2, 2**31)), "ends after"),
    "escapes that are not there": (
        bad(GAPS, fields=(2, 1), positions=b"\x01\x00"),
        "lead to 3 positions, not 2",
    ),
    "an escape that is not counted": (bad(GAPS, positions=b"\xf1"), "lead to 1 positions, not 2"),
    "an escape after the last": (bad(GAPS, fields=(2, 1), positions=b"\x01\xf0"), "or on from the last"),
    "values that are not there": (bad({}, values=b""), "ends after"),
    "more non-zeros than elements": (bad({}, fields=(5,)), "5 non-zeros are more than 4"),
    "a zero among the dense values": (bad({}, values=bytes(4) + b"\1" * 12), "3 of its values are not zero"),
    "a zero among the kept values": (bad(BITMASK, values=bytes(8)), "0 of its values are not zero"),
    "a bitmask with a bit too many": (bad(BITMASK, positions=b"\xe0"), "3 positions, not 2"),
    "a bitmask with a bit too few": (bad(BITMASK, positions=b"\x80"), "1 positions, not 2"),
    "a bitmask with a bit after its end": (bad(BITMASK, positions=b"\xa8"), "a bit is set"),
    "gaps beyond the last element": (bad(GAPS, positions=b"\x04"), "position 5 of 4"),
    "gaps of 3 bits with a bit after their end": (
        bad(GAPS, coding=3, positions=b"\x05"),
        "2 gaps take 6 bits",
    ),
    "a bool of 2": (bad({}, kind=0, shape=(1,), fields=(1,), values=b"\2"), "a bool is neither 0 nor 1"),
    "no levels": (bad(CODES, fields=(4, 0), book=b""), "0 bytes are no codebook of float32"),
    "65,537 levels": (bad(CODES, fields=(4, 65_537)), "65,537 levels are more than 65,536"),
    "levels that are not there": (bad(CODES, fields=(4, 60_000)), "ends after"),
    "a codebook that does not increase": (bad(CODES, book=ONE_TWO[:4] * 2), "do not increase"),
    "a codebook of half an int": (bad(HALVES, kind=4 + 16 + 64), "no codebook of int32"),
    "a codebook of half a bfloat16": (bad(HALVES, kind=7 + 16 + 64), "no codebook of bfloat16"),
    "a zero in the codebook of the kept": (
        bad(BITMASK, kind=8 + 16, fields=(2, 2), book=bytes(4) + ONE_TWO[:4], values=b"\x40"),
        "1 of its values are not zero, but 2 should be",
    ),
    "a code beyond the codebook": (
        bad(CODES, fields=(4, 3), book=ONE_TWO + b"\0\0\0\x41", values=b"\x1b"),
        "a code is 3, and its codebook has 3 entries",
    ),
    "a bit after the last code": (bad(CODES, values=b"\x51"), "4 codes take 4 bits, and there is more"),
    "codes that are not there": (bad(CODES, shape=(2**31,), fields=(2**31, 2)), "ends after"),
    "a bool of 2 in a codebook": (
        bad(CODES, kind=0 + 16, fields=(4, 2), book=b"\1\2"),
        "a bool is neither 0 nor 1",
    ),
    "a Huffman table without an end": (
        bad(HUFFMAN, tables=b"", book=b"", positions=b"", values=b""),
        "ends in",
    ),
    "a Huffman table of no code": (bad(HUFFMAN, tables=b"\x7c\xc0"), "no complete code"),
    "another spelling of a Huffman table": (bad(HUFFMAN, tables=b"\x72\x21\xc0"), "not spelled as"),
    "Huffman codes of 13 bits": (
        bad(HUFFMAN, tables=b"\x0b\x80"),  # 11 more than 2
        "a Huffman code is 13 bits long",
    ),
    "a number of 6,000 digits in a Huffman table": (
        bad(HUFFMAN, coding=31, tables=bytes(2500) + b"\xff" * 2501),
        "larger than any that it can hold",
    ),
    "a table of 65,536 gaps that are not there": (
        bad(
            HUFFMAN, kind=8, coding=31, fields=(0, 0, 0), tables=b"\x20\x00\x04\x00\x00", book=b"", values=b""
        ),
        "a Huffman table, and no Huffman codes",
    ),
    "a table of 2 values that are not there": (
        bad(
            BITMASK, kind=8 + 32, fields=(0, 2, 0), tables=b"\xc0", book=ONE_TWO, positions=b"\0", values=b""
        ),
        "a Huffman table, and no Huffman codes",
    ),
    "a Huffman table for more symbols": (bad(HUFFMAN, tables=b"\x72\x38\xc0"), "not spelled as"),
    "Huffman positions too short": (bad(HUFFMAN, fields=(2, 0, 0, 2, 1)), "too few for 2 Huffman codes"),
    "2 billion Huffman codes": (
        bad(HUFFMAN, shape=(2**31,), fields=(2**31, 0, 1, 2, 1)),
        "too few for 2,147,483,648",
    ),
    "Huffman values with a bit too many": (bad(HUFFMAN, values=b"\x48"), "2 Huffman codes take 2 bits"),
    "Huffman gaps beyond the last element": (
        bad(HUFFMAN, shape=(2, 1), positions=b"\x40"),
        "the gaps lead to position 2 of 2",
    ),
    "Huffman bytes longer than the file": (bad(HUFFMAN, fields=(2, 0, 1, 2, 2**30)), "are more than"),
    "arithmetic values without positions": (
        bad(CODES, kind=8 + 48, fields=(4, 2, 1), values=b"\x50"),
        "hold the positions too",
    ),
    "arithmetic values with positions": (
        bad(JOINT, fields=(2, 1, 2, len(JOINT_DATA)), positions=b"!"),
        "hold the positions too",
    ),
    "arithmetic codes of other positions": (
        bad(PLACES, fields=(3, len(PLACES_DATA)), values=b"\1" * 12),
        "not 3",
    ),
    "arithmetic codes and a byte": (
        bad(JOINT, fields=(2, 0, 2, len(JOINT_DATA) + 1), values=JOINT_DATA + b"!"),
        "too few, too many or altered|contradict",
    ),
    "arithmetic rows too long": (
        bad(PLACES, shape=(2, 2**20 + 1), fields=(2, 3000), positions=bytes(3000)),
        "rows of 1,048,577 elements are too long",
    ),
    "a megabyte of arithmetic zeros": (bad(JOINT, shape=(2**20,)), "too few for 1,048,576 elements"),
    "a number spelled in more bytes than needed": (file(b"\x81\x00w" + tensor()[2:]), "it differs from"),
    "another magic": (file(tensor(), magic=b"ZSKQ\x02"), "no .zs file"),
    "an earlier version": (file(tensor(), magic=b"ZSKP\x01"), "format version is not 2"),
    "another name in the wrapper": (rewrapped(b'"zs"', b'"zt"'), "it differs from"),
    "another dtype in the wrapper": (rewrapped(b'"U8"', b'"I8"'), "it differs from"),
    "blanks in the wrapper": (rewrapped(b"}}", b"}}        "), "it differs from"),
    "a note in the wrapper": (rewrapped(b'{"zs"', b'{"__metadata__":{"a":"b"},"zs"'), "it differs from"),
}
ARITHMETIC = [name for name in HOSTILE if name.startswith("arithmetic codes")]  # their model takes megabytes


@pytest.mark.parametrize(("data", "fact"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_with_a_right_checksum_is_refused_for_what_is_wrong_with_it(data, fact):
    with pytest.raises(PackError, match=fact):
        pack.from_bytes(data)


@pytest.mark.parametrize("parts", GOOD.values(), ids=GOOD.keys())
def test_the_hand_made_files_are_good_where_nothing_is_wrong(parts):
    found = pack.decode(pack.from_bytes(file(tensor(**parts))))["w"]
    assert torch.count_nonzero(found) == parts.get("fields", (4,))[0]
    if "book" in parts:
        assert found.tolist() == ([[1, 2], [1, 2]] if torch.count_nonzero(found) == 4 else [[1, 0], [2, 0]])


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ARITHMETIC])
def test_refusing_a_hostile_file_takes_less_than_a_megabyte_of_memory(name):
    data, _ = HOSTILE[name]
    with pytest.raises(PackError):
        pack.from_bytes(data)  # once before, so that what is compiled on first use is not counted
    tracemalloc.start()
    with pytest.raises(PackError):
        pack.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_file_s_huffman_tables_are_parsed_once(monkeypatch):
    read, parsed = huffman.read_table, []
    monkeypatch.setattr(huffman, "read_table", lambda *given: parsed.append(given[1]) or read(*given))
    pack.from_bytes(GOLDEN)
    assert parsed == [4, 4]


def test_a_golden_file_of_five_tensors_is_written_and_read_byte_for_byte():
    packed = pack.encode(GOLDEN_STATE)
    assert pack.to_bytes(packed).hex(" ") == GOLDEN.hex(" ")
    assert pack.from_bytes(GOLDEN) == packed


def test_any_safetensors_reader_finds_one_tensor_of_bytes_in_a_zs_file(tmp_path):
    path = pack.save(pack.encode(small_state()), tmp_path / "model.zs")
    inside = safetensors.numpy.load_file(path)
    assert list(inside) == ["zs"]
    assert inside["zs"].tobytes()[:5] == b"ZSKP\x02"


def test_what_is_saved_loads_equal_and_the_ledger_sums_to_the_size_on_disk(tmp_path):
    packed = pack.encode(small_state())
    path = pack.save(packed, str(tmp_path / "new folder" / "model.zs"))
    assert pack.load(path) == packed
    assert path.stat().st_size == packed.stored_bytes
    codings = {(one.coding.rstrip("0123456789"), one.values_coding) for one in packed.tensors}
    assert codings == {("dense", "exact"), ("bitmask", "exact"), ("gaps", "fixed"), ("huffman", "huffman")}


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


@settings(deadline=None, max_examples=400)
@given(start=st.integers(0, 40), noise=st.binary(max_size=30), parts=st.sampled_from(list(GOOD.values())))
def test_any_content_behind_a_right_checksum_is_refused_or_written_again_byte_for_byte(start, noise, parts):
    good = tensor(**parts)
    refused_or_written_again(file(good[:start] + noise + good[start + len(noise) :]))


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
        ({"tables": b"\xc0"}, "1 bytes follow its Huffman tables"),
        (
            {"values_coding": "fixed", "codebook_dtype": "float32", "codebook": b"123"},
            "3 bytes are no codebook",
        ),
    ],
)
def test_a_packed_tensor_put_together_by_hand_is_checked_before_it_is_decoded(change, fact):
    packed = pack.from_bytes(file(tensor(**BITMASK)))
    (one,) = packed.tensors
    with pytest.raises(PackError, match=fact):
        pack.decode(dataclasses.replace(packed, tensors=(dataclasses.replace(one, **change),)))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"dtype": "complex64"}, "dtype 'complex64' is unknown"),
        ({"coding": "zip"}, "coding 'zip' is unknown"),
        ({"coding": "gaps33"}, "coding 'gaps33' is unknown"),
        ({"coding": "huffman1"}, "coding 'huffman1' is unknown"),
        ({"values_coding": "zip"}, "coding of values 'zip' is unknown"),
        ({"values_coding": "fixed", "codebook_dtype": ""}, "dtype of a codebook '' is unknown"),
        ({"values_coding": "fixed", "codebook_dtype": "int9"}, "dtype of a codebook 'int9' is unknown"),
        (
            {"shape": (-2, -2)},
            r"shape \(-2, -2\), 2 non-zeros, 0 escapes and 0 blocks are not all whole numbers",
        ),
        ({"shape": (2.0, 2)}, "not all whole numbers"),
        ({"nonzeros": -1}, "-1 non-zeros"),
        ({"coding": "gaps4", "escapes": -1}, "-1 escapes"),
    ],
)
def test_a_packed_tensor_of_unknown_kinds_or_negative_counts_is_neither_decoded_nor_written(change, fact):
    packed = pack.from_bytes(file(tensor(**BITMASK)))
    made = dataclasses.replace(packed, tensors=(dataclasses.replace(packed.tensors[0], **change),))
    for function in (pack.decode, pack.to_bytes):
        with pytest.raises(PackError, match=fact):
            function(made)
