"""Activation functions in machine code against float64: all numbers of fp16, and a dense sample of fp32."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from run.drawn import MACHINES

from zeroskip.emit import INTEGER, POINTER, Function, Vector, activations, compile_function, detect
from zeroskip.emit.activation_tables import TABLES, looked_up, two_to_avx512
from zeroskip.emit.activations import EmittedActivation
from zeroskip.run.element import FP16

HERE = detect()
POWERS = (np.float64(2) ** np.arange(-149, 128)).astype(np.float32)
# Every 65,537th float by its bits (subnormals, infinities and NaN among them), and where functions bend.
BITS = np.arange(0, 1 << 32, 65_537, dtype=np.uint64).astype(np.uint32).view(np.float32)
BITS = np.where(np.isnan(BITS), np.float32(np.nan), BITS)  # NumPy warns of signalling ones
NEAR = np.concatenate([np.linspace(-110, 110, 40_001), np.linspace(-1, 1, 20_001)]).astype(np.float32)
ENDS = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 88.7, -87.4, -103.9], np.float32)
FLOATS = np.concatenate([BITS, NEAR, ENDS, POWERS, -POWERS]).astype(np.float32)
AVX512 = pytest.mark.skipif("avx512f" not in HERE.features, reason="this processor lacks AVX-512")
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def on_vectors(activation: EmittedActivation, x: np.ndarray, lanes: int = 16) -> np.ndarray:
    """The activation of each number, `lanes` at a time."""
    v = Vector(lanes, "half" if x.dtype == np.float16 else "float")
    f = Function("activation", {"x": POINTER, "y": POINTER, "count": INTEGER})
    with f.loop(0, "%count", lanes) as index:
        value = f.load(v, f.at("%x", index, v.element))
        f.store(v, activation(f, v, value), f.at("%y", index, v.element))
    run = compile_function(f.text(HERE), "activation", HERE, 3)
    padded = np.concatenate([x, np.zeros(-len(x) % lanes, x.dtype)])
    y = np.empty_like(padded)
    run(padded.ctypes.data, y.ctypes.data, len(padded))
    return y[: len(x)]


def sigmoid(x: np.ndarray) -> np.ndarray:
    falling = np.exp(-np.abs(x))
    return np.where(x < 0, falling, 1) / (1 + falling)


def normal(x: np.ndarray) -> np.ndarray:
    """The share of the normal distribution below x."""
    return np.vectorize(math.erfc)(-np.clip(x, -40, 40) / math.sqrt(2)) / 2


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


TANH_GELU = lambda x: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
Exact = Callable[[np.ndarray], np.ndarray]
# Function, its value in float64, PyTorch's for what is not finite, and how exact it is: units in the last place,
# share of the result, or share of max(1, |x|).
CASES: dict[str, tuple[EmittedActivation, Exact, Callable[[torch.Tensor], torch.Tensor], str, float]] = {
    "exp2": (activations.exp2, np.exp2, torch.exp2, "units", 4),
    "exp": (activations.exp, np.exp, torch.exp, "units", 4),
    "sigmoid": (activations.sigmoid, sigmoid, torch.sigmoid, "units", 4),
    "silu": (activations.silu, lambda x: x * sigmoid(x), torch.nn.functional.silu, "units", 4),
    "abs": (activations.magnitude, np.abs, torch.abs, "units", 0),
    "sqrt": (activations.sqrt, np.sqrt, torch.sqrt, "units", 0.5),
    "rsqrt": (activations.rsqrt, lambda x: 1 / np.sqrt(x), torch.rsqrt, "units", 1.5),
    "reciprocal": (activations.reciprocal, lambda x: 1 / x, torch.reciprocal, "units", 0.5),
    "square": (activations.square, np.square, torch.square, "units", 0.5),
    "cube": (activations.cube, lambda x: x**3, lambda x: torch.pow(x, 3), "units", 1.5),
    "tanh": (activations.tanh, np.tanh, torch.tanh, "share", 1e-6),
    "elu": (
        activations.elu(1.5),
        lambda x: np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0))),
        lambda x: torch.nn.functional.elu(x, 1.5),
        "share",
        1e-6,
    ),
    "gelu": (activations.gelu, lambda x: x * normal(x), torch.nn.functional.gelu, "input", 3e-7),
    "gelu_tanh": (
        activations.gelu_tanh,
        TANH_GELU,
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "input",
        2e-7,
    ),
    "softplus": (activations.softplus(), softplus, torch.nn.functional.softplus, "input", 2e-7),
    "mish": (
        activations.mish,
        lambda x: x * np.tanh(softplus(x)),
        torch.nn.functional.mish,
        "input",
        2e-7,
    ),
}


def errors(y: np.ndarray, exact: np.ndarray, x: np.ndarray, measure: str) -> np.ndarray:
    """How far numbers are from the exact ones, in what `measure` says."""
    distance, size = np.abs(y - exact), np.abs(exact)
    if measure == "units":
        return distance / 2.0 ** (np.floor(np.log2(np.maximum(size, 2.0**-126))) - 23)
    return distance / (np.maximum(1, np.abs(x)) if measure == "input" else np.maximum(size, 2.0**-126))


@pytest.mark.parametrize("name", CASES)
def test_every_activation_is_as_exact_as_it_says_over_a_dense_sample_of_floats(name: str) -> None:
    activation, function, _, measure, most = CASES[name]
    y = on_vectors(activation, FLOATS).astype(np.float64)
    with np.errstate(all="ignore"):
        x = FLOATS.astype(np.float64)
        exact = function(x)
        rounded = exact.astype(np.float32)
        finite = np.isfinite(x) & np.isfinite(rounded)
        assert errors(y, exact, x, measure)[finite].max() <= most
        beyond = np.isfinite(x) & ~np.isfinite(rounded) & (np.abs(exact) > 3.41e38)
    assert np.array_equal(y[beyond], rounded[beyond])


@AVX512
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_as_exact_as_they_say(name: str) -> None:
    x = FLOATS[np.isfinite(FLOATS)].astype(np.float64)
    y = on_vectors(lambda f, v, x: looked_up(f, v, name, x), x.astype(np.float32)).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = CASES[name][1](x)
    assert errors(y, np.where(np.isfinite(exact), exact, y), x, "input").max() <= 2e-7
    assert np.isnan(
        on_vectors(lambda f, v, x: looked_up(f, v, name, x), np.full(1, np.nan, np.float32))
    ).all()


@pytest.mark.parametrize(
    "power", [activations.two_to, pytest.param(two_to_avx512, marks=AVX512)], ids=["any", "AVX-512"]
)
def test_short_powers_of_two_up_to_1(power: EmittedActivation) -> None:
    x = np.linspace(-126, 0, 100_001).astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert (np.abs(on_vectors(power, x) - exact) / exact).max() < 4e-6
    assert (on_vectors(power, np.array([-200, -1e30, -np.inf], np.float32)) <= 2.0**-126).all()


@pytest.mark.parametrize("name", CASES)
def test_infinities_and_nan_become_what_the_limit_or_pytorch_says(name: str) -> None:
    activation, _, theirs, _, _ = CASES[name]
    x = np.array([np.inf, -np.inf, np.nan, -0.0], np.float32)
    expected = theirs(torch.from_numpy(x)).numpy()
    if name == "gelu":
        expected[0] = np.inf  # PyTorch's vectorized code gives NaN, its code for single numbers infinity
    np.testing.assert_array_equal(on_vectors(activation, x), expected)


def test_powers_of_what_is_not_positive_are_exact_and_0_below_the_normal_numbers() -> None:
    x = np.concatenate([np.linspace(-90, 0, 40_001), -POWERS, [-np.inf, np.nan, -0.0]]).astype(np.float32)
    y, exact = on_vectors(activations.exp_of_negative, x).astype(np.float64), np.exp(x.astype(np.float64))
    near = x >= -87
    assert errors(y, exact, x, "units")[near].max() <= 4
    assert not y[x < -87].any()
    assert np.isnan(y[np.isnan(x)]).all()


@pytest.mark.skipif(not FP16.is_readable(HERE), reason="the processor cannot read fp16")
@pytest.mark.parametrize("name", CASES)
def test_every_number_of_half_precision_is_rounded_once(name: str) -> None:
    activation, _, _, _, _ = CASES[name]
    with np.errstate(all="ignore"):
        wide = on_vectors(activation, HALVES.astype(np.float32))
        np.testing.assert_array_equal(on_vectors(activation, HALVES, lanes=32), wide.astype(np.float16))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_the_code_is_written_for_every_machine(machine: object) -> None:
    f = Function("activation", {"x": POINTER})
    v = Vector(4)
    f.store(v, activations.gelu(f, v, f.load(v, "%x")), "%x")
    assert "llvm.fmuladd.v4f32" in f.text(machine)  # type: ignore[arg-type]
