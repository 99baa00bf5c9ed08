"""The output of each layer after the activation function and the pooling that follow it.

Han et al. 2015 count zeros there: only these counts reproduce the totals of their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.graph.channel_flow import Keywords
from zeroskip.measure.tensor_zeros import TensorZeros

# Operations between a layer and the next that belong to the layer's output. Not those that move elements between
# channels (flatten): the share would be the same, its channels lost. Nor hardshrink, a threshold on the input of the
# next layer: the zeros that it adds are the difference between an output and the input that follows.
CARRY_ON = frozenset(
    ["relu", "relu_", "relu6", "hardtanh", "leaky_relu", "leaky_relu_", "prelu", "elu", "selu", "celu", "threshold",
     "threshold_", "clamp", "clamp_", "gelu", "silu", "mish", "softplus", "hardswish", "hardsigmoid",
     "sigmoid", "tanh", "batch_norm", "local_response_norm", "dropout", "boolean_dispatch", "max_pool2d",
     "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"]
)  # fmt: skip


class Outputs(TorchFunctionMode):
    """While active, follows each layer's output through the operations in CARRY_ON and counts its zeros after them.

    A tensor is counted as soon as another operation reads it, so that it is not kept alive, and before one overwrites
    it. Of several continuations (a branch with pooling, one without) the last one counts.
    count  called as count(tensor, layer's name)
    """

    def __init__(self, count: Callable[[Tensor, str], TensorZeros]) -> None:
        super().__init__()
        self._count = count
        self._layer = WeakTensorKeyDictionary()  # tensor -> name of the layer it left
        self._left: dict[str, Tensor | TensorZeros] = {}  # layer -> its output, or the zeros counted in it

    def begin(self, layer: str, output: Tensor) -> None:
        """The layer has run and returned `output`."""
        self._layer[output] = layer
        self._left[layer] = output

    def take(self, layer: str) -> TensorZeros | None:
        """The zeros of the layer's output since it ran; None if it did not, or if they were taken before."""
        self._settle(layer)
        zeros = self._left.pop(layer, None)
        return zeros if isinstance(zeros, TensorZeros) else None

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Sequence[object] = (), kwargs: Keywords = None
    ) -> object:
        arguments, carries = [*args, *(kwargs or {}).values()], _name(func) in CARRY_ON
        if not carries and _overwrites(_name(func), kwargs):
            self._read(arguments)
        result = func(*args, **(kwargs or {}))
        layer = self._layer.get(arguments[0]) if carries and isinstance(arguments[0], Tensor) else None
        if layer is not None and isinstance(result, Tensor):
            self.begin(layer, result)
        elif next(_tensors([result]), None) is not None:  # a question such as x.size() reads nothing
            self._read(arguments)
        return result

    def _read(self, arguments: Iterable[object]) -> None:
        for tensor in _tensors(arguments):
            layer = self._layer.get(tensor)
            if layer is not None and self._left.get(layer) is tensor:
                self._settle(layer)

    def _settle(self, layer: str) -> None:
        left = self._left.get(layer)
        if isinstance(left, Tensor):
            self._left[layer] = self._count(left, layer)


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among the values, and in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _name(func: Callable[..., object]) -> str:
    return getattr(func, "__name__", "")


def _overwrites(name: str, kwargs: Keywords) -> bool:
    """Whether the operation may change its arguments: `add_`, `x += y`, `x[i] = y`, `out=`."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name.startswith("__i") or name == "__setitem__" or "out" in (kwargs or {})
