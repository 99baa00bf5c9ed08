"""What an ONNX file says of eight bits: layers with int8 weights, and values between QuantizeLinear and its inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zeroskip.errors import FileError
from zeroskip.graph.exporting import first_line
from zeroskip.run.element import Scaling
from zeroskip.run.onnx_package import Proto, package

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "Gemm", "MatMul")
RANGES = {np.dtype(np.uint8): (0, 255), np.dtype(np.int8): (-128, 127)}
ROUNDING = 1e-3  # of half a step: of a float32 product


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer of the file: what its int8 weights stand for, (out, ...), and the step of each output.

    name     of what it makes
    scales   (out,) where bytes are symmetric around 0; None where they are not
    is_turned  whether the operation reads the weights as (in, out)
    """

    name: str
    weight: Tensor
    steps: Tensor
    scales: Tensor | None
    is_turned: bool

    def has_weights(self, weight: Tensor) -> bool:
        """Whether these are the layer's weights up to half a step."""
        if len(weight) != len(self.weight) or weight.numel() != self.weight.numel():
            return False
        gaps = (weight.flatten(1) - self.weight.flatten(1)).abs()
        return bool((gaps <= (0.5 + ROUNDING) * self.steps[:, None]).all())


@dataclass(frozen=True)
class RoundedValue:
    """A value that the file rounds to bytes: its name, its step, and the least and the largest number it can be."""

    name: str
    step: float
    least: float
    most: float

    @property
    def scaling(self) -> Scaling:
        """Bytes of ours for it: the same where they begin at 0 or lie around it, else the smallest that cover it.

        >>> RoundedValue("x", 0.5, -64.0, 63.5).scaling, RoundedValue("x", 1.0, -64.0, 191.0).scaling.scale * 127
        (Scaling(scale=0.5, zero_point=128), 191.0)
        """
        if self.least >= 0:
            return Scaling(self.step, 0)
        if round(self.least / self.step) == -128:
            return Scaling(self.step, 128)
        return Scaling(max(-self.least / 128, self.most / 127), 128)


class QuantisedFile:
    """An ONNX file that was read.

    batch   the number of examples that it is bound to; None: any
    layers  in running order
    values  in running order
    """

    def __init__(self, name: str, model: Proto) -> None:
        self.name, self._model = name, model
        self._constants = _constants(model.graph)
        makers = {name: node for node in model.graph.node for name in node.output}
        found = [_layer(node, self._constants, makers) for node in model.graph.node]
        self.layers = [layer for layer in found if layer is not None]
        made = [node for node in model.graph.node if self._rounds(node)]
        self.values = [_value(node, self._constants) for node in made]
        first = [each.type.tensor_type.shape.dim for each in model.graph.input]
        self.batch = next((axes[0].dim_value or None for axes in first if axes), None)

    def _rounds(self, node: Proto) -> bool:
        """Whether the node makes bytes, uint8 or int8, of a value that is no constant, with one scale."""
        if node.op_type != QUANTIZE or node.input[0] in self._constants:
            return False
        zero = _zero_point(node, self._constants)
        return zero.dtype in RANGES and zero.size == 1

    def in_fp32(self, weights: Mapping[str, Tensor]) -> bytes:
        """The file with float32 numbers wherever bytes were, cut off as they are, and these weights of its layers.

        Its outputs are `values`.
        """
        onnx = package("onnx")
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph, layers = model.graph, {each.name: each for each in self.layers}
        ends = {node.output[0]: _value(node, self._constants) for node in graph.node if self._rounds(node)}
        for node in list(graph.node):
            if node.op_type in LAYERS and (name := node.output[0]) in weights:
                weight = weights[name].reshape(layers[name].weight.shape)
                _put_(graph, f"{name} in fp32", (weight.T if layers[name].is_turned else weight).numpy())
                node.input[1] = f"{name} in fp32"
            elif node.op_type == QUANTIZE and node.output[0] in ends:
                _cut_off_(graph, node, ends[node.output[0]])
            elif node.op_type == DEQUANTIZE and node.input[0] not in self._constants:
                _become_(node, "Identity", [node.input[0]])
        del graph.output[:]
        kind = onnx.TensorProto.FLOAT
        graph.output.extend(
            onnx.helper.make_tensor_value_info(name, kind, None)
            for name in (each.name for each in self.values)
        )
        del graph.value_info[:]
        content: bytes = model.SerializeToString()
        return content


def opened(content: bytes, name: str) -> QuantisedFile:
    """The file of these bytes; FileError where they are no ONNX file, or what they say makes no sense."""
    onnx = package("onnx")
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        return QuantisedFile(name, model)
    except Exception as fact:  # protobuf, onnx and NumPy raise errors of their own
        raise FileError(f"{name} is no ONNX file that can be read: {first_line(fact)}") from fact


def _constants(graph: Proto) -> dict[str, np.ndarray]:
    """Every tensor of the file that does not depend on what goes in, as far as bytes and transposing go."""
    to_array = package("onnx").numpy_helper.to_array
    found: dict[str, np.ndarray] = {each.name: to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = to_array(node.attribute[0].t)
        elif (
            node.op_type in (QUANTIZE, DEQUANTIZE, "Transpose", "Identity", "Cast") and node.input[0] in found
        ):
            found[node.output[0]] = _made(node, found)
    return found


def _made(node: Proto, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    onnx = package("onnx")
    x = constants[node.input[0]]
    given = _attributes(node)
    if node.op_type in ("Transpose", "Identity"):
        return _moved(node, x)
    if node.op_type == "Cast":
        return x.astype(onnx.helper.tensor_dtype_to_np_dtype(given["to"]))
    axis, scale = given.get("axis", 1), constants[node.input[1]]
    zero = _zero_point(node, constants)
    scale, offset = (_along(each, axis, x.ndim) for each in (scale, zero))
    if node.op_type == DEQUANTIZE:
        return (x.astype(np.float32) - offset.astype(np.float32)) * scale
    ends = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + offset, ends.min, ends.max).astype(zero.dtype)


def _zero_point(node: Proto, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """The zero point of a QuantizeLinear or DequantizeLinear: 0 where it names none."""
    if len(node.input) > 2 and node.input[2]:
        return constants[node.input[2]]
    x = constants.get(node.input[0]) if node.op_type == DEQUANTIZE else None
    return np.zeros((), np.uint8 if x is None else x.dtype)


def _along(numbers: np.ndarray, axis: int, axes: int) -> np.ndarray:
    """One number, or one for each place along that axis, so that arrays of that many axes can be multiplied by them."""
    shape = [1] * axes
    if numbers.size > 1:
        shape[axis] = -1
    return numbers.reshape(shape) if axes else numbers


def _layer(
    node: Proto, constants: Mapping[str, np.ndarray], makers: Mapping[str, Proto]
) -> QuantisedLayer | None:
    """The layer that the node is, if its weights are constant bytes behind a DequantizeLinear."""
    if node.op_type not in LAYERS:
        return None
    maker, moves = makers.get(node.input[1]), []
    while maker is not None and maker.op_type in ("Transpose", "Identity"):
        moves.append(maker)
        maker = makers.get(maker.input[0])
    if maker is None or maker.op_type != DEQUANTIZE or maker.input[0] not in constants:
        return None
    numbers, scale = constants[maker.input[0]], constants[maker.input[1]]
    steps = np.broadcast_to(_along(scale, _attributes(maker).get("axis", 1), numbers.ndim), numbers.shape)
    for move in reversed(moves):
        steps = _moved(move, steps)
    weight = constants[node.input[1]]
    is_turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attributes(node).get("transB"))
    if numbers.dtype not in RANGES or not weight.size or (is_turned and weight.ndim != 2):
        return None
    weight, steps = (weight.T, steps.T) if is_turned else (weight, steps)
    each = steps.reshape(len(steps), -1).astype(np.float32)  # (out, in * taps)
    middle = 128 if numbers.dtype == np.uint8 else 0
    is_ours = bool((each == each[:, :1]).all() and (_zero_point(maker, constants) == middle).all())
    largest = torch.from_numpy(each.max(1))
    real = torch.from_numpy(weight.astype(np.float32))
    return QuantisedLayer(node.output[0], real, largest, largest if is_ours else None, is_turned)


def _value(node: Proto, constants: Mapping[str, np.ndarray]) -> RoundedValue:
    step, zero = float(constants[node.input[1]].item()), _zero_point(node, constants)
    least, most = (step * (end - int(zero.item())) for end in RANGES[zero.dtype])
    return RoundedValue(node.input[0], step, least, most)


def _attributes(node: Proto) -> dict[str, Proto]:
    return {each.name: package("onnx").helper.get_attribute_value(each) for each in node.attribute}


def _moved(node: Proto, x: np.ndarray) -> np.ndarray:
    return x.transpose(_attributes(node).get("perm")) if node.op_type == "Transpose" else x


def _put_(graph: Proto, name: str, array: np.ndarray) -> None:
    tensor = package("onnx").numpy_helper.from_array(np.ascontiguousarray(array), name)
    graph.initializer.append(tensor)


def _cut_off_(graph: Proto, node: Proto, value: RoundedValue) -> None:
    """A QuantizeLinear becomes a Clip to the same range."""
    ends = {f"{node.output[0]} least": value.least, f"{node.output[0]} most": value.most}
    for name, end in ends.items():
        _put_(graph, name, np.array(end, np.float32))
    _become_(node, "Clip", [node.input[0], *ends])


def _become_(node: Proto, kind: str, inputs: Sequence[str]) -> None:
    node.op_type = kind
    del node.attribute[:]
    del node.input[:]
    node.input.extend(inputs)
