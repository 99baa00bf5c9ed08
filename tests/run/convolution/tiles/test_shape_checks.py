"""Operations on tiles whose shapes do not follow from their inputs never become machine code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroskip import models
from zeroskip.errors import EngineError
from zeroskip.graph import capture
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.operations import Operation, Window
from zeroskip.run.convolution.tiles.shape_checks import Shape, check


class AllKinds(nn.Module):
    """Each kind of operation once: conv, depthwise, pools, scale, sum, concat and mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        pools = [
            functional.max_pool2d(y, 3, 2, 1, ceil_mode=True),
            functional.avg_pool2d(y, 3, 2, 1, ceil_mode=True),
        ]
        z = self.norm(self.second(y) + y.relu()) + y
        return torch.cat([torch.cat(pools, 1).mean((2, 3)), z.mean((2, 3), keepdim=True).flatten(1)], 1)


def seen(model: nn.Module, size: int, channels: int = 3) -> tuple[list[Operation], dict[str, Shape]]:
    graph = capture(model.eval(), torch.zeros(2, channels, size, size))
    return operations_of(graph), graph.shapes


OPERATIONS, SHAPES = seen(AllKinds(), 16)


@pytest.mark.parametrize(
    "model", [models.resnet20, models.mobilenet_v2, models.googlenet, models.SqueezeNet10]
)
@pytest.mark.parametrize("size", [32, 49])
def test_what_pytorch_computes_is_never_refused(model: Any, size: int) -> None:
    operations, shapes = seen(model(), size)
    assert len(operations) > 20
    check(operations, shapes)


def test_the_network_of_these_tests_has_all_kinds() -> None:
    check(OPERATIONS, SHAPES)
    kinds = {"conv", "depthwise", "max", "average", "scale", "add", "concat", "mean"}
    assert {one.kind for one in OPERATIONS} == kinds


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.kind} {one.name}")
def test_an_operation_that_makes_3_more_of_anything_is_refused(one: Operation, axis: int) -> None:
    more = tuple(size + 3 * (number == axis) for number, size in enumerate(one.shape))
    lie = replace(one, shape=more)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=f"{one.name} is no {one.kind} of its inputs"):
        check([lie], SHAPES | {one.name: more})
    with pytest.raises(EngineError, match="of its inputs"):
        check([one], SHAPES | {one.name: more})


@pytest.mark.parametrize(
    "change", [{"stride": 0}, {"dilation": (0, 0)}, {"padding": (-1, -1)}, {"size": (0, 0)}]
)
@pytest.mark.parametrize("kind", ["conv", "max", "average"])
def test_windows_without_steps_or_size_are_refused(kind: str, change: dict[str, Any]) -> None:
    one = next(each for each in OPERATIONS if each.kind == kind)
    assert isinstance(one.window, Window)
    with pytest.raises(EngineError, match="of its inputs"):
        check([replace(one, window=replace(one.window, **change))], SHAPES)


def test_factors_of_a_batch_norm_must_be_as_many_as_channels() -> None:
    one = next(each for each in OPERATIONS if each.factors is not None)
    with pytest.raises(EngineError, match="of its inputs"):
        check([replace(one, factors=(torch.ones(3), torch.ones(4)))], SHAPES)
