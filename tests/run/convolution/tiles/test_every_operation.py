"""Every operation on tiles, on maps of any size, at every width of vectors, in fp32 and fp16, against float64.

Pools, sums and convolutions are in files of their own (test_random_windows.py, test_random_convolutions.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from byhand import (
    active,
    both,
    mean,
    norm,
    of_two,
    padded,
    permuted,
    plain,
    prelu,
    relu,
    rolled,
    shuffled,
    sliced,
    upsampled,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES
from run.drawn import HERE, MACHINES
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Machine
from zeroskip.graph import Node
from zeroskip.run.convolution.tiles.activation import NUMBERS, Activation, activation_of
from zeroskip.run.element import FP16, FP32, Element

Host = tuple[Machine, Element]
HOST = st.sampled_from([(one, FP32) for one in MACHINES] + [(one, FP16) for one in HALF_MACHINES])
SIDES = st.one_of(st.integers(1, 3), st.integers(1, 30))
NEAR = {FP32.name: 4e-6, FP16.name: 2**-8}  # of the largest number

ACTIVATIONS = {
    "relu": {},
    "relu6": {},
    "hardtanh": {"min_val": -0.5, "max_val": 1.5},
    "clamp": {"min": -1.0, "max": 0.5},
    "clamp_min": {"min": 0.25},
    "clamp_max": {"max": 0.25},
    "leaky_relu": {"negative_slope": 0.2},
    "silu": {},
    "gelu": {"approximate": "none"},
    "sigmoid": {},
    "tanh": {},
    "hardswish": {},
    "hardsigmoid": {},
    "mish": {},
    "elu": {"alpha": 0.7, "scale": 1.0, "input_scale": 1.0},
    "selu": {},
    "celu": {"alpha": 0.5},
    "softplus": {"beta": 2.0, "threshold": 20.0},
    "abs": {},
    "exp": {},
    "square": {},
    "pow": {"exponent": 3},
}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """As PyTorch's, which refuses groups of one number."""
    parts = x.reshape(len(x), groups, -1)
    away = parts - parts.mean(2, keepdim=True)
    y = (away / (away.square().mean(2, keepdim=True) + 1e-3).sqrt()).reshape(x.shape)
    return y * weight[:, None, None] + bias[:, None, None]


@dataclass(frozen=True)
class Case:
    """An operation (the last of these nodes) on "y", which "x" becomes: from outside, or a scale on tiles."""

    nodes: tuple[Node, ...]
    shape: tuple[int, int, int, int]
    seed: int
    kind: str


KINDS = ("activation", "layer_norm", "group_norm", "instance_norm", "prelu", "two", "pixel", "mean", "scale", "slice",
         "pad", "roll", "nearest", "bilinear", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle")  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(SIDES), draw(SIDES)
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 999))
    if kind == "pixel_shuffle":
        shape = shape[0], 4 * draw(st.integers(1, 5)), *shape[2:]
    if kind == "pixel_unshuffle":
        shape = *shape[:2], 2 * draw(st.integers(1, 9)), 2 * draw(st.integers(1, 9))
    if kind == "pad":
        shape = *shape[:2], max(2, shape[2]), max(2, shape[3])
    channels = shape[1]
    scale = norm("y", "x", normal(channels, seed=seed), normal(channels, seed=seed + 1))
    # Norms of few numbers make their rounding up to 30 times as large: what they read is exact in fp16.
    first = [scale] if "norm" not in kind and draw(st.booleans()) else [relu("y", "x")]
    return Case((*first, *draw(operation(kind, shape))), shape, seed, kind)


@st.composite
def operation(draw: st.DrawFn, kind: str, shape: tuple[int, int, int, int]) -> Sequence[Node]:
    channels = shape[1]
    factors = {"weight": normal(channels, seed=5), "bias": normal(channels, seed=6)}
    if kind == "activation":
        op = draw(st.sampled_from([*ACTIVATIONS]))
        return [active("z", "y", op, **ACTIVATIONS[op])]
    if kind == "layer_norm":
        function = lambda x: functional.layer_norm(
            x, [channels], factors["weight"].double(), factors["bias"].double(), 1e-3
        )
        given = {"normalized_shape": [channels], "eps": 1e-3, **factors}
        inner = plain("norm", "layer_norm.default", ["first"], function, **given)
        return [
            permuted("first", "y", 0, 2, 3, 1),
            inner,
            permuted("back", "norm", 0, 3, 1, 2),
            active("z", "back", "silu"),
        ]
    if kind in ("group_norm", "instance_norm"):
        divisors = [each for each in range(1, channels + 1) if channels % each == 0]
        groups = channels if kind == "instance_norm" else draw(st.sampled_from(divisors))
        function = lambda x: group_norm(x, groups, factors["weight"].double(), factors["bias"].double())
        given = {"eps": 1e-3, **factors} | (
            {"num_groups": groups} if kind == "group_norm" else {"use_input_stats": True}
        )
        return [plain("z", f"{kind}.default", ["y"], function, **given)]
    if kind == "prelu":
        return [prelu("z", "y", normal(draw(st.sampled_from([1, channels])), seed=3))]
    if kind == "two":
        return [
            of_two(
                "z",
                draw(st.sampled_from(["mul", "sub", "maximum", "minimum", "add"])),
                *draw(st.permutations("xy")),
            )
        ]
    if kind == "pixel":
        pair = draw(st.permutations(["y", "pixel"]))
        return [mean("pixel", "x"), of_two("z", draw(st.sampled_from(["mul", "maximum", "add"])), *pair)]
    if kind == "mean":
        return [mean("z", "y", keepdim=draw(st.booleans())), active("after", "z", "tanh")]
    if kind == "scale":
        numbers = draw(
            st.sampled_from([1.7, normal(channels, 1, 1, seed=4), normal(1, channels, 1, 1, seed=4)])
        )
        how = draw(st.sampled_from(["mul", "add", "sub", "div"]))
        exact = numbers.double() if isinstance(numbers, Tensor) else numbers
        given = {"other": numbers, **({"alpha": 1} if how in ("add", "sub") else {})}
        return [plain("z", f"{how}.Tensor", ["y"], lambda x: getattr(torch, how)(x, exact), **given)]
    # What takes all that is there is no operation, so another one follows.
    return [draw(movement(kind, shape)), active("after", "z", "tanh")]


@st.composite
def movement(draw: st.DrawFn, kind: str, shape: tuple[int, int, int, int]) -> Node:
    _, channels, height, width = shape
    if kind == "slice":
        dim = draw(st.integers(1, 3))
        start = draw(st.integers(0, shape[dim] - 1))
        return sliced(
            "z", "y", dim, slice(start, draw(st.integers(start + 1, shape[dim])), draw(st.integers(1, 3)))
        )
    if kind == "pad":
        mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
        amounts = [draw(st.integers(0, side - 1)) for side in (width, width, height, height)]
        more = draw(st.sampled_from([[], [1, 2]])) if mode == "constant" else []
        return padded("z", "y", amounts + more, mode, draw(st.sampled_from([0.0, -1.5])))
    if kind == "roll":
        return rolled(
            "z",
            "y",
            (draw(st.integers(-9, 9)), draw(st.integers(-9, 9))),
            draw(st.sampled_from([(2, 3), (1, 3)])),
        )
    if kind in ("nearest", "bilinear"):
        return upsampled("z", "y", (draw(st.integers(1, 4)), draw(st.integers(2, 3))), kind)
    if kind == "channel_shuffle":
        divisors = [each for each in range(1, channels + 1) if channels % each == 0]
        return shuffled("z", "y", kind, draw(st.sampled_from(divisors)))
    return shuffled("z", "y", kind, 2)


def assert_near(case: Case, host: Host, behind: bool | None) -> None:
    machine, element = host
    nodes, x = list(case.nodes), normal(*case.shape, seed=case.seed).half().float()
    _, [(ours, exact)] = both(nodes, {"x": x}, machine, behind=behind, element=element)
    assert ours.shape == exact.shape
    size = 1 + max(float(exact.abs().max()), 4.0)
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=NEAR[element.name] * size)


@settings(max_examples=40, deadline=None)
@given(case=cases(), host=HOST, behind=st.sampled_from([True, False, None]))
def test_40_operations_compute_what_pytorch_does(case: Case, host: Host, behind: bool | None) -> None:
    assert_near(case, host, behind)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(case=cases(), host=HOST, behind=st.sampled_from([True, False, None]))
def test_3000_more_operations_compute_what_pytorch_does(case: Case, host: Host, behind: bool | None) -> None:
    assert_near(case, host, behind)


SPECIAL = torch.tensor(
    [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, 3e4, -3e4, 1.0, -1.0, 88.8, -88.8]
)
NOT_OF_ALL_NUMBERS = ("sqrt", "rsqrt", "reciprocal")
EVERY = [*ACTIVATIONS, *NOT_OF_ALL_NUMBERS, "gelu by tanh"]


def named(words: str, source: str) -> Node:
    if words == "gelu by tanh":
        return active("z", source, "gelu", approximate="tanh")
    return active("z", source, words, **ACTIVATIONS.get(words, {}))


def test_these_are_all_activations_that_tiles_know() -> None:
    kinds = {
        activation.kind for words in EVERY if (activation := activation_of(named(words, "x"))) is not None
    }
    assert kinds == {*NUMBERS}


@pytest.mark.parametrize("words", EVERY)
def test_nan_and_infinities_go_through_every_activation_as_through_pytorchs(words: str) -> None:
    x = SPECIAL.reshape(1, 1, 1, -1).expand(1, 2, 3, -1).contiguous()
    for element in (FP32, FP16):
        if element == FP16 and not HALF_MACHINES:
            continue
        machine = HERE if element == FP32 else HALF_MACHINES[0]
        given = x if element == FP32 else x.half().float()
        _, [(ours, exact)] = both([named(words, "x")], {"x": given}, machine, element=element)
        near = NEAR[element.name]
        # What ends beyond the numbers that there are is infinite.
        exact = exact.to(torch.float32 if element == FP32 else torch.float16).double()
        torch.testing.assert_close(ours.double(), exact, rtol=near, atol=near, equal_nan=True)


def test_an_activation_over_0_and_one_of_another_value_stay_with_pytorch() -> None:
    over_zero = active("z", "x", "softplus", beta=0.0, threshold=20.0)
    assert activation_of(over_zero) is None
    assert activation_of(plain("z", "clamp.Tensor", ["x", "low"], torch.clamp)) is None
    assert activation_of(active("z", "x", "clamp", min=0.0, max=None)) == Activation("relu")
