"""Operations on tiles that do not follow from their inputs never become machine code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from captured import answers, operations_in
from torch import Tensor, nn
from torch.nn import functional

from zeroskip import models
from zeroskip.errors import EngineError
from zeroskip.graph import Graph, capture
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.forms import Atom, Form, MapShape, channels_first
from zeroskip.run.convolution.tiles.graph_operations import entering, operations_of
from zeroskip.run.convolution.tiles.operations import Movement, Operation, Window
from zeroskip.run.convolution.tiles.shape_checks import CHECKS, check, check_all, is_whole


class AllKinds(nn.Module):
    """Each kind of operation once: windows, norms, sums, products, concatenations, means, and what moves numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm, self.groups, self.layer = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)
        self.slopes, self.back = nn.PReLU(4), nn.ConvTranspose2d(4, 4, 4, 2, 1)
        self.scale, self.places = nn.RMSNorm(4), nn.Parameter(torch.randn(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        pools = [
            functional.max_pool2d(y, 3, 2, 1, ceil_mode=True),
            functional.avg_pool2d(y, 3, 2, 1, ceil_mode=True),
        ]
        z = self.norm(self.second(y) + y.relu()) + y
        z = self.slopes(self.groups(z) * z.mean((2, 3), keepdim=True))
        z = self.layer(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        tokens = self.scale(z.flatten(2).transpose(1, 2)) + self.places
        tokens = functional.scaled_dot_product_attention(tokens, tokens.sigmoid(), tokens.tanh())
        z = tokens.transpose(1, 2).reshape(-1, 4, 8, 8)
        z = functional.interpolate(functional.pad(z, (1, 2, 0, 1)), scale_factor=2, mode="bilinear")
        z = self.back(z)
        return torch.cat([torch.cat(pools, 1).mean((2, 3)), z.mean((2, 3), keepdim=True).flatten(1)], 1)


def captured(model: nn.Module, size: int) -> Graph:
    return capture(model.eval(), torch.zeros(2, 3, size, size))


GRAPH = captured(AllKinds(), 16)
OPERATIONS = operations_of(GRAPH)
OUTSIDE = {name: value.shape for name, value in entering(GRAPH).items()}
MAPS: dict[str, MapShape] = OUTSIDE | {one.name: one.shape for one in OPERATIONS}


def of_kind(kind: str) -> Operation:
    return next(one for one in OPERATIONS if one.kind == kind)


def refused(lie: Operation) -> None:
    inputs = {name: MAPS[name] for name in lie.inputs if name in MAPS}
    with pytest.raises(EngineError, match=f"{lie.name} is no {lie.kind} of its inputs"):
        check_all([lie], inputs, {})


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (models.resnet20, 32),
        (models.resnet20, 49),
        (models.mobilenet_v2, 49),
        (models.googlenet, 49),
        (models.SqueezeNet10, 32),
        (models.SqueezeNet10, 49),
    ],
)
def test_what_pytorch_computes_is_never_refused(model: Any, size: int) -> None:
    graph = captured(model(), size)
    operations = operations_of(graph)
    assert len(operations) > 20
    check(operations, graph)


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_pool_whose_window_is_larger_than_the_map_is_accepted(pool: Any, size: int) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), pool(4, 4, ceil_mode=True)), torch.randn(2, 3, size, size)
    check(operations_in(model.eval(), x), capture(model, x))
    ((ours, theirs),) = answers(model, x)
    torch.testing.assert_close(ours, theirs)


def test_the_network_of_these_tests_has_all_kinds() -> None:
    check(OPERATIONS, GRAPH)
    assert {one.kind for one in OPERATIONS} == {*CHECKS}


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.kind} {one.name}")
def test_each_operation_is_accepted_by_itself(one: Operation) -> None:
    check_all([one], {name: MAPS[name] for name in one.inputs}, GRAPH.shapes)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.kind} {one.name}")
def test_an_operation_that_makes_3_more_of_anything_is_refused(one: Operation, axis: int) -> None:
    more = tuple(size + 3 * (number == axis) for number, size in enumerate(one.shape))
    refused(replace(one, shape=more))  # type: ignore[arg-type]
    refused(replace(one, shape=more, form=channels_first(more)))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="of its inputs"):
        check_all([one], {name: MAPS[name] for name in one.inputs}, {one.name: more})


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.kind} {one.name}")
def test_an_operation_whose_input_has_fewer_of_anything_is_refused(one: Operation, axis: int) -> None:
    shape = MAPS[one.inputs[0]]
    fewer = tuple(size // 4 if number == axis else size for number, size in enumerate(shape))
    if one.kind == "mean" and axis:
        return  # which takes maps of any size
    with pytest.raises(EngineError, match="of its inputs"):
        check_all([one], {name: MAPS[name] for name in one.inputs} | {one.inputs[0]: fewer}, {})  # type: ignore[dict-item]


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.kind} {one.name}")
@pytest.mark.parametrize("inputs", [(), ("nowhere",), ("input",) * 3])
def test_inputs_that_are_none_too_many_or_of_the_future_are_refused(
    one: Operation, inputs: tuple[str, ...]
) -> None:
    if one.kind == "concat" and len(inputs) == 3 and one.shape[0] == 9:
        return
    refused(replace(one, inputs=inputs))


@pytest.mark.parametrize(
    "change", [{"stride": (1, 0)}, {"dilation": (0, 0)}, {"padding": (-1, -1)}, {"size": (0, 0)}]
)
@pytest.mark.parametrize("kind", ["conv", "depthwise", "max", "average"])
def test_windows_without_steps_or_size_are_refused(kind: str, change: dict[str, Any]) -> None:
    one = of_kind(kind)
    assert isinstance(one.window, Window)
    refused(replace(one, window=replace(one.window, **change)))


def test_a_convolution_whose_weight_is_another_is_refused() -> None:
    one = of_kind("conv")
    assert one.layer is not None
    for weight in (
        one.layer.weight[:3],
        one.layer.weight[:, :2],
        one.layer.weight[..., :2],
        one.layer.weight[0],
    ):
        refused(replace(one, layer=replace(one.layer, weight=weight)))
    refused(replace(one, layer=replace(one.layer, bias=torch.zeros(3))))
    refused(replace(one, layer=replace(one.layer, groups=2)))
    refused(replace(one, layer=None))
    depthwise = of_kind("depthwise")
    assert depthwise.layer is not None
    refused(replace(depthwise, layer=replace(depthwise.layer, groups=2, weight=torch.ones(4, 2, 3, 3))))


@pytest.mark.parametrize("kind", ["scale", "prelu", "layer_norm", "group_norm"])
@pytest.mark.parametrize("factors", [(torch.ones(3), torch.ones(4)), (torch.ones(4), torch.ones(4, 1))])
def test_factors_must_be_as_many_as_channels(kind: str, factors: tuple[Tensor, Tensor]) -> None:
    refused(replace(of_kind(kind), factors=factors))


@pytest.mark.parametrize("kind", ["prelu", "layer_norm", "group_norm"])
def test_norms_and_slopes_have_factors(kind: str) -> None:
    refused(replace(of_kind(kind), factors=None))


@pytest.mark.parametrize("groups", [-2, 0, 3, 8])
def test_groups_of_a_norm_divide_its_channels(groups: int) -> None:
    refused(replace(of_kind("group_norm"), groups=groups))


@pytest.mark.parametrize("function", ["", "fdiv", "divide", "add\nret void"])
def test_functions_of_two_maps_are_those_that_are_known(function: str) -> None:
    refused(replace(of_kind("combine"), function=function))


@pytest.mark.parametrize(
    "activation",
    [Activation("sine"), Activation("bounded"), Activation("relu", (1.0,)), Activation("clamp", (0.0,))],
)
def test_activations_are_those_that_are_known_with_as_many_numbers_as_they_take(
    activation: Activation,
) -> None:
    refused(replace(of_kind("scale"), activation=activation))


@pytest.mark.parametrize("divisor", [-1, 0])
def test_what_a_pool_divides_by_is_positive(divisor: int) -> None:
    refused(replace(of_kind("average"), divisor=divisor))


MOVEMENT = Movement((0, 1), (1, 0), (0, 1, -1), (0, 0))
"""Of a map of 2 channels, 2 rows and 1 column, into one of 2 channels, 3 rows and 2 columns."""
MOVED = Operation("y", "rearrange", ("x",), (2, 3, 2), ("y",), movements=(MOVEMENT,))
WEIGHTS = ((1.0, 1.0, 1.0), (0.5, 0.5))

BROKEN: dict[str, dict[str, Any]] = {
    "a channel that the map lacks": {"sources": (1, 2)},
    "a channel before the first": {"sources": (-1, 0)},
    "a target beyond the last": {"targets": (0, 2)},
    "a target before the first": {"targets": (-1, 0)},
    "one target twice": {"targets": (0, 0)},
    "more targets than sources": {"targets": (0, 1, 1)},
    "fewer targets than channels": {"targets": (0,), "sources": (0,)},
    "a row beyond the last": {"rows": (0, 1, 2)},
    "a row before that which is none": {"rows": (0, 1, -2)},
    "a column beyond the last": {"columns": (0, 1)},
    "fewer rows than the value has": {"rows": (0, 1)},
    "more columns than the value has": {"columns": (0, 0, 0)},
    "fewer weights than rows": {"weights": ((1.0,), (0.5, 0.5))},
    "more weights than columns": {"weights": ((1.0,) * 3, (0.5,) * 3)},
}


def test_the_part_of_these_lies_is_true() -> None:
    check_all([MOVED], {"x": (2, 2, 1)}, {})
    check_all([replace(MOVED, movements=(replace(MOVEMENT, weights=WEIGHTS),) * 2)], {"x": (2, 2, 1)}, {})


@pytest.mark.parametrize("words", BROKEN)
def test_numbers_are_moved_from_places_that_there_are_to_places_that_there_are(words: str) -> None:
    with pytest.raises(EngineError, match="y is no rearrange of its inputs"):
        check_all([replace(MOVED, movements=(replace(MOVEMENT, **BROKEN[words]),))], {"x": (2, 2, 1)}, {})


def test_parts_fill_all_channels_before_they_add_to_one() -> None:
    first, second = (replace(MOVEMENT, targets=(number,), sources=(0,)) for number in (0, 1))
    check_all([replace(MOVED, movements=(first, second))], {"x": (2, 2, 1)}, {})
    for movements in ((), (first,), (first, MOVEMENT)):
        with pytest.raises(EngineError, match="of its inputs"):
            check_all([replace(MOVED, movements=movements)], {"x": (2, 2, 1)}, {})


def test_two_values_of_one_name_are_refused() -> None:
    with pytest.raises(EngineError, match="of its inputs"):
        check_all([MOVED, MOVED], {"x": (2, 2, 1)}, {})


C, H = Atom("c", 4, 1), Atom("h", 3, 1)


@pytest.mark.parametrize(
    "axes",
    [
        ((C,), (H,)),
        ((C, H), ()),
        ((Atom("c", 2, 2),), (H,), (Atom("c", 2, 1),)),
        ((Atom("c", 2, 1), Atom("c", 2, 2)), (H,)),
    ],
)
def test_a_form_that_holds_each_number_once_is_accepted(axes: Any) -> None:
    assert is_whole(Form(axes), (4, 3, 1))


@pytest.mark.parametrize(
    "axes",
    [
        ((C,),),
        ((C,), (H,), (H,)),
        ((C,), (Atom("h", 2, 1),)),
        ((Atom("c", 4, 2),), (H,)),
        ((Atom("c", 2, 1), Atom("c", 2, 1)), (H,)),
        ((C,), (H,), (Atom("batch", 2, 1),)),
        ((C, Atom("c", 1, 4)), (H,)),
        ((Atom("c", 4, 0),), (H,)),
    ],
)
def test_a_form_that_does_not_is_refused(axes: Any) -> None:
    assert not is_whole(Form(axes), (4, 3, 1))
