"""Kernels on packed sequences: each goes on to its own end and backward from there, as in PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE
from run.guard_pages import all_memory_guarded, by_side, guarded_copy
from run.recurrent.operations import (
    KINDS,
    assert_close,
    built,
    first_states,
    module_of,
    operation,
    options,
    sparse,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from zeroskip.concepts import Kernel
from zeroskip.errors import EngineError
from zeroskip.graph.recurrent import function_of
from zeroskip.run.recurrent.kernels import SPMM, SPMV

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

EXACT = (SPMV[0], SPMM)
exact_ones = pytest.mark.parametrize("kernel", EXACT, ids=lambda kernel: kernel.name)


def packed(lengths: list[int], features: int) -> PackedSequence:
    """Sequences of normal numbers, the longest first."""
    return pack_sequence([torch.randn(length, features) for length in sorted(lengths, reverse=True)])


def expected(module: nn.Module, sequences: PackedSequence, *first: Any) -> tuple[Any, ...]:
    y, states = module(sequences, *first)
    return y.data, *(states if isinstance(states, tuple) else (states,))


@settings(max_examples=25, deadline=None)
@given(options(), st.lists(st.integers(1, 5), min_size=1, max_size=18), st.booleans(), st.sampled_from(EXACT))
def test_any_options_and_lengths(
    drawn: dict[str, Any], lengths: list[int], stated: bool, kernel: Kernel
) -> None:
    module = module_of(drawn)
    sequences = packed(lengths, module.input_size)
    states, first = first_states(module, len(lengths)) if stated else ([], ())
    recurrent = operation(module, given=stated, packed=True)
    given_ = sequences.data, sequences.batch_sizes, *states
    wanted = expected(module, sequences, *first)
    assert_close(built(kernel, recurrent, HERE)(*given_), wanted)
    assert_close(function_of(recurrent)(*given_), wanted)


@by_side
@exact_ones
def test_packed_steps_stay_inside_their_memory(kernel: Kernel, at_end: bool) -> None:
    for module in (
        sparse(KINDS["lstm"](5, 19, 2, bidirectional=True, proj_size=3)),
        sparse(KINDS["gru"](5, 16, 2, bidirectional=True)),
    ):
        for lengths in ([1], [3, 2, 2, 1, 1], [2] + 17 * [1]):
            sequences = packed(lengths, 5)
            with all_memory_guarded(at_end=at_end):
                data = guarded_copy(sequences.data, at_end=at_end)
                value = built(kernel, operation(module, packed=True), HERE)(data, sequences.batch_sizes)
            assert torch.equal(data, sequences.data), "what is given is only read"
            assert_close(value, expected(module, sequences))


@pytest.mark.parametrize("kernel", SPMV, ids=lambda kernel: kernel.name)
def test_every_storage_computes_its_reference_of_packed_sequences(kernel: Kernel) -> None:
    recurrent = operation(sparse(KINDS["lstm"](40, 33), 0.7), packed=True)
    sequences = packed([4, 3, 1], 40)
    given_ = sequences.data, sequences.batch_sizes
    assert_close(built(kernel, recurrent, HERE)(*given_), kernel.reference(recurrent, *given_))


def test_sequences_of_one_length_are_a_batch() -> None:
    module, x = sparse(KINDS["gru"](8, 17)), torch.randn(3, 4, 8)
    y, h = built(SPMV[0], operation(module), HERE)(x)
    flat, state = built(SPMV[0], operation(module, packed=True), HERE)(x.view(12, 8), torch.tensor([4, 4, 4]))
    assert_close((flat.view(y.shape), state), (y, h))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((torch.zeros(5, 7), torch.tensor([3, 2])), "8 features"),
        ((torch.zeros(5, 1, 8), torch.tensor([3, 2])), "8 features"),
        ((torch.zeros(5, 8), torch.tensor([2, 3])), r"descend.*\[2, 3\]"),
        ((torch.zeros(5, 8), torch.tensor([3, 3])), "add up to the 5 steps"),
        ((torch.zeros(5, 8), torch.tensor([5, 0])), "descend to 1"),
        ((torch.zeros(5, 8), torch.tensor([6, -1])), "descend to 1"),
        ((torch.zeros(5, 8), torch.tensor([[5]])), "descend"),
        ((torch.zeros(5, 8), torch.tensor([3.0, 2.0])), "descend"),
        ((torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64)), "descend"),
        ((torch.zeros(5, 8), torch.tensor([3, 2]), torch.zeros(1, 3, 17)), "states of zeros"),
    ],
)
def test_what_would_be_misread_is_refused_by_machine_code_and_by_pytorch(
    wrong: tuple[Tensor, ...], words: str
) -> None:
    recurrent = operation(sparse(KINDS["gru"](8, 17)), packed=True)
    for run in (*(built(kernel, recurrent, HERE) for kernel in EXACT), function_of(recurrent)):
        with pytest.raises(EngineError, match=words):
            run(*wrong)


def test_other_numbers_and_states_are_refused() -> None:
    recurrent, sizes = operation(sparse(KINDS["gru"](8, 17)), packed=True), torch.tensor([3, 2])
    with pytest.raises(EngineError, match="float64"):
        built(SPMV[0], recurrent, HERE)(torch.zeros(5, 8).double(), sizes)
    with pytest.raises(EngineError, match=r"states of \(1, 3, 17\), and was given \(1, 2, 17\)"):
        built(SPMV[0], replace(recurrent, given=True), HERE)(torch.zeros(5, 8), sizes, torch.zeros(1, 2, 17))
