"""Forms: what permuting and reshaping a tensor does to the axes of the map that it holds, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.graph import Node
from zeroskip.run.convolution.tiles.forms import Form, channels_first, from_map, rows_of, sequence, to_map
from zeroskip.run.convolution.tiles.shape_checks import is_whole
from zeroskip.run.convolution.tiles.values import MapValue, Values, viewed

SIDES = st.sampled_from([1, 2, 3, 4, 6, 8])


def numbered(*shape: int) -> Tensor:
    """Two examples, each number once."""
    count = 2 * int(torch.tensor(shape).prod())
    return torch.arange(count).reshape(2, *shape)


@st.composite
def regrouped(draw: st.DrawFn, shape: tuple[int, ...]) -> list[int]:
    """Other axes for the same numbers: neighbours joined, one cut, or one of size 1 put in."""
    axes, place = [*shape], draw(st.integers(0, len(shape) - 1))
    what = draw(st.sampled_from(["join", "cut", "one"]))
    if what == "join" and place + 1 < len(axes):
        axes[place : place + 2] = [axes[place] * axes[place + 1]]
    elif what == "cut":
        part = draw(st.sampled_from([each for each in range(1, axes[place] + 1) if axes[place] % each == 0]))
        axes[place : place + 1] = [part, axes[place] // part]
    else:
        axes.insert(place, 1)
    return axes


@settings(max_examples=200, deadline=None)
@given(st.data(), st.tuples(SIDES, SIDES, SIDES))
def test_any_chain_of_permutations_and_other_shapes_is_followed(
    data: st.DataObject, shape: tuple[int, int, int]
) -> None:
    maps = numbered(*shape)
    form: Form | None = channels_first(shape)
    tensor = maps
    for _ in range(data.draw(st.integers(1, 5))):
        assert form is not None
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(form.axes))))
            tensor, form = tensor.permute(0, *(each + 1 for each in order)), form.permuted(order)
        else:
            axes = data.draw(regrouped(form.shape))
            tensor, form = tensor.reshape(2, *axes), form.reshaped(axes)
            if form is None:
                return  # an axis that is cut across parts of two axes of the map
        assert form.shape == tensor.shape[1:]
        assert is_whole(form, shape)
        assert torch.equal(from_map(form, maps), tensor)
        assert torch.equal(to_map(form, shape, tensor), maps)


def test_an_axis_cut_across_two_axes_of_the_map_has_no_form() -> None:
    assert channels_first((3, 4, 1)).reshaped([2, 6]) is None
    assert channels_first((3, 4, 1)).reshaped([3, 2, 2]) is not None
    assert channels_first((3, 4, 1)).reshaped([3, 5]) is None


def test_channels_in_groups_that_change_places_are_one_axis_in_another_order() -> None:
    form = channels_first((6, 2, 2)).reshaped([2, 3, 2, 2])
    assert form is not None
    shuffled = form.permuted([1, 0, 2, 3]).reshaped([6, 2, 2])
    assert shuffled is not None
    assert shuffled.only(0, "c")
    assert not shuffled.holds(0, "c")
    assert from_map(shuffled, numbered(6, 1, 1).expand(2, 6, 2, 2))[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("form", "shape"), [(sequence(3, 5), (3, 5)), (rows_of(3, [5]), (5, 3)), (rows_of(3, [2, 5]), (2, 5, 3))]
)
def test_sequences_and_rows_are_maps_of_one_row_or_of_several(form: Form, shape: tuple[int, ...]) -> None:
    assert form.shape == shape
    height = shape[0] if len(shape) == 3 else 1
    maps = numbered(3, height, 5)
    assert torch.equal(to_map(form, (3, height, 5), from_map(form, maps)), maps)


def test_three_axes_of_places_are_no_rows() -> None:
    assert rows_of(3, [2, 2, 2]) is None


VIEWED: dict[str, tuple[str, dict[str, object], Callable[[Tensor], Tensor]]] = {
    "permute": ("permute.default", {"dims": [0, 2, -1, 1]}, lambda x: x.permute(0, 2, 3, 1)),
    "transpose": ("transpose.int", {"dim0": 1, "dim1": -1}, lambda x: x.transpose(1, -1)),
    "movedim": (
        "movedim.intlist",
        {"source": [1, 2], "destination": [-1, 1]},
        lambda x: x.movedim((1, 2), (-1, 1)),
    ),
    "swapaxes": ("swapaxes.default", {"axis0": -1, "axis1": 1}, lambda x: x.swapaxes(-1, 1)),
    "mT": ("mT.default", {}, lambda x: x.mT),
    "moveaxis": ("moveaxis.int", {"source": 1, "destination": -1}, lambda x: x.moveaxis(1, -1)),
    "flatten": ("flatten.using_ints", {}, lambda x: x.flatten(2)),
    "reshape": ("reshape.default", {}, lambda x: x.reshape(2, 2, 3, 4, 5)),
    "squeeze": ("unsqueeze.default", {}, lambda x: x.unsqueeze(3)),
}


@pytest.mark.parametrize("name", VIEWED)
def test_what_pytorch_calls_a_view_moves_no_number(name: str) -> None:
    op, arguments, function = VIEWED[name]
    maps = numbered(6, 4, 5)
    expected = function(maps)
    node = Node("y", f"aten.{op}", ("x",), function, arguments=arguments)  # type: ignore[arg-type]
    value = viewed(
        node, op.split(".")[0], MapValue("x", (6, 4, 5), channels_first((6, 4, 5))), expected.shape[1:]
    )
    assert value is not None
    assert (value.base, value.shape) == ("x", (6, 4, 5))
    assert torch.equal(from_map(value.form, maps), expected)


def test_a_permutation_of_examples_is_no_form() -> None:
    node = Node("y", "aten.permute.default", ("x",), torch.relu, arguments={"dims": [1, 0, 2, 3]})
    assert viewed(node, "permute", MapValue("x", (6, 4, 5), channels_first((6, 4, 5))), (2, 4, 5)) is None


def test_tensors_from_elsewhere_are_taken_for_what_their_readers_want() -> None:
    shapes: dict[str, tuple[int, ...] | None] = {
        "image": (3, 4, 5), "row": (4, 5), "tokens": (7, 8), "windows": (2, 7, 8), "empty": (3, 0, 5),
        "several": None, "number": (),
    }  # fmt: skip
    values = Values(shapes)
    image, row, tokens = values.images("image"), values.sequences("row"), values.rows("tokens")
    assert image is not None
    assert row is not None
    assert tokens is not None
    assert (image.shape, row.shape, tokens.shape) == ((3, 4, 5), (4, 1, 5), (8, 1, 7))
    windows = values.rows("windows")
    assert windows is not None
    assert windows.shape == (8, 2, 7)
    assert values.images("row") is None  # by now it is a sequence
    assert [values.any(name) for name in ("empty", "several", "number")] == [None] * 3
    assert {*values.entered} == {"image", "row", "tokens", "windows"}
