"""Every product of a network with one of its weights, seen while the network runs.

PyTorch calls a weight's product by one of a few names, whatever asked for it: mm, addmm, bmm, convolution. A weight is
known by its memory, so that views, transposes and parts of it are the weight; and what is computed from weights and
constants alone (a mask, weight norm, a copy in another order) is the weight that it was computed from.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from zeroskip.graph.weights import Weight, weights

ATEN = torch.ops.aten
# Name of the operation -> which of its arguments is the left factor (the right one follows), and which is added.
PRODUCTS = {
    ATEN.mm: (0, None), ATEN.bmm: (0, None), ATEN.mv: (0, None), ATEN.dot: (0, None),
    ATEN.addmm: (1, 0), ATEN.addmv: (1, 0), ATEN._addmm_activation: (1, 0), ATEN.baddbmm: (1, None),
    ATEN.addbmm: (1, None),
}  # fmt: skip
CONVOLUTIONS = (ATEN.convolution, ATEN._convolution)
ATTENTION = "aten::_scaled_dot_product"  # with the name of an implementation behind it
RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


@dataclass(frozen=True)
class Run:
    """One product with a weight: `weight` is oriented as in a Layer; x and y are the real tensors, batch included.

    `y` is the operation on x, weight and bias; of "bilinear", x is the first input.
    packed  rows are those of all examples that are not over yet, so that they have no shares of one size
    """

    name: str
    op: str
    weight: Tensor
    bias: Tensor | None
    x: Tensor
    y: Tensor
    geometry: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all examples together: each weight meets every position once."""
        positions = self.x if self.op.startswith("conv_transpose") else self.y
        return self.weight.numel() * (positions.numel() // max(self.weight.shape[0], 1))


class Source(NamedTuple):
    """A weight, and the part of a memory that comes from it."""

    name: str
    start: int
    stop: float


class Products(TorchDispatchMode):
    """While active, calls `ran` with each Run, right after it.

    unweighted  multiply-accumulates of products in which no weight took part (attention scores, fixed filters)
    read        weights that any operation read

    >>> runs = []
    >>> with torch.no_grad(), watched(model, [x], runs.append):
    ...     _ = model(x)
    >>> [(run.name, run.op, tuple(run.y.shape)) for run in runs]
    [('fc1', 'linear', (3, 8)), ('fc2', 'linear', (3, 4))]
    """

    def __init__(
        self, named: Mapping[str, Weight], inputs: Sequence[Tensor], ran: Callable[[Run], None]
    ) -> None:
        super().__init__()
        self.unweighted, self.read = 0, set[str]()
        self.emit = ran
        self._sizes = {name: weight.tensor.shape for name, weight in named.items()}
        self._parameters: set[int] = set()
        # Memory -> the weights that it was made from; None where the network's inputs had a part in it. What is not
        # in here is constant. Each new tensor is entered, so it does no harm that addresses come again.
        self._sources: dict[int, tuple[Source, ...] | None] = {}
        for name, weight in named.items():
            for tensor in dict.fromkeys([weight.parameter, weight.tensor]):
                start = int(tensor.storage_offset())
                self._add(tensor, Source(name, start, start + tensor.numel()))
        self._sources |= {memory: None for tensor in inputs if (memory := memory_of(tensor)) is not None}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch.compile is imported, which takes a second

    def _add(self, tensor: Tensor, source: Source) -> None:
        if (memory := memory_of(tensor)) is not None:
            self._sources[memory] = (*(self._sources.get(memory) or ()), source)
            self._parameters.add(memory)

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():  # made of others: in inference mode these arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._follow(func, args, kwargs, result)
        return result

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Enter where the result comes from, and the product if it is one."""
        given = _tensors((args, kwargs))
        sources = [self._sources.get(memory, ()) for each in given if (memory := memory_of(each)) is not None]
        self.read |= {name for each in given for name in self.names(each)}
        product = self._product(func, args, result)
        changes = product or None in sources
        known = {memory_of(each) for each in given}
        for made in _tensors(result):
            memory = memory_of(made)
            fills = func._schema.is_mutable and memory not in self._parameters
            if memory is not None and changes:
                self._sources[memory] = None
            elif memory is not None and (memory not in known or fills):
                names = dict.fromkeys(name for each in given for name in self.names(each))
                self._sources[memory] = tuple(Source(name, 0, math.inf) for name in names)

    def names(self, tensor: Tensor) -> tuple[str, ...]:
        """The weights that a tensor is made of; none where it changes with the network's inputs."""
        memory = memory_of(tensor)
        sources = None if memory is None else self._sources.get(memory)
        start = tensor.storage_offset() if sources else 0
        return tuple(source.name for source in sources or () if source.start <= start < source.stop)

    def _is_plain(self, tensor: Tensor) -> bool:
        """Whether it is a weight itself, and not computed from one."""
        return memory_of(tensor) in self._parameters

    def changes(self, tensor: Tensor) -> bool:
        """Whether a tensor changes with the network's inputs."""
        memory = memory_of(tensor)
        return memory is None or self._sources.get(memory, ()) is None

    def _product(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        """Whether the operation multiplies; then the runs of it are handed on, or it is counted without a weight."""
        packet = func.overloadpacket
        if packet in PRODUCTS:
            first, added = PRODUCTS[packet]
            self._matrices(args[first], args[first + 1], None if added is None else args[added], result)
        elif packet in CONVOLUTIONS:
            self._convolution(args, result)
        elif packet is ATEN._trilinear:
            self._bilinear(args, result)
        elif func._schema.name.startswith(ATTENTION):
            query, key, value = args[:3]  # (n, heads, queries, features), (n, heads, keys, features)
            rows = query.numel() // max(query.shape[-1], 1)
            self.unweighted += rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        else:
            return False
        return True

    def _matrices(self, left: Tensor, right: Tensor, bias: Tensor | None, y: Tensor) -> None:
        """left (..., n, k) @ right (..., k, m): the weight is one of them."""
        if right.ndim == 1:
            left, right = left if left.ndim == 2 else left[None], right[:, None]
            y, bias = y.reshape(-1, 1), None
        lefts, rights = self.names(left), self.names(right)
        if lefts and rights and self._is_plain(left) and not self._is_plain(right):
            rights = ()
        if not lefts and not rights:
            self.unweighted += math.prod(left.shape) * right.shape[-1]
            return
        weight, x, y = (right.mT, left, y) if rights else (left, right.mT, y.mT)
        bias = bias if bias is not None and bias.ndim == 1 and rights else None
        names = rights or lefts
        name = self._owner(names, weight)
        if weight.ndim == 3 and (len(weight) == 1 or weight.stride(0) == 0):  # one for all
            weight = weight[0]
        if weight.ndim == 3:
            for matrix, read, made in zip(weight, x, y, strict=True):
                self.emit(Run(name, "linear", matrix, None, read, made))
        elif self._is_stacked(names, weight):
            self._stacked(names, Run(name, "linear", weight, bias, x, y))
        else:
            self.emit(Run(name, "linear", weight, bias, x, y))

    def _is_stacked(self, names: Sequence[str], weight: Tensor) -> bool:
        """Whether a matrix is several weights, one below the other."""
        sizes = [self._sizes[name] for name in names]
        widths = {size[1] for size in sizes if len(size) == 2}
        return (
            len(names) > 1 and widths == {weight.shape[1]} and sum(size[0] for size in sizes) == len(weight)
        )

    def _stacked(self, names: Sequence[str], run: Run) -> None:
        start = 0
        for name in names:
            stop = start + self._sizes[name][0]
            bias = None if run.bias is None else run.bias[start:stop]
            self.emit(Run(name, run.op, run.weight[start:stop], bias, run.x, run.y[..., start:stop]))
            start = stop

    def _convolution(self, args: tuple[Any, ...], y: Tensor) -> None:
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
        if not (names := self.names(weight)):
            positions = math.prod((x if transposed else y).shape[2:]) * len(x)
            self.unweighted += weight.numel() * positions
            return
        axes = weight.ndim - 2

        def each(sizes: Sequence[int]) -> tuple[int, ...]:
            return tuple(sizes) if len(sizes) == axes else tuple(sizes) * axes

        geometry = {"stride": each(stride), "padding": each(padding), "dilation": each(dilation)}
        if transposed:
            geometry["output_padding"] = each(output_padding)
        op = f"conv{'_transpose' if transposed else ''}{axes}d"
        self.emit(Run(self._owner(names, weight), op, weight, bias, x, y, geometry | {"groups": groups}))

    def _bilinear(self, args: tuple[Any, ...], y: Tensor) -> None:
        x, weight = args[:2]
        if names := self.names(weight):
            self.emit(Run(self._owner(names, weight), "bilinear", weight, None, x, y))
        else:
            self.unweighted += weight.numel() * len(x)

    def _owner(self, names: Sequence[str], weight: Tensor) -> str:
        """Of the weights that a tensor was computed from, the one of its size, or the largest."""
        sizes = {name: self._sizes[name].numel() for name in names}
        return max(names, key=lambda name: (sizes[name] == weight.numel(), sizes[name]))


class _Calls(TorchFunctionMode):
    """Turns tensors back into the shape in which functions got them, and lets recurrent layers run step by step."""

    def __init__(self, products: Products) -> None:
        super().__init__()
        self._products = products

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return self._linear(*args, **kwargs)
        if func in RECURRENT:
            with _step_by_step(), self._time_first(_examples_of_steps(args)):
                return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            query = args[0] if args else kwargs["query"]  # (queries, examples, features)
            with self._time_first(query.shape[1] if query.ndim == 3 else 1):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        runs: list[Run] = []
        with self._instead(runs.append) as emit:
            y = F.linear(input, weight, bias)
        if input.ndim > 1 and len(runs) == 1 and _same(runs[0], input, weight):
            runs = [Run(runs[0].name, "linear", runs[0].weight, bias, input, y)]
        for run in runs:
            emit(run)
        return y

    @contextmanager
    def _time_first(self, examples: int | None) -> Iterator[None]:
        """Inside, rows of linear layers are those of all examples at the first step, then at the second, ...

        examples  None: of as many as are not over yet, so that (1, rows, features) is all that can be said
        """

        def restored(run: Run) -> None:
            x, y, rows = run.x, run.y, run.x.shape[0]
            if x.ndim == 2 and examples is None:
                x, y = x[None], y[None]
            elif x.ndim == 2 and examples and rows != examples and rows % examples == 0:
                x, y = (each.reshape(-1, examples, each.shape[-1]).transpose(0, 1) for each in (x, y))
            emit(replace(run, x=x, y=y, packed=examples is None))

        with self._instead(restored) as emit:
            yield

    @contextmanager
    def _instead(self, ran: Callable[[Run], None]) -> Iterator[Callable[[Run], None]]:
        before = self._products.emit
        self._products.emit = ran
        try:
            yield before
        finally:
            self._products.emit = before


@contextmanager
def watched(model: nn.Module, inputs: Sequence[Tensor], ran: Callable[[Run], None]) -> Iterator[Products]:
    """Inside, `ran` is called with each product of `model` with a weight of its; `inputs` are what it runs on.

    Everything that is computed in one step elsewhere (attention, recurrent layers) is computed in parts.
    """
    with parametrize.cached(), _eager():
        products = Products(weights(model), inputs, ran)
        with products, _Calls(products):
            yield products


@contextmanager
def _eager() -> Iterator[None]:
    """Modules that torch.compile was applied to run as they were written."""
    if "torch._dynamo" not in sys.modules:  # then there are none, and its import takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _step_by_step() -> Iterator[None]:
    """Recurrent layers by PyTorch's own products: MKL-DNN has one operation for all steps."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _examples_of_steps(args: tuple[Any, ...]) -> int | None:
    """How many examples the arguments of a recurrent layer hold; None for a packed sequence."""
    if isinstance(args[3], list | tuple):  # data, sizes, states, weights, ...
        return None
    batch_first = args[-1]
    return cast(int, args[0].shape[0 if batch_first else 1])


def _same(run: Run, x: Tensor, weight: Tensor) -> bool:
    """Whether a run is that of the function that was called: inside of vmap it has more numbers."""
    return memory_of(run.weight) == memory_of(weight) and run.x.numel() == x.numel()


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def memory_of(tensor: Tensor) -> int | None:
    """What tensors that share memory have in common; None for kinds of tensors without a plain one."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # inside of vmap and the like
        return None
    try:
        return cast(int, tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None
