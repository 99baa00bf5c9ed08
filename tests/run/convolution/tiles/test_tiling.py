"""Which kernel a convolution on tiles gets, from seconds that are given."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, repeat

import pytest
import torch

from zeroskip.concepts import Kernel
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.forms import channels_first, rows_of
from zeroskip.run.convolution.tiles.kernels import BAKED, DEPTHWISE, STREAMED
from zeroskip.run.convolution.tiles.segment_code import SegmentCode
from zeroskip.run.convolution.tiles.steps import Chain, Step, seconds_by_node
from zeroskip.run.convolution.tiles.tiling import _chosen, _prepared

BOTH = (BAKED, STREAMED)


def chosen(*rows: tuple[float, float]) -> list[str]:
    """Names of the kernels of layers that take so many seconds baked and streamed."""
    usable: dict[str, tuple[Kernel, ...]] = {str(number): BOTH for number in range(len(rows))}
    seconds = {str(number): {"baked": row[0], "streamed": row[1]} for number, row in enumerate(rows)}
    return [kernel.name for kernel in _chosen(usable, seconds).values()]


@pytest.mark.parametrize("noise", [0.97, 1.0, 1.04])
def test_layers_about_as_fast_with_either_kernel_all_have_the_same(noise: float) -> None:
    assert chosen((1.0 * noise, 1.0), (1.0, 1.03 * noise), (2.0 * noise, 1.96)) == ["baked"] * 3
    assert chosen((1.2 * noise, 1.0), (1.0, 1.0 * noise), (2.3, 2.0 * noise)) == ["streamed"] * 3


def test_a_layer_that_gains_much_has_another_kernel_where_that_pays_for_the_network() -> None:
    assert chosen((1.0, 2.0), (1.0, 2.0), (3.0, 1.0)) == ["baked", "baked", "streamed"]
    assert chosen((1.0, 2.0), (50.0, 60.0), (3.0, 1.0)) == ["baked"] * 3  # 2 of 54
    assert chosen((1.0, 2.0), (1.0, 1.05), (3.0, 1.0)) == ["baked", "streamed", "streamed"]


def test_a_layer_that_cannot_use_the_common_kernel_has_its_own() -> None:
    usable = {"a": BOTH, "depthwise": (DEPTHWISE,), "b": (STREAMED,)}
    seconds = {"a": {"baked": 1.0, "streamed": 2.0}, "depthwise": {"depthwise": 9.0}, "b": {"streamed": 1.0}}
    assert _chosen(usable, seconds) == {"a": BAKED, "depthwise": DEPTHWISE, "b": STREAMED}


def test_seconds_of_a_node_are_those_of_its_steps_without_reading_the_clock() -> None:
    now = list(accumulate([0.0, *repeat(1.5, 3)]))
    block = argument_block()
    steps = tuple(Step("", node, lambda *_: None, block) for node in ("a", "b", "a"))
    clock: Callable[[], float] = iter(now).__next__
    assert seconds_by_node(Chain(lambda _: None, steps, ()), 0, clock, 0.5) == {"a": 2.0, "b": 1.0}


def test_kernels_are_timed_in_one_memory_as_large_as_the_largest_needs() -> None:
    form = channels_first((2, 3, 4)).permuted([1, 0, 2])
    forms = {"x": channels_first((2, 1, 1)), "y": rows_of(3, [5]), "z": form}
    shapes = {"x": (2, 1, 1)}, {"y": (3, 1, 5), "z": (2, 3, 4)}
    codes = [SegmentCode(Chain(print, (), ()), 2, *shapes, size, forms) for size in (4096, 8192)]
    values = {"x": torch.zeros(1, 2, 1, 1), "y": torch.zeros(1, 5, 3), "z": torch.zeros(1, 3, 2, 4)}
    memory, tensors = _prepared(values, codes, 2)
    assert memory.nbytes == 8192
    assert [tuple(each.shape) for each in tensors] == [(2, 2, 1, 1), (2, 5, 3), (2, 2, 3, 4)]
    assert memory[:24].view("int64").tolist() == [each.data_ptr() for each in tensors]
