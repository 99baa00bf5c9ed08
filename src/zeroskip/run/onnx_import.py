"""The scales in an ONNX file that others have quantised, as a Quantisation of the network it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroskip import files
from zeroskip.errors import EngineError
from zeroskip.graph import Given, Graph, Inputs
from zeroskip.run.calibration import SeenNetwork, demand_several, measured, scales_of, seen_on
from zeroskip.run.captured import run_once, taken
from zeroskip.run.element import Scaling, weight_scales
from zeroskip.run.integer_network import ByteOperation, same_scales
from zeroskip.run.onnx_package import answers
from zeroskip.run.onnx_quantised_file import QuantisedFile, QuantisedLayer, RoundedValue, opened
from zeroskip.run.quantisation import Quantisation

SAME = (
    0.1  # a value of the file and one of the network, as share of it: saturated numbers differ, others hardly
)
LOOKED_AT = 4  # examples on which values are compared


def quantisation_from_onnx(
    path: str | Path, model: nn.Module, example: Given | Inputs, *, batches: Iterable[Given | Inputs] = ()
) -> Quantisation:
    """The scales of a file with pairs of QuantizeLinear and DequantizeLinear, made from `model`.

    Its layers are those whose weights lie within half a step, in order; layers without int8 weights stay in fp32. Its
    values are those that ONNX Runtime finds equal on `example`. Zero points other than 0 and 128 become the smallest
    range of ours that covers theirs, and weights that are not symmetric get scales of ours. Errors are measured on
    `example`, or on `batches`, which also give the scales of values that have none in the file.
    Raises EngineError where the file has no such pairs, a layer is not the model's, or a value that a layer reads
    has no scale and there are no batches; FileError where there is no such file.

    >>> from zeroskip.run.onnx_export import save_onnx
    >>> net, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(2, 3, 8, 8)
    >>> quantisation = run.calibrate(net, [images])
    >>> path = save_onnx(net, images, "conv.onnx", quantisation=quantisation)
    >>> quantisation_from_onnx(path, net, images).values["input"] == quantisation.values["input"]
    True
    """
    demand_several(batches)
    file, batches = opened(files.read(path), str(path)), list(batches)
    seen = seen_on(model, batches or [example])
    pairs = _matched(seen.operations, file)
    values = _values(seen, file, pairs)
    missing = [name for each, _ in pairs for name in _needed(each) if name not in values]
    if missing and not batches:
        raise EngineError(
            f"{path} has no scale for what {_reader(pairs, missing[0])} reads or makes ({missing[0]}). Give batches to "
            "calibrate it: quantisation_from_onnx(path, model, example, batches=[...])."
        )
    if missing:
        known = scales_of(seen.graph, seen.operations, seen.ranges, "least squares")
        values |= {name: known[name] for name in missing}
    weights = {each.name: _scales(each, layer) for each, layer in pairs}
    return measured(seen, values, weights, "onnx")


def _needed(each: ByteOperation) -> tuple[str, ...]:
    """What a layer reads, and the phases of a transposed one, which are bytes and no value of the graph."""
    return each.reads if each.name in each.operation.names else (*each.reads, each.name)


def _reader(pairs: Sequence[tuple[ByteOperation, QuantisedLayer]], value: str) -> str:
    return next(layer.name for each, layer in pairs if value in _needed(each))


def _matched(
    operations: Sequence[ByteOperation], file: QuantisedFile
) -> list[tuple[ByteOperation, QuantisedLayer]]:
    """The layers of the file with those of the network: the first left over whose weights are within half a step."""
    rest, pairs = [each for each in operations if each.is_layer], []
    for layer in file.layers:
        own = next((each for each in rest if layer.has_weights(_weight(each))), None)
        if own is None:
            raise EngineError(
                f"{file.name} has a layer {layer.name} whose weights are not within half a step of any layer of the "
                "network. Give the network that it was made from, with batch norms folded into its weights."
            )
        rest.remove(own)
        pairs.append((own, layer))
    if not pairs:
        raise EngineError(
            f"{file.name} has no layer with int8 weights behind DequantizeLinear. Give a file in the QDQ format, such "
            "as onnxruntime.quantization.quantize_static writes."
        )
    return pairs


def _weight(each: ByteOperation) -> Tensor:
    assert each.operation.layer is not None
    return each.operation.layer.weight.detach()


def _scales(each: ByteOperation, layer: QuantisedLayer) -> Tensor:
    """The file's scales of the layer's weights; ours where they are not symmetric, and 1 where all are 0."""
    weight = _weight(each)
    if layer.scales is None:
        return weight_scales(weight)
    return torch.where(weight.flatten(1).abs().amax(1) > 0, layer.scales, 1.0)


@torch.no_grad()
def _values(
    seen: SeenNetwork, file: QuantisedFile, pairs: Sequence[tuple[ByteOperation, QuantisedLayer]]
) -> dict[str, Scaling]:
    """Value of the network -> its scale, where the file has one for a value that is the same on the example."""
    graph = seen.graph
    count = graph.batch or file.batch or min(LOOKED_AT, seen.examples)
    tensors = taken(graph, seen.kept[0], count)
    exact = run_once(graph, tensors, seen.ranges).values | dict(zip(graph.names, tensors, strict=True))
    content = file.in_fp32({layer.name: _weight(each) for each, layer in pairs})
    theirs = list(zip(file.values, answers(content, tensors, as_written=True), strict=True))
    found = {name: _nearest(exact[name], theirs) for name in seen.ranges if name in exact}
    values = {name: value.scaling for name, value in found.items() if value is not None}
    full = _with_same(values, graph, seen.operations)
    return {name: full[name] for name in seen.ranges if name in full}


def _nearest(own: Tensor, theirs: Sequence[tuple[RoundedValue, Tensor]]) -> RoundedValue | None:
    """The value of the file that is this one on the example, up to what lies beyond its range."""
    errors = [
        (_distance(*(x.flatten().clamp(value.least, value.most) for x in (own, y))), number)
        for number, (value, y) in enumerate(theirs)
        if own.is_floating_point() and y.numel() == own.numel()
    ]
    error, number = min(errors, default=(math.inf, 0))
    return theirs[number][0] if error <= SAME else None


def _distance(own: Tensor, other: Tensor) -> float:
    gap, whole = float((own - other).norm()), float(own.norm())
    return gap / whole if whole else (0.0 if not gap else math.inf)


def _with_same(
    values: Mapping[str, Scaling], graph: Graph, operations: Sequence[ByteOperation]
) -> dict[str, Scaling]:
    """With the scales of values that have the same scale as others: of max pooling, and of what moves numbers."""
    full = dict(values)
    same = same_scales(graph, operations)
    for name, source in [*same.items(), *((source, name) for name, source in reversed(same.items()))]:
        if name not in full and source in full:
            full[name] = full[source]
    return full
