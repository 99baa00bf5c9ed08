"""What leaves each layer: its output after the activation function and the pooling that follow it.

Han et al. 2015 count zeros there, which is what reproduces their tables' totals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.measure.zeros import Tally

# What may stand between a layer and the next without ending its output. Not those that move elements between
# channels (flatten): the share would be the same, its channels lost. Nor hardshrink, a threshold on what the next
# layer reads: the zeros that a threshold adds are the difference between an output and the input that follows.
CARRY_ON = frozenset(
    ["relu", "relu_", "relu6", "hardtanh", "leaky_relu", "leaky_relu_", "prelu", "elu", "selu", "celu", "threshold",
     "threshold_", "clamp", "clamp_", "gelu", "silu", "mish", "softplus", "hardswish", "hardsigmoid",
     "sigmoid", "tanh", "batch_norm", "local_response_norm", "dropout", "boolean_dispatch", "max_pool2d",
     "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"]
)  # fmt: skip

Count = Callable[[Tensor, str], Tally]
"""Counts a tensor that the layer of this name reads or hands on."""


class Outputs(TorchFunctionMode):
    """While active, follows each layer's output through the operations in CARRY_ON and counts what it became.

    A tensor is counted as soon as something else reads it, so that it is not kept alive, and before something
    else overwrites it. Of several continuations (a branch with pooling, one without) the last one counts.
    """

    def __init__(self, count: Count) -> None:
        super().__init__()
        self._count = count
        self._layer = WeakTensorKeyDictionary()  # tensor -> name of the layer it left
        self._left: dict[str, Tensor | Tally] = {}  # layer -> what left it, once or not yet counted

    def starts(self, layer: str, output: Tensor) -> None:
        """The layer has run; `output` has left it."""
        self._layer[output] = layer
        self._left[layer] = output

    def ends(self, layer: str) -> Tally | None:
        """The tally of what left the layer since it ran, if it did; it is told once."""
        self._settle(layer)
        return self._left.pop(layer, None)  # type: ignore[return-value]  # settled: a Tally

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given, carries = [*args, *(kwargs or {}).values()], _name(func) in CARRY_ON
        if not carries and _overwrites(_name(func), kwargs):
            self._read(given)
        result = func(*args, **(kwargs or {}))
        layer = self._layer.get(given[0]) if carries and isinstance(given[0], Tensor) else None
        if layer is not None and isinstance(result, Tensor):
            self.starts(layer, result)
        elif next(_tensors([result]), None) is not None:  # a question such as x.size() reads nothing
            self._read(given)
        return result

    def _read(self, given: Iterable[Any]) -> None:
        for tensor in _tensors(given):
            layer = self._layer.get(tensor)
            if layer is not None and self._left.get(layer) is tensor:
                self._settle(layer)

    def _settle(self, layer: str) -> None:
        left = self._left.get(layer)
        if isinstance(left, Tensor):
            self._left[layer] = self._count(left, layer)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among the values, and in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", "")


def _overwrites(name: str, kwargs: Any) -> bool:
    """Whether the operation may change what it is given: `add_`, `x += y`, `x[i] = y`, `out=`."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name.startswith("__i") or name == "__setitem__" or "out" in (kwargs or {})
