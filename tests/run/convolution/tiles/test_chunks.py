"""How baked code is cut into chunks: they fit the first-level cache, whatever the layer and its zeros."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.run.convolution.tiles.baked_code import bake
from zeroskip.run.convolution.tiles.baked_steps import BRIEF, _row_blocking
from zeroskip.run.convolution.tiles.convolution_job import RowWeights
from zeroskip.run.convolution.tiles.steps import Epilogue
from zeroskip.run.element import FP32

FIRST_LEVEL_CACHE = 32 << 10


def weights(zeros: float) -> RowWeights:
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((300, 768), np.float32) * (draw.random((300, 768)) >= zeros)
    return RowWeights(weight, np.zeros(300, np.float32), np.arange(768) * 64)


@pytest.mark.parametrize("zeros", [0.8, 0.9, 0.95, 0.99])
def test_chunks_fit_the_first_level_cache_and_are_no_shorter_than_they_need_to_be(zeros: float) -> None:
    given = weights(zeros)
    few, many = (_row_blocking(given, vectors) for vectors in (BRIEF, BRIEF + 1))
    assert few.groups * few.rows <= many.groups * many.rows
    baked = bake(given, Epilogue(), many, FP32)
    sizes = np.diff(np.append(baked.chunks[:, 0], len(baked.code)))
    assert sizes.max() <= FIRST_LEVEL_CACHE
    assert len(sizes) <= 2 + len(baked.code) // (FIRST_LEVEL_CACHE // 4)


def test_a_layer_without_weights_is_one_chunk_of_all_groups_that_may_be() -> None:
    blocking = _row_blocking(RowWeights(np.zeros((8, 16), np.float32), np.zeros(8), np.arange(16) * 64), 8)
    assert (blocking.band, blocking.groups) == (8, 20)
