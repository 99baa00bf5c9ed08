"""The authors' SqueezeNet file: read exactly, and refused in words where it is damaged."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from zeroskip.errors import FileError, PackError
from zeroskip.pack import deep_compression_file

PROTOTXT = """
name: "Small"  # a comment
input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param: { pool: MAX kernel_size: 3 } }
layer { name: 'f/left' type: "Convolution" bottom: "pool1" top: "f/left"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "f/right" type: "Convolution" bottom: "pool1" top: "f/right"
  convolution_param { num_output: 3 kernel_size: 1 pad: 0 } }
layer { name: "f" type: "Concat" bottom: "f/left" bottom: "f/right" top: "f" }
layer { name: "drop" type: "Dropout" bottom: "f" top: "f" dropout_param { dropout_ratio: 0.5 } }
layer { name: "last" type: "Convolution" bottom: "f" top: "last"
  convolution_param { num_output: 7 kernel_size: 2 } }
"""
SHAPES = {"conv1": (4, 3, 3, 3), "f/left": (2, 4, 1, 1), "f/right": (3, 4, 1, 1), "last": (7, 5, 2, 2)}


def tensors(sparsity: float = 0.9) -> dict[str, torch.Tensor]:
    """Random weights of few distinct values, and biases, for SHAPES."""
    random = np.random.default_rng(0)
    made: dict[str, torch.Tensor] = {}
    for name, shape in SHAPES.items():
        values = random.normal(size=9).astype(np.float32)
        weight = random.choice(values, shape) * (random.random(shape) >= sparsity)
        made[f"{name}.weight"] = torch.from_numpy(weight.astype(np.float32))
        made[f"{name}.bias"] = torch.from_numpy(random.normal(size=shape[0]).astype(np.float32))
    return made


def entries(weight: torch.Tensor, codebook: list[float]) -> tuple[list[int], list[int]]:
    """Codes and gaps of one layer, entry by entry as the paper tells it."""
    codes, gaps, zeros = [], [], 0
    for value in weight.flatten().tolist():
        if value == 0.0:
            zeros += 1
            continue
        while zeros > 15:
            codes.append(0)
            gaps.append(15)
            zeros -= 16
        codes.append(codebook.index(value))
        gaps.append(zeros)
        zeros = 0
    return codes, gaps


def written(made: dict[str, torch.Tensor]) -> bytes:
    """A `.net` file, written independently of the reader."""
    heads, bodies = b"", b""
    for name in SHAPES:
        weight = made[f"{name}.weight"]
        codebook = [0.0, *(value for value in weight.unique().tolist() if value != 0.0)]
        codes, gaps = entries(weight, codebook)
        nibbles = [*gaps, 0] if len(gaps) % 2 else gaps
        heads += struct.pack("<I", len(codes))
        bodies += struct.pack("<256f", *codebook, *[0.0] * (256 - len(codebook)))
        bodies += struct.pack(f"<{len(made[f'{name}.bias'])}f", *made[f"{name}.bias"].tolist())
        bodies += bytes(codes) + bytes(
            low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True)
        )
    return heads + bodies


NET = written(tensors())


def read(folder: Path, net: bytes = NET, prototxt: str = PROTOTXT) -> dict[str, torch.Tensor]:
    (folder / "a.net").write_bytes(net)
    (folder / "a.prototxt").write_text(prototxt)
    return deep_compression_file.read_deep_compression(folder / "a.net", folder / "a.prototxt")


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_what_was_written_is_read_to_the_bit(tmp_path: Path, sparsity: float) -> None:
    made = tensors(sparsity)
    found = read(tmp_path, written(made))
    assert list(found) == list(made)
    for name, tensor in made.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(
            found[name].view(torch.int32), (tensor + 0.0).view(torch.int32)
        )  # +0.0, never -0.0


def test_shapes_follow_from_the_prototxt() -> None:
    assert deep_compression_file.weight_shapes(deep_compression_file.parse(PROTOTXT)) == SHAPES


def test_text_format_is_read_with_comments_and_both_quotes_and_repeated_fields() -> None:
    text = """a: 1 # one\n a: "two words" b { c: 'x' d {} } e: -1.5e-3 f: MAX g: { h: true } """
    assert deep_compression_file.parse(text) == {
        "a": ["1", "two words"],
        "b": [{"c": ["x"], "d": [{}]}],
        "e": ["-1.5e-3"],
        "f": ["MAX"],
        "g": [{"h": ["true"]}],
    }


LAYER = (
    'input: "d" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9 layer { name: "c" bottom: "d" top: "c" '
)
SIZES = "num_output: 2 kernel_size: 1"
BAD_TEXTS = {
    "empty": ("", "4 input_dim, not 0"),
    "open brace": ("layer {", 'the end" is where a field should begin'),
    "closing brace": ("}", '"}" is where a field should begin'),
    "value without a name": ('"conv1"', "is where a field should begin"),
    "field without a value": ("name:", 'the field "name" has no value'),
    "field of two colons": ("name: : 3", 'the field "name" has no value'),
    "word without a colon": ("name conv1", 'the field "name" has no value'),
    "quote without end": ('a: 1\nname: "conv', "line 2 has a '\"' that means nothing"),
    "deep": ("a {" * 100_000, "more than 16 messages lie within each other"),
    "number for a layer": ("input_dim: 1 " * 4 + 'input: "d" layer: 3', '"name" is there 0 times'),
    "message for a size": ("input_dim { } " * 4, "{} is no size"),
    "no layers": ('input: "d"' + " input_dim: 1" * 4, "should have 1 to 268,435,456 weights"),
    "unknown layer": (LAYER + 'type: "InnerProduct" }', 'layer "c" of type "InnerProduct" and 1 inputs'),
    "unknown input": (LAYER.replace('bottom: "d"', 'bottom: "x"') + "}", '"type" is there 0 times'),
    "unknown bottom": (
        LAYER.replace('bottom: "d"', 'bottom: "x"') + 'type: "ReLU" }',
        "reads 'x', which no layer",
    ),
    "no bottom": (LAYER.replace('bottom: "d"', "") + 'type: "Concat" }', 'type "Concat" and 0 inputs'),
    "two bottoms": (LAYER + 'bottom: "d" type: "ReLU" }', 'type "ReLU" and 2 inputs'),
    "message for a name": (LAYER.replace('name: "c"', "name { }") + 'type: "ReLU" }', '"name" is a message'),
    "no parameters": (LAYER + 'type: "Convolution" }', '"convolution_param" is there 0 times'),
    "groups": (
        LAYER + f'type: "Convolution" convolution_param {{ {SIZES} group: 2 }} }}',
        "the convolution option group is not understood",
    ),
    "no kernel": (
        LAYER + 'type: "Convolution" convolution_param { num_output: 2 } }',
        '"kernel_size" is there 0',
    ),
    "no outputs": (
        LAYER + 'type: "Convolution" convolution_param { num_output: 0 kernel_size: 1 } }',
        "'0' is no size",
    ),
    "negative": (
        LAYER + 'type: "Convolution" convolution_param { num_output: -2 kernel_size: 1 } }',
        "'-2' is no size",
    ),
    "huge": (
        LAYER + 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 99999 } }',
        "should have 1 to 268,435,456 weights",
    ),
    "beyond numbers": (
        LAYER + f'type: "Convolution" convolution_param {{ num_output: {"9" * 5000} kernel_size: 1 }} }}',
        "is no size",
    ),
    "the same layer twice": (
        PROTOTXT.replace("f/right", "f/left"),
        'it has two layers "f/left"',
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_prototxt_that_cannot_be_used_says_why(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PackError, match=words) as fact:
        read(tmp_path, prototxt=text)
    assert "a.prototxt cannot be used" in str(fact.value)


def at_layer(index: int) -> int:
    """Where the codebook of a layer begins."""
    sizes = struct.unpack_from("<4I", NET)
    before = zip(sizes[:index], [out for out, *_ in SHAPES.values()], strict=False)
    return 16 + sum(1024 + 4 * out + n + -(-n // 2) for n, out in before)


def patched(place: int, content: bytes) -> bytes:
    return NET[:place] + content + NET[place + len(content) :]


FIRST = struct.unpack_from("<I", NET)[0]  # entries of conv1
CODES = 16 + 1024 + 4 * 4  # where its codes begin
ODD = next(index for index, n in enumerate(struct.unpack_from("<4I", NET)) if n % 2)
BAD_NETS = {
    "empty": (b"", "0 bytes cannot hold the sizes of 4 layers"),
    "only the sizes": (NET[:16], "bytes, but there are 16"),
    "one byte less": (NET[:-1], "bytes, but there are"),
    "one byte more": (NET + b"\0", "bytes, but there are"),
    "another size": (patched(0, struct.pack("<I", FIRST + 2)), "bytes, but there are"),
    "the largest size": (patched(0, b"\xff\xff\xff\xff"), "bytes, but there are"),
    "bridges that are weights": (
        patched(16, struct.pack("<f", 0.5)),
        'layer "conv1": entry 0 of its codebook is 0.5',
    ),
    "a negative zero": (patched(16, struct.pack("<f", -0.0)), "entry 0 of its codebook is -0.0"),
    "NaN in a codebook": (
        patched(20, struct.pack("<f", np.nan)),
        'layer "conv1": its codebook or its biases hold NaN',
    ),
    "Inf in a bias": (patched(16 + 1024, struct.pack("<f", np.inf)), "its biases hold NaN or Inf"),
    "positions beyond the end": (
        patched(CODES, b"\1" * FIRST + b"\xff" * (FIRST // 2)),
        "position .* of 108",
    ),
    "half a byte too many": (
        patched(at_layer(ODD + 1) - 1, b"\xff"),
        "unused half of its last byte|position",
    ),
}


@pytest.mark.parametrize(("net", "words"), BAD_NETS.values(), ids=BAD_NETS)
def test_a_net_file_that_is_damaged_says_where(tmp_path: Path, net: bytes, words: str) -> None:
    with pytest.raises(PackError, match=words) as fact:
        read(tmp_path, net)
    assert "a.net cannot be unpacked" in str(fact.value)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a.prototxt"):
        deep_compression_file.read_deep_compression(tmp_path / "a.net", tmp_path / "a.prototxt")


def outcome(folder: Path, net: bytes, prototxt: bytes) -> dict[str, torch.Tensor] | None:
    """What is read, or None where it is refused; anything else is a crash."""
    (folder / "a.net").write_bytes(net)
    (folder / "a.prototxt").write_bytes(prototxt)
    try:
        return deep_compression_file.read_deep_compression(folder / "a.net", folder / "a.prototxt")
    except PackError:
        return None


SAME_FOLDER = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SAME_FOLDER
@given(length=st.integers(0, len(NET) - 1))
def test_every_truncated_net_file_is_refused(tmp_path: Path, length: int) -> None:
    assert outcome(tmp_path, NET[:length], PROTOTXT.encode()) is None


@SAME_FOLDER
@given(place=st.integers(0, len(NET) - 1), value=st.integers(0, 255))
def test_a_net_file_with_any_byte_changed_is_refused_or_read_whole(
    tmp_path: Path, place: int, value: int
) -> None:
    found = outcome(tmp_path, patched(place, bytes([value])), PROTOTXT.encode())
    if found is not None:
        assert {
            name.removesuffix(".weight"): tuple(one.shape) for name, one in found.items() if one.ndim == 4
        } == SHAPES
        assert all(torch.isfinite(one).all() for one in found.values())


@SAME_FOLDER
@given(place=st.integers(0, len(PROTOTXT) - 1), value=st.integers(0, 255))
def test_a_prototxt_with_any_byte_changed_is_refused_or_read(tmp_path: Path, place: int, value: int) -> None:
    text = PROTOTXT.encode()
    found = outcome(tmp_path, NET, text[:place] + bytes([value]) + text[place + 1 :])
    assert found is None or sum(one.ndim == 4 for one in found.values()) == 4


@SAME_FOLDER
@given(length=st.integers(0, len(PROTOTXT.rstrip()) - 1))
def test_every_truncated_prototxt_is_refused(tmp_path: Path, length: int) -> None:
    assert outcome(tmp_path, NET, PROTOTXT.rstrip()[:length].encode()) is None


@SAME_FOLDER
@given(text=st.text(alphabet='ab1{}: "#\n', max_size=60))
def test_any_text_is_a_message_or_refused(text: str) -> None:
    try:
        found = deep_compression_file.parse(text)
    except PackError:
        return
    assert all(isinstance(values, list) and values for values in found.values())


@pytest.fixture
def published() -> Path:
    """The authors' files without their endings."""
    stem = Path(os.environ.get("ZEROSKIP_DATA", "absent")) / "weights" / "squeezenet_v10"
    if not stem.with_name("squeezenet_v10_deep_compression.net").is_file():
        pytest.skip("the published SqueezeNet is absent: set ZEROSKIP_DATA to the parent of weights/")
    return stem


@pytest.mark.real_data
def test_the_published_squeezenet_is_read_to_the_bit_with_415_921_weights_left(published: Path) -> None:
    found = deep_compression_file.read_deep_compression(
        f"{published}_deep_compression.net", f"{published}_deploy.prototxt"
    )
    wanted = load_file(f"{published}_deep_compression.safetensors")
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name].view(torch.int32), wanted[name].view(torch.int32)) for name in wanted)
    weights = [one for name, one in found.items() if name.endswith("weight")]
    assert sum(int(torch.count_nonzero(one)) for one in weights) == 415_921
    assert max(len(one.unique()) for one in weights) == 256  # 255 shared values and zero
