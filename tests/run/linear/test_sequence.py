"""Several layers in one call: what they compute one after the other, in memory that no other call has."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from run.drawn import HERE, random_layer
from run.guard_pages import all_memory_guarded, by_side, guarded_copy

from zeroskip.concepts import Precision
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.compiled_linear import sequence
from zeroskip.run.linear.zero_weights import sell, spmm

SIZES = [20, 50, 7, 130, 3]
LAYERS = [random_layer(out, inputs, 0.8) for inputs, out in itertools.pairwise(SIZES)]


@by_side
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [0, 1, 33])
def test_a_sequence_of_layers_computes_what_they_do_one_after_the_other(
    count: int, batch: int, at_end: bool
) -> None:
    x = expected = torch.randn(batch, 20)
    for layer in LAYERS[:count]:
        expected = pytorch.reference(layer, expected, True)
    with all_memory_guarded(at_end=at_end):
        functions = [
            (sell, spmm)[i % 2].build(layer, HERE, Precision(), True) for i, layer in enumerate(LAYERS)
        ]
        functions, given = functions[:count], guarded_copy(x, at_end=at_end)
        torch.testing.assert_close(sequence(functions)(given), expected)
        torch.testing.assert_close(sequence([sequence(functions[:1]), *functions[1:]])(given), expected)


def test_4_threads_may_run_the_same_layers_at_once() -> None:
    layer, last = random_layer(300, 200, 0.9), random_layer(100, 300, 0.9)
    function = sequence(
        [spmm.build(layer, HERE, Precision(), True), sell.build(last, HERE, Precision(), False)]
    )
    inputs = [torch.randn(70, 200) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(function, inputs))
    for x, y in zip(inputs, answers, strict=True):
        assert torch.equal(y, function(x))
