"""One layer, every kernel that can run it: proved right, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from torch import Tensor

from zeroskip.concepts import Choice, Kernel, Layer, Machine, Precision
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.kernels import works_on_tiles
from zeroskip.run.dense import pytorch
from zeroskip.run.element import Element
from zeroskip.run.linear.compiled_linear import CompiledLinear
from zeroskip.run.output_difference import relative_error
from zeroskip.run.timing import CLOSE, preferred, raced, stop_watch

FEW = 2  # examples on which the rounding of a kernel is looked at that works among neighbours on tiles only


@dataclass(frozen=True)
class LayerTiming:
    """The choice of a layer's fastest kernel, and what it was chosen from.

    candidates  all kernels that were asked; those that cannot run the layer are in `choice.refused`
    built       name of a kernel -> function: the chosen kernel, dense ones, and the fastest that can be joined with its
                neighbours in one call; `select_network` builds those on tiles
    joinable    the name of the last
    errors      name of a kernel -> its `Choice.error`
    """

    candidates: tuple[Kernel, ...]
    choice: Choice
    built: dict[str, Callable[[Tensor], Tensor]]
    joinable: str
    errors: dict[str, float]

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Those that can run the layer, by name."""
        return {kernel.name: kernel for kernel in self.candidates if kernel.name not in self.choice.refused}

    def on_tiles(self, element: Element) -> list[Kernel]:
        """Those that could run the layer among neighbours on tiles of `element`."""
        return [kernel for kernel in self.kernels.values() if works_on_tiles(kernel, element)]


def time_kernels(
    layer: Layer,
    relu: bool,
    x: Tensor,
    *more: Tensor,
    machine: Machine,
    precision: Precision,
    kernels: Sequence[Kernel],
) -> LayerTiming:
    """Build, prove and time the kernels on the layer's real input `x` (batch, *input_shape); bilinear has one `more`.

    Raises EngineError where a kernel does not compute what PyTorch does.

    >>> asked = {"machine": machine, "precision": Precision(), "kernels": [pytorch.KERNEL]}
    >>> time_kernels(layer, True, x, **asked).choice.reason
    'the only one possible'
    """
    refusals = _refusals(layer, x, machine, precision, kernels)
    possible = [kernel for kernel in kernels if refusals[kernel.name] is None]
    accepted = [kernel for kernel in possible if kernel.layout != "tiles"]
    built = {kernel.name: kernel.build(layer, machine, precision, relu) for kernel in accepted}
    errors = _proved(possible, built, layer, relu, (x, *more))
    seconds = raced({name: partial(function, x, *more) for name, function in built.items()}, stop_watch())
    name = preferred(seconds)
    choice = Choice(
        layer=layer.name,
        op=layer.op,
        weight_shape=tuple(layer.weight.shape),
        sparsity=layer.sparsity,
        kernel=name,
        seconds=seconds,
        refused={name: why for name, why in refusals.items() if why is not None},
        reason=reason_for(seconds, name),
        error=errors[name],
        skips=next(kernel.skips for kernel in accepted if kernel.name == name),
    )
    joinable = _joinable(built, seconds)
    of_use = {name, joinable, "dense", "channels_last"}
    kept = {name: function for name, function in built.items() if name in of_use}
    return LayerTiming(tuple(kernels), choice, kept, joinable, errors)


def timing_of_alike(
    known: LayerTiming, layer: Layer, relu: bool, x: Tensor, target: tuple[Machine, Precision],
    kernels: Sequence[Kernel],
) -> LayerTiming | None:  # fmt: skip
    """The timing of a layer that is alike, `known`, for this one: its kernels of use are built, proved and not timed.

    None where other kernels accept this layer. Raises EngineError as `time_kernels`.
    """
    refusals = _refusals(layer, x, *target, kernels)
    refused = {name: why for name, why in refusals.items() if why is not None}
    if {*refused} != {*known.choice.refused}:
        return None
    possible = [kernel for kernel in kernels if kernel.name not in refused]
    used = [kernel for kernel in possible if kernel.name in known.built]
    built = {kernel.name: kernel.build(layer, *target, relu) for kernel in used}
    asked = [kernel for kernel in possible if kernel.name in built or kernel.layout == "tiles"]
    errors = known.errors | _proved(asked, built, layer, relu, (x,))
    choice = replace(
        known.choice,
        layer=layer.name,
        sparsity=layer.sparsity,
        refused=refused,
        error=errors[known.choice.kernel],
        reason=f"as in {known.choice.layer}, which is alike",
    )
    return LayerTiming(tuple(kernels), choice, built, known.joinable, errors)


def _refusals(
    layer: Layer, x: Tensor, machine: Machine, precision: Precision, kernels: Sequence[Kernel]
) -> dict[str, str | None]:
    """Name of a kernel -> None, or why it does not run the layer on inputs like `x`."""
    return {
        kernel.name: _no_images(kernel, layer, x)
        or kernel.accepts(layer, machine, precision)
        or kernel.suits(layer, x)
        for kernel in kernels
    }


def _proved(
    possible: Sequence[Kernel], built: Mapping[str, Callable[..., Tensor]], layer: Layer, relu: bool,
    given: tuple[Tensor, ...],
) -> dict[str, float]:  # fmt: skip
    """The errors of the kernels; EngineError where one that is built does not compute what its reference does."""
    answers = {name: function(*given) for name, function in built.items()}
    expected = cache(partial(_expected, layer, relu, given[0]))  # most kernels have the same reference
    for kernel in (each for each in possible if each.name in built):
        if not _is_right(kernel, answers[kernel.name], expected):
            raise EngineError(
                f'kernel "{kernel.name}" computes layer "{layer.name}" {tuple(layer.weight.shape)} wrongly on '
                "this machine. Leave it out with kernels=..., and please report it."
            )
    return _errors(possible, answers, layer, relu, given[0])


def _no_images(kernel: Kernel, layer: Layer, x: Tensor) -> str | None:
    """None, or that a kernel of images is not for `x`: torch also convolves one image without a batch."""
    unbatched = layer.op == "conv2d" and kernel.layout != "rows" and x.ndim != 4
    return "its input is one image, and no batch of them" if unbatched else None


def _joinable(built: Mapping[str, Callable[[Tensor], Tensor]], seconds: Mapping[str, float]) -> str:
    """The fastest kernel that can be called together with its neighbours; dense where there is none."""
    able = {name: seconds[name] for name, function in built.items() if isinstance(function, CompiledLinear)}
    return preferred(able) if able else "dense"


def reason_for(seconds: Mapping[str, float], name: str) -> str:
    """Why the kernel of that name was chosen.

    >>> reason_for({"dense": 1.0, "sell": 0.98}, "dense")
    'sell is less than 5% faster'
    """
    least = min(seconds, key=seconds.__getitem__)
    if len(seconds) == 1:
        return "the only one possible"
    return "fastest" if seconds[name] <= seconds[least] else f"{least} is less than {CLOSE:.0%} faster"


def _expected(
    layer: Layer, relu: bool, x: Tensor, reference: Callable[[Layer, Tensor, bool], Tensor]
) -> tuple[Tensor, Tensor]:
    """What the reference of a kernel computes, and the sums of absolute products to which its rounding is related."""
    bias = None if layer.bias is None else layer.bias.abs()
    magnitude = reference(replace(layer, weight=layer.weight.abs(), bias=bias), x.abs(), False)
    return reference(layer, x, relu), magnitude


def _is_right(
    kernel: Kernel, y: Tensor, expected_of: Callable[[Callable[..., Tensor]], tuple[Tensor, Tensor]]
) -> bool:
    """Whether `y` is what the kernel's reference computes, wherever that is finite."""
    if kernel is pytorch.KERNEL:
        return True  # it is what others are compared with
    expected, magnitude = expected_of(kernel.reference)
    if y.shape != expected.shape:
        return False
    close = (y - expected).abs() <= kernel.tolerance * magnitude
    return bool((close | ~expected.isfinite()).all())


def _errors(
    kernels: Sequence[Kernel], answers: Mapping[str, Tensor], layer: Layer, relu: bool, x: Tensor
) -> dict[str, float]:
    """Name of a kernel -> its largest difference from the layer in fp32, as share of its largest output.

    0 where nothing is rounded. A kernel that works among neighbours on tiles has no answer yet: that of its reference
    for a few examples is taken, which several kernels share.
    """

    def error(answer: Tensor) -> float:
        return relative_error(answer, pytorch.reference(layer, x, relu))

    few = x[:FEW] if x.ndim > len(layer.input_shape) else x
    rounded = cache(
        lambda reference: relative_error(reference(layer, few, relu), pytorch.reference(layer, few, relu))
    )
    exact = {kernel.name: 0.0 for kernel in kernels if kernel.reference is pytorch.reference}
    others = [kernel for kernel in kernels if kernel.name not in exact]
    return exact | {
        each.name: error(answers[each.name]) if each.name in answers else rounded(each.reference)
        for each in others
    }
