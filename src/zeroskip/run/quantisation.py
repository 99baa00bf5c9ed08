"""The scales with which a network computes in eight bits, as data: checked, stored in a file, and read again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zeroskip import files
from zeroskip.errors import EngineError, FileError
from zeroskip.graph import Graph
from zeroskip.run import program_bytes
from zeroskip.run.element import LEAST, MOST, Scaling
from zeroskip.run.measurement import JsonObject

LIMIT = 0.05
"""The error of a layer in eight bits above which it stays in fp32. Those of trained networks lose 0.01 to 0.03."""
CALIBRATE = "Calibrate it again: run.calibrate(model, batches)."


@dataclass(frozen=True)
class Quantisation:
    """How a network computes in eight bits, and what that costs.

    values    value of the captured network -> what its bytes mean
    weights   value that a layer makes -> (out,) float32: weight = scale * byte, one for each output
    errors    value that a layer makes -> how far its result lies from fp32 when it alone has eight bits: the root of
              the mean square, as share of that of the result
    error     the same of the network's outputs, with all layers in eight bits whose error is at most LIMIT
    network   checksum of the network's operations and weights
    examples  that were looked at
    method    by which the ranges were chosen, such as "min-max"

    >>> run.calibrate(model, [x]).errors["linear"] < 0.02
    True
    """

    values: Mapping[str, Scaling]
    weights: Mapping[str, Tensor]
    errors: Mapping[str, float]
    error: float
    network: str
    examples: int
    method: str

    def in_fp32(self, limit: float = LIMIT) -> tuple[str, ...]:
        """The values of layers that lose more than `limit`, and so stay in fp32.

        >>> run.calibrate(model, [x]).in_fp32(limit=0.0)
        ('linear', 'linear_1')
        """
        return tuple(name for name, error in self.errors.items() if not error <= limit)


def checksum(graph: Graph, *, of_size: bool = False) -> str:
    """The SHA-256 of the network's operations, and of the weights and constants that they read; of no size.

    Constants of several axes that are no weights are left out: embeddings of positions, say, or masks, of which a graph
    holds as many rows as its sentences have tokens; and nodes that are sizes. Older versions took them in (`of_size`).

    >>> checksum(graph) == checksum(graph, of_size=True)
    True
    """
    whole = hashlib.sha256()
    sizes = {node.name for node in graph.nodes if node.op.startswith("aten.sym_size") and not of_size}
    for node in (each for each in graph.nodes if each.name not in sizes):
        inputs = tuple(name for name in node.inputs if name not in sizes)
        whole.update(f"{node.name} {node.op} {inputs}".encode())
        read = [pair for each in node.layers for pair in (("weight", each.weight), ("bias", each.bias))]
        for name, tensor in read or node.arguments.items():
            if isinstance(tensor, Tensor) and (of_size or tensor.ndim < 2 or name == "weight"):
                whole.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                whole.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def check(
    quantisation: Quantisation, graph: Graph, values: Iterable[str] = (), layers: Iterable[str] = ()
) -> None:
    """EngineError unless it is of this network, and has sound scales, for these values and layers at least.

    >>> check(run.calibrate(model, [x]), graph, ["input"], ["linear"])
    """
    if quantisation.network not in (checksum(graph), checksum(graph, of_size=True)):
        raise EngineError(
            "the quantisation is of another network: its operations or weights are not those of this one. "
            f"{CALIBRATE}"
        )
    missing = [
        *sorted(set(values) - set(quantisation.values)),
        *sorted(set(layers) - set(quantisation.weights)),
    ]
    if missing:
        raise EngineError(f"the quantisation has no scale for {missing[0]}. {CALIBRATE}")
    demand_sound(quantisation)


def demand_quantisation(given: object) -> None:
    """EngineError unless it is a Quantisation that holds what its docstring says."""
    if not isinstance(given, Quantisation):
        raise EngineError(
            f"quantisation is a {type(given).__name__}. Give what run.calibrate(model, batches) returned."
        )
    parts = ((given.values, Scaling), (given.weights, Tensor), (given.errors, (float, int)))
    for held, kind in parts:
        wrong = next((name for name, each in held.items() if not isinstance(each, kind)), None)
        if wrong is not None:
            raise EngineError(f"the quantisation has a {type(held[wrong]).__name__} for {wrong}. {CALIBRATE}")


def demand_sound(quantisation: Quantisation) -> None:
    """EngineError where a scale of weights is no positive number of sensible size; those of maps always are."""
    demand_quantisation(quantisation)
    for name, scales in quantisation.weights.items():
        if scales.ndim != 1 or scales.dtype is not torch.float32 or not len(scales):
            raise EngineError(f"{name} needs a float32 scale for each output. {CALIBRATE}")
        for scale in (float(scales.min()), float(scales.max())):
            if not LEAST <= scale <= MOST:  # NaN is not
                raise EngineError(
                    f"the scale of the weights of {name} is {scale:g}, and is to lie between {LEAST:.0e} and "
                    f"{MOST:.0e}. {CALIBRATE}"
                )


def to_json(quantisation: Quantisation) -> tuple[JsonObject, dict[str, Tensor]]:
    """Its numbers as JSON, and its arrays by the names of their layers.

    >>> to_json(run.calibrate(model, [x]))[0]["examples"]
    3
    """
    described = {
        "values": {name: [at.scale, at.zero_point] for name, at in quantisation.values.items()},
        "errors": dict(quantisation.errors),
        "error": quantisation.error,
        "network": quantisation.network,
        "examples": quantisation.examples,
        "method": quantisation.method,
    }
    return described, dict(quantisation.weights)


def from_json(stored: JsonObject, tensors: Mapping[str, Tensor]) -> Quantisation:
    """What `to_json` was given; EngineError, or what Python raises, where it makes no sense.

    >>> quantisation = run.calibrate(model, [x])
    >>> from_json(*to_json(quantisation)).values == quantisation.values
    True
    """
    values = {str(name): _scaling(str(name), *pair) for name, pair in stored["values"].items()}
    errors = {str(name): float(error) for name, error in stored["errors"].items()}
    numbers = float(stored["error"]), str(stored["network"]), int(stored["examples"]), str(stored["method"])
    if any(math.isnan(error) for error in (*errors.values(), numbers[0])):
        raise EngineError("an error in it is no number")
    quantisation = Quantisation(values, dict(tensors), errors, *numbers)
    demand_sound(quantisation)
    return quantisation


def _scaling(name: str, scale: float, zero_point: int) -> Scaling:
    try:
        return Scaling(float(scale), int(zero_point))
    except EngineError as error:
        raise EngineError(f"{name}: {error}") from None


def save(quantisation: Quantisation, path: str | Path) -> Path:
    """Write it to a safetensors file whose metadata hold JSON, with a checksum over every byte; whole or not at all.

    >>> save(run.calibrate(model, [x]), "mlp.quantisation")
    PosixPath('mlp.quantisation')
    """
    demand_sound(quantisation)
    described, tensors = to_json(quantisation)
    return files.write(path, program_bytes.sealed({"quantisation": described}, tensors))


def load(path: str | Path) -> Quantisation:
    """What `save` wrote. FileError where there is no such file, EngineError where it is damaged or another one.

    >>> load(save(run.calibrate(model, [x], method="min-max"), "mlp.quantisation")).method
    'min-max'
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}. Give one that quantisation.save wrote.")
    try:
        content, tensors = program_bytes.opened(files.read(path))
        if "quantisation" not in content or "program" in content:
            raise EngineError("it is another file")
        return from_json(content["quantisation"], tensors)
    except Exception as error:  # Python and torch raise all kinds of errors about what makes no sense to them
        reason = str(error).strip().split("\n")[0].removesuffix(CALIBRATE).strip().rstrip(".")
        reason = reason or type(error).__name__
        raise EngineError(f"{path} holds no quantisation: {reason}. {CALIBRATE}") from None
