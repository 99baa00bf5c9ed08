"""One layer, every kernel that can run it: proved right, then measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Choice, Kernel, Layer, Machine, weight_sparsity
from zeroskip.errors import EngineError
from zeroskip.run.timing import interleaved, medians

# A kernel's output may differ from PyTorch's by this share of sum |weight x input|, with which the rounding
# errors of float32 sums grow; a few units in the last place are usual.
TOLERANCE = 3e-5


@dataclass(frozen=True)
class Race:
    """The outcome: the choice of the fastest kernel, and every kernel's function by its name."""

    choice: Choice
    built: dict[str, Callable[[Tensor], Tensor]]


def race(
    layer: Layer, relu: bool, x: Tensor, *, machine: Machine, precision: str, kernels: Sequence[Kernel]
) -> Race:
    """Build, prove and time the kernels on the layer's real input `x` (batch, *input_shape).

    Raises EngineError where a kernel does not compute what PyTorch does.

    >>> race(layer, True, x, machine=detect(), precision="fp32", kernels=ALL).choice.kernel
    'sell'
    """
    answers = {kernel.name: kernel.accepts(layer, machine, precision) for kernel in kernels}
    accepted = [kernel for kernel in kernels if answers[kernel.name] is None]
    built = {kernel.name: kernel.build(layer, machine, precision, relu) for kernel in accepted}
    for kernel in accepted:
        if not _is_right(kernel, built[kernel.name](x), layer, relu, x):
            raise EngineError(
                f'kernel "{kernel.name}" computes layer "{layer.name}" {tuple(layer.weight.shape)} wrongly on '
                "this machine. Leave it out with kernels=..., and please report it."
            )
    calls = {name: partial(function, x) for name, function in built.items()}
    seconds = medians(interleaved(calls, rounds=7, seconds=5e-4))
    choice = Choice(
        layer=layer.name,
        op=layer.op,
        weight_shape=tuple(layer.weight.shape),
        sparsity=weight_sparsity(layer.weight),
        kernel=min(seconds, key=seconds.__getitem__),
        seconds=seconds,
        refused={name: why for name, why in answers.items() if why is not None},
        reason="fastest" if len(built) > 1 else "the only one possible",
    )
    return Race(choice, built)


def _is_right(kernel: Kernel, y: Tensor, layer: Layer, relu: bool, x: Tensor) -> bool:
    """Whether `y` is what PyTorch computes, wherever that is finite."""
    expected = kernel.reference(layer, x, relu)
    bias = None if layer.bias is None else layer.bias.abs()
    magnitude = kernel.reference(replace(layer, weight=layer.weight.abs(), bias=bias), x.abs(), False)
    if y.shape != expected.shape:
        return False
    close = (y - expected).abs() <= TOLERANCE * magnitude
    return bool((close | ~expected.isfinite()).all())
