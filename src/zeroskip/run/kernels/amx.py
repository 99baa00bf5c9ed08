"""Convolutions with zeros in blocks of outputs x inputs at one tap, by AMX; see `zeroskip.run.tiles.amx`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.errors import EngineError
from zeroskip.run.kernels import dense
from zeroskip.run.tiles.amx import FEATURES, INPUTS, OUTPUTS, live, permit
from zeroskip.run.tiles.plan import alone, refusal


def reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in float32, of weight and input rounded to bfloat16.

    >>> reference(layer, torch.zeros(2, 64, 8, 8), False).shape
    torch.Size([2, 32, 8, 8])
    """
    rounded = replace(layer, weight=layer.weight.bfloat16().to(layer.weight.dtype))
    return dense.reference(rounded, x.bfloat16().to(x.dtype), relu)


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why AMX cannot compute the layer, or would skip nothing.

    >>> accepts(layer, detect(), Precision())
    'fp32 arithmetic was asked for'
    """
    if precision.arithmetic != "bf16":
        return f"{precision.arithmetic} arithmetic was asked for"
    missing = [name for name in FEATURES if name not in machine.features]
    if missing:
        return f"the processor has no {missing[0]}"
    return refusal(layer) or _misfit(layer) or _forbidden()


def _misfit(layer: Layer) -> str | None:
    out, inputs, *size = layer.weight.shape
    if layer.groups > 1 or out % OUTPUTS or inputs % INPUTS:
        return f"{layer.groups} x {inputs} inputs and {out} outputs are no whole blocks of {INPUTS} and {OUTPUTS}"
    weight = layer.weight.detach().flatten(1).numpy()
    all_live = live(weight, size[0] * size[1], OUTPUTS).all()
    return f"no block of {OUTPUTS} outputs x {INPUTS} inputs at one tap is all zero" if all_live else None


def _forbidden() -> str | None:
    try:
        permit()
    except EngineError as fact:
        return str(fact)
    return None


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images (batch, *input_shape), which it brings onto tiles and back.

    >>> build(conv, detect(), Precision("bf16"), True)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """
    return alone(layer, relu, "amx", machine)


KERNEL = Kernel("amx", accepts, build, reference, layout="tiles")
