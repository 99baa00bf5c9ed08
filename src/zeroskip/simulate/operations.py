"""Each weighted operation as a chip runs it: as a product of matrices, or as a convolution of two-dimensional maps.

    conv1d            a map of one row
    conv3d            windows of slices: each depth of the output is a picture, its channels are those of all slices
                      that its kernel reaches
    conv_transpose    a product of matrices: each pixel by all weights of its channel, for each kernel place an output
                      of its own; what overlaps is added up on the chip, outside of which only sums are seen
    bilinear          a linear layer on the products of each number of one input with each of the other

MACs are those of the Layer, weights x positions, exactly. Products that a transposed convolution crops are among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.errors import ModelError
from zeroskip.simulate.workload import RUNS_AS, Geometry, Workload

_PLAIN = Geometry()
FIRST_INPUT_ONLY = (
    "its second input was not recorded and counts as without zeros: what is done is an upper bound"
)


def of_layer(layer: Layer, x: Tensor, y: Tensor) -> Workload:
    """The workload of a layer with its real input (examples, *input_shape) and output. NaN is no zero.

    The input of a bilinear layer is both of its inputs, one behind the other along the last axis; of the first alone,
    the second counts as without zeros. ModelError for an operation that has no form for chips.
    """
    op, axes = layer.op, _axes(layer.op)
    if op != "linear" and op not in RUNS_AS:
        raise ModelError(f'layer "{layer.name}": the simulator has no form for the operation "{op}"')
    weight = weight_mask(layer, layer.weight)
    examples = max(1, x.numel() // max(math.prod(layer.input_shape), 1))
    x, y = (non_zeros(values) for values in (x, y))
    if op in ("linear", "bilinear"):
        x, y = (mask.reshape(-1, 1, mask.shape[-1], 1, 1) for mask in (x, y))
        work = Workload(layer.name, op, weight, x, y, examples)
        return work if op == "linear" else _multiplied(work, layer)
    x, y = (mask.reshape(-1, layer.groups, *_grouped(mask, layer.groups, axes)) for mask in (x, y))
    work = Workload(layer.name, op, weight, x, y, examples)
    if layer.transposed:
        return _columns(work)
    stride, dilation = (_each(sizes, axes) for sizes in (layer.stride, layer.dilation))
    sides = _sides(layer.padding, layer.weight.shape[2:], dilation)
    work = _slices(work, stride, dilation, sides) if axes == 3 else _rows(work) if axes == 1 else work
    (up, across), (down, right) = ((1, *sizes)[-2:] for sizes in (stride, dilation))
    (top, bottom), (left, right_side) = ((0, 0), *sides)[-2:]
    return replace(work, stride=(up, across), dilation=(down, right), padding=(top, bottom, left, right_side))


def weight_mask(layer: Layer, weight: Tensor) -> Tensor:
    """Which weights are not zero, as a Workload has them; `weight` is shaped like the layer's, or a mask of it.

    >>> weight_mask(conv, conv.weight).shape
    torch.Size([1, 4, 2, 3, 3])
    """
    mask, axes = non_zeros(weight), _axes(layer.op)
    if layer.op in ("linear", "bilinear"):
        return mask.flatten(1)[None, :, :, None, None].contiguous()
    if layer.transposed:  # (in, out / groups, ...): an output for each kernel place
        return mask.reshape(layer.groups, -1, mask[0].numel()).mT[..., None, None].contiguous()
    mask = mask.reshape(layer.groups, -1, *mask.shape[1:])
    return mask.unsqueeze(3) if axes == 1 else mask.flatten(2, 3) if axes == 3 else mask


def non_zeros(values: Tensor) -> Tensor:
    """Where a tensor is not zero, in the memory of the processor; a mask stays as it is."""
    return values.cpu() if values.dtype == torch.bool else (values != 0).cpu()


def of_masks(
    name: str, weight: Tensor, x: Tensor, geometry: Geometry = _PLAIN, *, output: Tensor | None = None
) -> Workload:
    """A layer known by its masks only: weight (out, in) or (out, in / groups, kh, kw), x with the examples first.

    Without an output mask every output counts as non-zero. ModelError where the shapes do not fit.

    >>> of_masks("fc", torch.ones(4, 6) != 0, torch.ones(2, 6) != 0).macs
    48
    """
    op, options = ("linear", {}) if weight.ndim == 2 else ("conv2d", asdict(geometry))
    compute = getattr(torch.nn.functional, op)
    try:  # on tensors without memory, since only the output's shape is wanted
        shape = compute(x.to("meta").float(), weight.to("meta").float(), None, **options).shape
        y = torch.ones(shape) if output is None else output.reshape(shape)
    except (RuntimeError, ValueError) as fact:
        raise ModelError(
            f'layer "{name}": masks of weight {tuple(weight.shape)}, input {tuple(x.shape)} and '
            f"output {None if output is None else tuple(output.shape)} do not fit together: {fact}. "
            f"Give weight (out, in) or (out, in / groups, kh, kw), and the input with its examples first."
        ) from None
    return of_layer(Layer(name, op, weight, None, tuple(x.shape[1:]), tuple(shape[1:]), **options), x, y)


def _axes(op: str) -> int:
    """Axes of a map: 2 of "conv2d", 0 of operations without maps."""
    return int(op[-2]) if op.endswith("d") and op[-2].isdigit() else 0


def _grouped(mask: Tensor, groups: int, axes: int) -> tuple[int, ...]:
    """Channels of a group, and the sizes of a map."""
    channels, *sizes = mask.shape[-axes - 1 :]
    return channels // groups, *sizes


def _each(sizes: Sequence[int], axes: int) -> tuple[int, ...]:
    """A number for each axis, where torch may have written one for all."""
    return (tuple(sizes) * axes)[:axes]


def _sides(
    padding: Sequence[int] | str, kernel: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros before and behind each axis."""
    if not isinstance(padding, str):
        return [(zeros, zeros) for zeros in _each(padding, len(kernel))]
    # "same" and "valid" as torch has them: an odd zero comes last
    zeros = ((size - 1) * step * (padding == "same") for size, step in zip(kernel, dilation, strict=True))
    return [(count // 2, count - count // 2) for count in zeros]


def _rows(work: Workload) -> Workload:
    """Sequences (n, g, c, length) as maps of one row."""
    return replace(work, input=work.input.unsqueeze(3), output=work.output.unsqueeze(3))


def _slices(
    work: Workload, stride: tuple[int, ...], dilation: tuple[int, ...], sides: list[tuple[int, int]]
) -> Workload:
    """Volumes (n, g, c, depth, h, w) as pictures, one for each depth of the output, of all slices that it sees."""
    x, y, deep = work.input, work.output, work.output.shape[3]
    kernel = work.weight.shape[2] // max(x.shape[2], 1)
    filled = torch.nn.functional.pad(x, (0, 0, 0, 0, *sides[0]))
    seen = torch.arange(deep)[:, None] * stride[0] + torch.arange(kernel) * dilation[0]
    pictures = filled[:, :, :, seen].movedim(3, 1)  # (n, output depth, g, c, kernel depth, h, w)
    return replace(
        work,
        input=pictures.flatten(3, 4).flatten(0, 1),
        output=y.movedim(3, 1).flatten(0, 1),
        stored_input=x.flatten(3, 4),
    )


def _columns(work: Workload) -> Workload:
    """A transposed convolution: every pixel is a position, every kernel place an output of its own."""
    x, y = (mask.reshape(*mask.shape[:3], -1, mask.shape[-1]) for mask in (work.input, work.output))
    shape = (len(x), work.weight.shape[0], work.weight.shape[1], *x.shape[3:])
    return replace(work, input=x, output=torch.ones(shape, dtype=torch.bool), stored_output=y)


def _multiplied(work: Workload, layer: Layer) -> Workload:
    """A bilinear layer: each number of the first input times each of the second."""
    _, left, right = layer.weight.shape
    x, note = work.input.flatten(1), ""
    if x.shape[1] == left:
        x, note = torch.nn.functional.pad(x, (0, right), value=True), FIRST_INPUT_ONLY
    first, second = x.split((left, right), dim=1)
    products = (first[:, :, None] & second[:, None]).reshape(len(x), 1, -1, 1, 1)
    return replace(work, input=products, stored_input=x.reshape(len(x), 1, -1, 1, 1), note=note)
