"""The writer of LLVM IR: each construction against NumPy, and the machine code for other processors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector, assembly, compile_function, detect
from zeroskip.run.linear.zero_weights import sell, spmm

HERE = detect()
LANES = HERE.vector_bytes // 4
V = Vector(LANES)
AVX2 = frozenset({"sse2", "sse4.1", "avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512vl", "avx512dq", "avx512bw"}


def run(f: Function, *arguments: np.ndarray | int) -> None:
    function = compile_function(f.text(HERE), f.name, HERE, len(arguments))
    function(*[each if isinstance(each, int) else each.ctypes.data for each in arguments])


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def one_vector(name: str, compute: Callable[[Function, str], str], x: np.ndarray) -> np.ndarray:
    """compute(function, vector of x) of one vector."""
    f, y = Function(name, {"x": POINTER, "y": POINTER}), np.zeros(LANES, np.float32)
    f.store(V, compute(f, f.load(V, "%x")), "%y")
    run(f, x, y)
    return y


def test_a_loop_from_2_below_11_in_steps_of_3_sees_2_5_8() -> None:
    f, seen = Function("loop", {"seen": POINTER, "stop": INTEGER}), np.zeros(11, np.float32)
    with f.loop(2, "%stop", 3) as index:
        f.store("float", "1.0", f.at("%seen", index))
    run(f, seen, 11)
    assert np.flatnonzero(seen).tolist() == [2, 5, 8]


def test_a_loop_that_starts_at_its_end_does_not_run() -> None:
    f, seen = Function("empty", {"seen": POINTER, "stop": INTEGER}), np.zeros(1, np.float32)
    with f.loop(0, "%stop"):
        f.store("float", "1.0", "%seen")
    run(f, seen, 0)
    assert seen[0] == 0


def test_loops_nest_and_a_slot_starts_anew_at_each_turn() -> None:
    f, sums = Function("nested", {"x": POINTER, "sums": POINTER}), np.zeros(3, np.float32)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with f.loop(0, 3) as row:
        total = f.slot("float", "0.0")
        with f.loop(0, 4) as column:
            value = f.load("float", f.at("%x", f.add(f.multiply(row, 4), column)))
            f.store("float", f.value(f"fadd float {f.load('float', total)}, {value}"), total)
        f.store("float", f.load("float", total), f.at("%sums", row))
    run(f, x, sums)
    assert sums.tolist() == x.sum(1).tolist()


def test_fields_of_8_bytes_hold_numbers_and_addresses() -> None:
    f = Function("fields", {"table": POINTER})
    number, target = f.fields("%table", [INTEGER, POINTER])
    f.store("float", "3.0", f.at(target, f.smaller(number, 5)))
    for number_given, place in ((2, 2), (9, 5)):
        y = np.zeros(8, np.float32)
        run(f, np.array([number_given, y.ctypes.data], np.int64))
        assert np.flatnonzero(y).tolist() == [place]


def test_multiply_add_rounds_once_where_the_processor_can_and_calls_no_library() -> None:
    x = np.full(LANES, 1 + 2**-12, np.float32)
    y = one_vector("fused", lambda f, v: f.multiply_add(V, v, v, f.splat(V, "-2.0")), x)
    fused = np.float32((1 + 2**-12) ** 2 - 2)  # x * x alone loses 2**-24
    can = "fma" in HERE.features or HERE.arch in ("aarch64", "arm64")
    assert y.tolist() == [float(fused if can else fused - np.float32(2**-24))] * LANES


def test_relu_gives_0_below_0_and_lets_nan_and_infinity_through() -> None:
    x = np.resize(floats(-1, 2, math.nan, -math.inf, math.inf, 0), LANES)
    y = one_vector("relu", lambda f, value: f.relu(V, value), x)
    np.testing.assert_array_equal(y, np.where(np.isnan(x), x, np.maximum(x, 0)))


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES, LANES + 5])
def test_masked_loads_and_stores_touch_the_first_count_lanes_only(count: int) -> None:
    f = Function("masked", {"x": POINTER, "y": POINTER, "count": INTEGER})
    mask = f.below(LANES, "%count")
    f.store_masked(V, mask, f.load_masked(V, mask, "%x"), "%y")
    x, y = np.arange(1, LANES + 1, dtype=np.float32), np.full(LANES, -1, np.float32)
    run(f, x, y, count)
    assert y.tolist() == [*x[:count], *[-1] * (LANES - count)]


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_transposed_exchanges_rows_and_columns(lanes: int) -> None:
    f = Function("transpose", {"x": POINTER, "y": POINTER})
    v = Vector(lanes)
    rows = [f.load(v, f.at("%x", row * lanes)) for row in range(lanes)]
    for row, value in enumerate(f.transposed(v, rows)):
        f.store(v, value, f.at("%y", row * lanes))
    x = np.random.default_rng(0).random((lanes, lanes), np.float32)
    y = np.zeros_like(x)
    run(f, x, y)
    np.testing.assert_array_equal(y, x.T)


def test_a_mistake_in_the_text_is_an_error_and_not_a_crash() -> None:
    f = Function("wrong", {"x": POINTER})
    f.value("fadd float %nothing, 1.0")
    with pytest.raises(RuntimeError, match="nothing"):
        compile_function(f.text(HERE), "wrong", HERE, 1)


@pytest.mark.parametrize("emit", [sell.emit, spmm.emit], ids=["sell", "spmm"])
@pytest.mark.parametrize(
    ("machine", "triple", "multiply_add"),
    [
        (Machine("arm", "aarch64", frozenset({"neon"}), 1, 16), "aarch64-linux-gnu", r"fmla\s+v\d+\.4s"),
        (Machine("avx2", "x86_64", AVX2, 1, 32), "x86_64-linux-gnu", r"vfmadd\d+ps\s.*%ymm"),
        (Machine("avx512", "x86_64", AVX512, 1, 64), "x86_64-linux-gnu", r"vfmadd\d+ps\s.*%zmm"),
    ],
    ids=["neon", "avx2", "avx512"],
)
def test_kernels_multiply_and_add_with_the_widest_vectors_of_each_processor(
    emit: Callable[..., Function], machine: Machine, triple: str, multiply_add: str
) -> None:
    code = assembly(emit(machine, relu=True).text(machine), machine, triple=triple)
    assert re.search(multiply_add, code)
    if "avx2" in machine.features and machine.vector_bytes == 32:
        assert "%zmm" not in code


def test_without_fma_the_kernels_still_compile_for_a_plain_x86_processor() -> None:
    plain = Machine("plain", "x86_64", frozenset({"sse2"}), 1, 16)
    code = assembly(sell.emit(plain, relu=False).text(plain), plain, triple="x86_64-linux-gnu")
    assert "ymm" not in code
    assert "mulps" in code
    assert "fmaf" not in code  # the C library's exact function, a hundred times slower
