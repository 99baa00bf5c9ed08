"""The compressed SqueezeNet that the authors of Deep Compression published.

Layout of the `.net` file, little endian, L layers with weights in the order of the prototxt:

    L x uint32    n, the stored entries of each layer
    then for each layer
        256 x float32      codebook; entry 0 is 0.0
        out x float32      biases
        n x uint8          codes
        ceil(n/2) bytes    n gaps of 4 bits, low half first: zeros since the entry before

A gap over 15 is bridged by entries whose code is 0. The shapes of the weights are in the prototxt only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from zeroskip import files
from zeroskip.codecs import relative
from zeroskip.errors import PackError

CODEBOOK = 256
GAP_BITS = 4
PASSING = ("ReLU", "Pooling", "Dropout")  # layers without weights that keep the number of channels
UNDERSTOOD = {"num_output", "kernel_size", "pad", "stride", "weight_filler", "bias_filler"}
DEEPEST = 16  # messages within messages
MOST_WEIGHTS = 1 << 28  # a hostile prototxt of a few bytes must not fill the memory

WeightShape = tuple[int, int, int, int]
Message: TypeAlias = dict[str, list["str | Message"]]
"""Field name -> its values in order: text (a number stays as it is written) or Messages."""

TOKEN = re.compile(r"""\s+|\#[^\n]*|(?P<token>"[^"\n]*"|'[^'\n]*'|[\w.+-]+|[{}:])""")


def read_deep_compression(net: str | Path, prototxt: str | Path) -> dict[str, Tensor]:
    """Weights (out, in, kh, kw) and biases (out,) of a `.net` file, float32, under the names of the prototxt.

    Names are Caffe's, e.g. "fire2/conv1x1_1.weight", which `models.SqueezeNet10` loads as they are.
    Raises PackError where either file is damaged, or one does not belong to the other; FileError where absent.
    Source: github.com/songhan/SqueezeNet-Deep-Compression, decode.py.

    >>> _ = Path("a.prototxt").write_text(
    ...     'input: "x" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1 layer { name: "c" type: "Convolution" '
    ...     'bottom: "x" top: "c" convolution_param { num_output: 1 kernel_size: 1 } }')
    >>> sizes, codebook, biases, codes, gaps = [1, 0, 0, 0], np.float32([0, 2] + 254 * [0]), np.float32([0.5]), [1], [0]
    >>> _ = Path("a.net").write_bytes(bytes(sizes) + codebook.tobytes() + biases.tobytes() + bytes(codes + gaps))
    >>> read_deep_compression("a.net", "a.prototxt")
    {'c.weight': tensor([[[[2.]]]]), 'c.bias': tensor([0.5000])}
    """
    try:
        shapes = weight_shapes(parse(files.read(prototxt).decode("ascii", errors="replace")))
    except PackError as fact:
        raise PackError(
            f"{prototxt} cannot be used: {fact}. Take the prototxt that came with {net}."
        ) from None
    try:
        return _decode(files.read(net), shapes)
    except PackError as fact:
        raise PackError(
            f"{net} cannot be unpacked: {fact}. Fetch it again, with the prototxt that came with it."
        ) from None


def parse(text: str) -> Message:
    """A message in protobuf's text format. Raises PackError where the text is none.

    >>> parse('layer { name: "conv1" } layer { name: "relu1" }')
    {'layer': [{'name': ['conv1']}, {'name': ['relu1']}]}
    """
    return _message(_tokens(text), "", DEEPEST)


def weight_shapes(network: Message) -> dict[str, WeightShape]:
    """Layer name -> shape (out, in, kh, kw) of its weight, for each convolution in order.

    Raises PackError for a layer of another kind, or one that reads what no layer before it makes.

    >>> weight_shapes(parse('''input: "x" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
    ...     layer { name: "conv1" type: "Convolution" bottom: "x" top: "conv1"
    ...             convolution_param { num_output: 4 kernel_size: 5 } }'''))
    {'conv1': (4, 3, 5, 5)}
    """
    dims = [_number(text) for text in network.get("input_dim", [])]
    if len(dims) != 4:
        raise PackError(f"its input should have 4 input_dim, not {len(dims)}")
    channels, shapes = {_text(network, "input"): dims[1]}, dict[str, WeightShape]()
    for layer in network.get("layer", []):
        name, kind = _text(layer, "name"), _text(layer, "type")
        inputs = [_known(channels, bottom, name) for bottom in _fields(layer, "bottom")]
        if name in shapes:
            raise PackError(f'it has two layers "{name}"')
        if kind == "Convolution" and len(inputs) == 1:
            shapes[name] = _convolution(_only(layer, "convolution_param"), inputs[0])
            inputs = [shapes[name][0]]
        elif not inputs or (kind != "Concat" and (kind not in PASSING or len(inputs) > 1)):
            raise PackError(f'layer "{name}" of type "{kind}" and {len(inputs)} inputs is not understood')
        channels[_text(layer, "top")] = sum(inputs)
    if not 0 < sum(map(math.prod, shapes.values())) <= MOST_WEIGHTS:
        raise PackError(f"its convolutions should have 1 to {MOST_WEIGHTS:,} weights")
    return shapes


def _decode(content: bytes, shapes: dict[str, WeightShape]) -> dict[str, Tensor]:
    if len(content) < 4 * len(shapes):
        raise PackError(f"{len(content):,} bytes cannot hold the sizes of {len(shapes)} layers")
    entries = np.frombuffer(content, "<u4", len(shapes)).tolist()
    parts = [4 * len(shapes)]
    for n, (out, *_) in zip(entries, shapes.values(), strict=True):
        parts += [4 * CODEBOOK, 4 * out, n, -(-n // 2)]
    if len(content) != sum(parts):
        raise PackError(f"its {len(shapes)} layers take {sum(parts):,} bytes, but there are {len(content):,}")
    ends = np.cumsum(parts).tolist()
    pieces = iter([content[start:end] for start, end in pairwise(ends)])
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        codebook, biases, codes, gaps = (next(pieces) for _ in range(4))
        try:
            weight = _weight(_floats(codebook), np.frombuffer(codes, np.uint8), gaps, shape)
            tensors |= {f"{name}.weight": weight, f"{name}.bias": torch.from_numpy(_floats(biases))}
        except PackError as fact:
            raise PackError(f'layer "{name}": {fact}') from None
    return tensors


def _weight(codebook: np.ndarray, codes: np.ndarray, packed: bytes, shape: WeightShape) -> Tensor:
    """codebook (256,), codes (n,), packed gaps (ceil(n/2),) -> weight of `shape`."""
    if codebook[:1].tobytes() != bytes(4):
        raise PackError(f"entry 0 of its codebook is {codebook[0]}, not 0, so bridges would be weights")
    both = np.frombuffer(packed, np.uint8)
    gaps = np.stack([both & 15, both >> 4], axis=1).reshape(-1)  # (2 * bytes,)
    if gaps[len(codes) :].any():
        raise PackError("the unused half of its last byte of gaps is not 0")
    placed = relative.decode(gaps[: len(codes)], codes, math.prod(shape), GAP_BITS)  # (elements,) codes
    return torch.from_numpy(codebook[placed].reshape(shape))


def _floats(data: bytes) -> np.ndarray:
    values = np.frombuffer(data, "<f4").astype(np.float32)  # a copy: torch wants memory it may write to
    if not np.isfinite(values).all():
        raise PackError("its codebook or its biases hold NaN or Inf")
    return values


def _convolution(options: str | Message, channels: int) -> WeightShape:
    if unknown := set(options) - UNDERSTOOD:
        raise PackError(f"the convolution option {', '.join(sorted(unknown))} is not understood")
    out, side = (_number(_text(options, field)) for field in ("num_output", "kernel_size"))
    return out, channels, side, side


def _known(channels: dict[str, int], bottom: str | Message, layer: str) -> int:
    if not isinstance(bottom, str) or bottom not in channels:
        raise PackError(f'layer "{layer}" reads {bottom!r}, which no layer before it makes')
    return channels[bottom]


def _fields(message: str | Message, field: str) -> list[str | Message]:
    return message.get(field, []) if isinstance(message, dict) else []


def _only(message: str | Message, field: str) -> str | Message:
    values = _fields(message, field)
    if len(values) != 1:
        raise PackError(f'"{field}" is there {len(values)} times, not once')
    return values[0]


def _text(message: str | Message, field: str) -> str:
    value = _only(message, field)
    if not isinstance(value, str):
        raise PackError(f'"{field}" is a message, not a word')
    return value


def _number(text: str | Message) -> int:
    # Nine digits are more than any size here, and few enough for every product to be exact and quick.
    if not isinstance(text, str) or not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        raise PackError(f"{text!r} is no size")
    return int(text)


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise PackError(
                f"line {text.count(chr(10), 0, place) + 1} has a {text[place]!r} that means nothing"
            )
        place = match.end()
        if match["token"]:
            yield match["token"]


def _message(tokens: Iterator[str], end: str, depth: int) -> Message:
    """Fields up to the token `end`; "" is the end of the text."""
    if not depth:
        raise PackError(f"more than {DEEPEST} messages lie within each other")
    fields: Message = {}
    while (name := next(tokens, "")) != end:
        if not re.fullmatch(r"\w+", name):
            raise PackError(f'"{name or "the end"}" is where a field should begin')
        fields.setdefault(name, []).append(_value(tokens, name, depth))
    return fields


def _value(tokens: Iterator[str], name: str, depth: int) -> str | Message:
    sign = next(tokens, "")
    value = next(tokens, "") if sign == ":" else sign
    if value == "{":
        return _message(tokens, "}", depth - 1)
    if sign != ":" or value in ("", "}", ":"):
        raise PackError(f'the field "{name}" has no value')
    return value[1:-1] if value[0] in "\"'" else value
