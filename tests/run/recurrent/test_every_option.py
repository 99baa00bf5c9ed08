"""Recurrent operations of all options compute what PyTorch does, in all kernels and in memory of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES
from run.guard_pages import all_memory_guarded, by_side, guarded_copy
from run.recurrent.operations import (
    CELLS,
    KINDS,
    assert_close,
    built,
    first_states,
    module_of,
    operation,
    options,
    sparse,
)  # fmt: skip

from zeroskip.concepts import Kernel, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.errors import EngineError
from zeroskip.run.output_difference import leaves
from zeroskip.run.recurrent import spmm, spmv
from zeroskip.run.recurrent.kernels import KERNELS, SPMM, SPMV

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # of PyTorch: its dense way is slower

EXACT = (SPMV[0], SPMM)
by_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
exact_ones = pytest.mark.parametrize("kernel", EXACT, ids=lambda kernel: kernel.name)
on_machines = pytest.mark.parametrize(
    "machine", MACHINES, ids=lambda machine: f"{8 * machine.vector_bytes}bit"
)


@settings(max_examples=30, deadline=None)
@given(options(), st.integers(1, 17), st.integers(1, 4), st.booleans(), st.sampled_from(EXACT))
def test_any_options_batch_and_number_of_steps(
    drawn: dict[str, Any], batch: int, steps: int, stated: bool, kernel: Kernel
) -> None:
    module = module_of(drawn)
    shape = (batch, steps) if module.batch_first else (steps, batch)
    x = torch.randn(*shape, module.input_size)
    states, first = first_states(module, batch) if stated else ([], ())
    run = built(kernel, operation(module, given=stated), HERE)
    assert_close(run(x, *states), module(x, *first))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("stated", [False, True], ids=["zeros first", "states given"])
@exact_ones
def test_cells_of_any_batch(kind: str, stated: bool, kernel: Kernel) -> None:
    module, count = sparse(CELLS[kind](20, 37)), 1 + (kind == "lstm")
    for batch in (0, 1, 2, 4, 5, 17):
        x, states = torch.randn(batch, 20), [torch.randn(batch, 37) for _ in range(count if stated else 0)]
        run = built(kernel, operation(module, given=stated), HERE)
        first = (tuple(states) if len(states) > 1 else states[0],) if states else ()
        assert_close(run(x, *states), module(x, *first))


@by_side
@on_machines
@exact_ones
def test_all_steps_stay_inside_their_memory(kernel: Kernel, machine: Machine, at_end: bool) -> None:
    modules = [
        sparse(nn_kind(5, units, 2, bidirectional=True, **more))
        for nn_kind, units, more in (
            (KINDS["lstm"], 19, {"proj_size": 3}), (KINDS["gru"], 16, {"batch_first": True}),
        )
    ]  # fmt: skip
    for module in modules if machine is HERE else modules[:1]:
        for batch, steps in ((0, 2), (1, 1), (5, 3), (18, 1)):
            x = torch.randn(batch, steps, 5) if module.batch_first else torch.randn(steps, batch, 5)
            recurrent = operation(module)
            with all_memory_guarded(at_end=at_end):
                given = guarded_copy(x, at_end=at_end)
                value = built(kernel, recurrent, machine)(given)
            assert torch.equal(given, x), "what is given is only read"
            assert_close(value, module(x))


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [(each, kind) for each in KERNELS for kind in ("lstm", "gru") if (each.weights, kind) != ("bf16", "gru")],
    ids=lambda each: getattr(each, "name", each),
)
def test_every_storage_computes_its_reference(kernel: Kernel, kind: str) -> None:
    module = sparse(KINDS[kind](40, 33, 1, batch_first=True), 0.7)
    for shape in ((1, 3, 40), (9, 2, 40)):
        x = torch.randn(shape)
        recurrent = operation(module)
        assert_close(built(kernel, recurrent, HERE)(x), kernel.reference(recurrent, x))


def test_fewer_bits_move_the_answer_by_as_much_as_they_round() -> None:
    module, x = sparse(KINDS["lstm"](40, 33, batch_first=True), 0.7), torch.randn(3, 4, 40)
    recurrent, exact = operation(module), module(x)[0]
    fp32, bf16, int8 = (float((built(each, recurrent, HERE)(x)[0] - exact).abs().max()) for each in SPMV)
    assert fp32 < 1e-6 < bf16 < 1e-2
    assert 1e-6 < int8 < 1e-2


@exact_ones
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_does_what_it_does_in_pytorch_but_where_a_weight_is_zero(
    kernel: Kernel, kind: str, value: float
) -> None:
    module, x = sparse(KINDS[kind](6, 17, batch_first=True), 0.3), torch.randn(3, 2, 6)
    x[1, 0, 2] = value
    run = built(kernel, operation(module), HERE)
    y, expected = run(x)[0], module(x)[0]
    assert_close(y[[0, 2]], expected[[0, 2]])
    # A unit of which no gate meets the input is as it were without it, and NaN in PyTorch.
    met = (module.weight_ih_l0[:, 2] != 0).view(-1, 17).any(0)
    without = module(x.nan_to_num(0, 0, 0))[0][1, 0]
    assert_close(y[1, 0][~met], torch.where(y[1, 0].isnan(), torch.nan, without)[~met])
    if kind.startswith("rnn"):  # one gate: what it becomes is known
        assert_close(y[1, 0][met], expected[1, 0][met])


@exact_ones
def test_4_threads_may_run_the_same_operation_at_once(kernel: Kernel) -> None:
    module = sparse(KINDS["lstm"](20, 37, 2, batch_first=True))
    examples = [torch.randn(1 + number % 5, 3 + number, 20) for number in range(12)]
    run = built(kernel, operation(module), HERE)
    alone = [run(x)[0] for x in examples]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(lambda x: run(x)[0], examples), alone))


@exact_ones
def test_strided_sequences_are_taken_as_they_are_meant(kernel: Kernel) -> None:
    module = sparse(KINDS["gru"](8, 17))
    x = torch.randn(5, 16, 6).transpose(1, 2)[:, :, ::2]  # (5, 6, 8)
    assert_close(built(kernel, operation(module), HERE)(x), module(x))


@exact_ones
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((torch.zeros(3, 2, 7),), "8 features"),
        ((torch.zeros(3, 2, 8).double(),), "float64"),
        ((torch.zeros(3, 8),), "3 axes"),
        ((torch.zeros(0, 2, 8),), "one step at least"),
        ((torch.zeros(3, 2, 8), torch.zeros(1, 2, 17)), "zeros"),
    ],
)
def test_what_machine_code_would_misread_is_refused(kernel: Kernel, wrong: Any, words: str) -> None:
    run = built(kernel, operation(sparse(KINDS["gru"](8, 17))), HERE)
    with pytest.raises(EngineError, match=words):
        run(*wrong)


@exact_ones
def test_first_states_of_another_size_are_refused(kernel: Kernel) -> None:
    module = sparse(KINDS["lstm"](8, 17, batch_first=True))
    run = built(kernel, operation(module, given=True), HERE)
    for wrong in (
        (),
        (torch.zeros(1, 3, 16), torch.zeros(1, 3, 17)),
        (torch.zeros(1, 2, 17), torch.zeros(1, 3, 17)),
    ):
        with pytest.raises(EngineError, match=r"begins with states of \(1, 3, 17\) and \(1, 3, 17\)"):
            run(torch.zeros(3, 2, 8), *wrong)


@by_kernel
def test_a_kernel_says_why_it_refuses(kernel: Kernel) -> None:
    plain = Precision(weights=kernel.weights)
    dense = sparse(KINDS["lstm"](3, 4), 0.0)
    for parameter in dense.parameters():
        parameter.data += (parameter == 0).float()
    reasons = {
        kernel.accepts(operation(dense), HERE, plain): "nothing to skip",
        kernel.accepts(operation(sparse(KINDS["lstm"](3, 4)).double()), HERE, plain): ("not float64"),
    }
    if kernel.weights != "fp32":
        sequence = operation(sparse(KINDS["lstm"](3, 4)))
        reasons[kernel.accepts(sequence, HERE, Precision())] = "fp32 weights were asked for"
        infinite = sparse(KINDS["lstm"](3, 4))
        infinite.weight_hh_l0.data[0, 1] = torch.inf
        if kernel.weights == "int8":
            sequence = operation(infinite)
            reasons[kernel.accepts(sequence, HERE, plain)] = "not finite"
    for reason, words in reasons.items():
        assert reason is not None
        assert words in reason


WIDE = Machine("AVX-512", "x86_64", frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512vl"}), 1, 64)
AVX2 = Machine("AVX2", "x86_64", frozenset({"avx2", "fma"}), 1, 32)
NEON = Machine("NEON", "aarch64", frozenset({"neon"}), 1, 16)
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


@pytest.mark.parametrize(
    ("machine", "triple", "there", "absent"),
    [
        (WIDE, X86, "vpermt2ps|vpermi2ps", "gather"),
        (AVX2, X86, "vinsertps", "zmm"),
        (NEON, ARM, "fmla", "ymm"),
    ],
    ids=["AVX-512", "AVX2", "NEON"],
)
def test_the_code_is_that_of_the_machine(machine: Machine, triple: str, there: str, absent: str) -> None:
    code = assembly(spmv.emit(machine, "rnn_relu", "fp32", 0, 0).text(machine), machine, triple=triple)
    assert any(word in code for word in there.split("|"))
    assert absent not in code
    many = assembly(spmm.emit(machine, "rnn_relu", 0).text(machine), machine, triple=triple)
    assert absent not in many
    assert ("fmla" if machine is NEON else "vfmadd") in many


def test_steps_may_differ_at_each_call_and_each_has_an_output() -> None:
    module = sparse(KINDS["lstm"](8, 17, batch_first=True))
    run = built(SPMV[0], operation(module), HERE)
    for steps in (1, 2, 40):
        assert leaves(run(torch.zeros(1, steps, 8)))[0].shape == (1, steps, 17)
