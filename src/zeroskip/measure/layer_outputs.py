"""The output of each layer after the normalisation, the activation function and the pooling that follow it.

Han et al. 2015 count zeros there: only these counts reproduce the totals of their tables.

An output is followed as long as operations read nothing else that changes with the input, and keep its shape or pool
it: `norm(x)`, `clamp(x, 0)`, `2 * x + bias`, `x * sigmoid(x)`. It ends where a layer reads it, or the network returns
it. Where something else does (a sum of two branches, a softmax of products), zeros may be made that are of no layer:
then the output is known only if it had been through its ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Size, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.graph.channel_flow import Keywords
from zeroskip.graph.weight_runs import RECURRENT, Products, Run, memory_of
from zeroskip.measure.tensor_zeros import TensorZeros

# A threshold on the input of the next layer: the zeros that it adds are the difference between an output and the input
# that follows.
OF_THE_NEXT = "hardshrink"
# Parts of the names of functions that make zeros. One that is missing here makes an output unknown, never wrong.
RECTIFIERS = (
    "relu",
    "clamp",
    "clip",
    "threshold",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "maximum",
    "dropout",
)


@dataclass
class Output:
    """What leaves a run of a layer, or of the layers `names` that make it together, as those of an LSTM do.

    maps, steps_first  (n, channels, ...), or (steps, n, ..., channels), otherwise (n, ..., channels)
    tensor             as far as it was followed; None once its zeros are counted
    rectified          a function that makes zeros has run
    read               by a layer, so that nothing is unknown
    lost               something that is not followed read it
    """

    names: tuple[str, ...]
    maps: bool
    steps_first: bool
    tensor: Tensor | None
    shape: Size
    zeros: TensorZeros | None = None
    rectified: bool = False
    read: bool = False
    lost: bool = False

    @property
    def unknown(self) -> bool:
        """Whether zeros may have been made where it was not followed."""
        return self.lost and not self.read and not self.rectified


class Outputs(TorchFunctionMode):
    """While active, follows the outputs of layers and counts their zeros; `all` has them afterwards.

    A tensor is counted as soon as another operation reads it, so that it is not kept alive, and before one overwrites
    it. Of several continuations (a branch with pooling, one without) the last one counts.
    products  knows which tensors change with the network's input
    count     called as count(tensor, output)
    """

    def __init__(self, products: Products, count: Callable[[Tensor, Output], TensorZeros]) -> None:
        super().__init__()
        self.all: list[Output] = []
        self._products, self._count = products, count
        # tensor -> the Output that it was made from, and nothing else, and its version then: once it is overwritten,
        # through a view or itself, it holds something else
        self._of = WeakTensorKeyDictionary()
        self._runs: list[Run] = []

    def ran(self, run: Run) -> None:
        """A product with a weight was made, inside of the function that is being called."""
        self._runs.append(run)

    def finish(self) -> None:
        """Count what the network returned."""
        for output in self.all:
            self._settle(output)

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Sequence[object] = (), kwargs: Keywords = None
    ) -> object:
        given, name = _tensors((args, kwargs or {})), getattr(func, "__name__", "")
        changing = [tensor for tensor in given if self._products.changes(tensor)]
        owner, overwrites = self._owner(changing), _overwrites(name, kwargs)
        if owner is None and overwrites:
            self._lose(changing)
        self._runs.clear()
        result = func(*args, **(kwargs or {}))
        if self._runs:
            self._read(changing)
            self._begin(func, args, result)
        elif name == OF_THE_NEXT:
            self._read(changing)
        elif owner is None or not _tensors(result):  # a question such as x.size() reads nothing
            if _tensors(result):
                self._lose(changing)
        else:
            self._follow(owner, changing, given[0] if overwrites else result, name)
        return result

    def _owner(self, changing: Sequence[Tensor]) -> Output | None:
        """The output that all of the tensors were made from."""
        owners = [self._made_from(tensor) for tensor in changing]
        return owners[0] if owners and all(each is owners[0] for each in owners) else None

    def _made_from(self, tensor: Tensor) -> Output | None:
        output, version = self._of.get(tensor, (None, None))
        return output if version == version_of(tensor) else None

    def _begin(self, func: Callable[..., object], args: Sequence[object], result: object) -> None:
        names = tuple(dict.fromkeys(run.name for run in self._runs))
        recurrent, tensors = func in RECURRENT, _tensors(result)
        if not tensors or memory_of(tensors[0]) is None:
            return
        output = Output(
            names=names if recurrent else names[-1:],
            maps=self._runs[-1].op.startswith("conv"),
            steps_first=recurrent and args[-1] is False,
            tensor=tensors[0],  # of a recurrent layer and of attention; states and scores follow it
            shape=tensors[0].shape,
        )
        self.all.append(output)
        self._of[tensors[0]] = output, version_of(tensors[0])

    def _follow(self, output: Output, changing: Sequence[Tensor], result: object, name: str) -> None:
        for made in _tensors(result):
            whole = isinstance(result, Tensor) and made.shape == output.shape
            pooled = _pools(name) and changing[0].shape == output.shape and made.shape[:2] == output.shape[:2]
            if whole or pooled:
                output.tensor, output.shape, output.read, output.lost = made, made.shape, False, False
                output.rectified |= any(part in name for part in RECTIFIERS)
            elif memory_of(made) is None or memory_of(made) != memory_of(changing[0]):  # it is no view
                self._lose(changing)
            self._of[made] = output, version_of(made)

    def _read(self, tensors: Sequence[Tensor]) -> None:
        """A layer reads the tensors."""
        for tensor in tensors:
            output = self._made_from(tensor)
            if output is not None and not output.lost:
                output.read = True
                self._settle(output)

    def _lose(self, tensors: Sequence[Tensor]) -> None:
        """An operation that is not followed reads the tensors."""
        for tensor in tensors:
            output = self._made_from(tensor)
            if output is not None:
                self._settle(output)
                output.lost = True

    def _settle(self, output: Output) -> None:
        if output.tensor is not None:
            output.zeros, output.tensor = self._count(output.tensor, output), None


def version_of(tensor: Tensor) -> int | None:
    """How often the tensor's memory was overwritten; None where that is not counted."""
    return None if tensor.is_inference() else tensor._version


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _pools(name: str) -> bool:
    return "pool" in name or name == "boolean_dispatch"  # which is torch's name of F.max_pool2d


def _overwrites(name: str, kwargs: Keywords) -> bool:
    """Whether the operation may change its arguments: `add_`, `x += y`, `x[i] = y`, `out=`."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name.startswith("__i") or name == "__setitem__" or "out" in (kwargs or {})
