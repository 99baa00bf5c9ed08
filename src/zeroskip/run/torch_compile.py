"""zeroskip behind torch.compile: `torch.compile(model, backend="zeroskip")`."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, fx, nn

from zeroskip.errors import ZeroskipError
from zeroskip.graph.recurrent import GATES
from zeroskip.run.call_checks import PLAIN
from zeroskip.run.compiler import compile
from zeroskip.run.program import Program

MIXED = (
    "besides weights and tensors, numbers go in that are no sizes of these. If that is due to dynamic=True, which "
    "makes inputs of a batch norm's eps and other numbers: leave it out."
)
NO_TENSOR = "besides its weights, no tensor goes in."

NO_BYTES = (
    "eight bits need the scales of a calibrated network, and torch.compile makes graphs of its own of it. Compile it "
    'itself: run.compile(model, example, precision="int8", quantisation=run.calibrate(model, batches)).'
)

PATIENCE = 3  # programs in a row that are compiled for a single call


def zeroskip(
    graph: fx.GraphModule, inputs: Sequence[object], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Sequence[Tensor]]:
    """The backend of `fast = torch.compile(model, backend="zeroskip")`; `options` are keywords of `run.compile`.

    Each graph is compiled at its first call, which takes seconds, and again at the first call after a weight was
    changed. A graph is left to PyTorch, with one warning that says why, where a program could not repeat it: answers
    that carry gradients (so call it under `torch.no_grad()`: training stays what it was), autocast, random numbers,
    overwritten inputs or statistics, numbers as inputs, outputs that are no tensors or share memory, eight bits, and
    whatever `run.compile` refuses; so are calls of more sizes than `sizes`. Other numbers of examples are no other
    size. A graph without weights stays with PyTorch in silence. A few numbers written through `.data` may not be
    noticed; see `change_watch.watch`.

    >>> with torch.no_grad():
    ...     same = torch.compile(model, backend="zeroskip")(x).isclose(model(x), rtol=1e-3)
    >>> same.all()
    tensor(True)
    """
    if not any(_is_weight(node) for node in _placeholders(graph)):
        return graph.forward
    given = dict(options or {})
    in_bytes = given.get("precision") == "int8" or given.get("quantisation") is not None
    signature = NO_BYTES if in_bytes else _signature_of(graph)
    if isinstance(signature, str):
        return _left(graph, signature)
    return _LazyProgram(graph, signature, {"threads": torch.get_num_threads(), **given})


_Inputs = Sequence[Any]
"""What a graph is called with: weights, tensors, sizes."""


@dataclass(frozen=True)
class _Signature:
    """Which of a graph's inputs are what, by position: weights, tensors, and sizes (position -> tensor and axis)."""

    names: tuple[str, ...]
    weights: tuple[int, ...]
    tensors: tuple[int, ...]
    sizes: dict[int, tuple[int, int]]


class _Bound(nn.Module):
    """A graph with its weights bound: a network of its tensors."""

    def __init__(self, graph: fx.GraphModule, signature: _Signature, given: _Inputs) -> None:
        super().__init__()
        self.graph, self._signature, self._names = graph, signature, dict[int, str]()
        for position in signature.weights:
            short = _short(signature.names[position])
            name = self._names[position] = signature.names[position] if hasattr(self, short) else short
            is_parameter = isinstance(given[position], nn.Parameter)
            (self.register_parameter if is_parameter else self.register_buffer)(name, given[position])

    def forward(self, *tensors: Tensor) -> object:
        signature = self._signature
        arguments = {position: getattr(self, name) for position, name in self._names.items()}
        arguments |= dict(zip(signature.tensors, tensors, strict=True))
        arguments |= {at: arguments[tensor].shape[axis] for at, (tensor, axis) in signature.sizes.items()}
        # Its call prints the traceback of what it raises, also of a number of examples that is only tried.
        return self.graph.forward(*(arguments[position] for position in range(len(signature.names))))


class _LazyProgram:
    """A graph that becomes a program when it is first called, and again when its weights have changed."""

    def __init__(self, graph: fx.GraphModule, signature: _Signature, options: Mapping[str, Any]) -> None:
        self._graph, self._signature, self._options = graph, signature, options
        self._lock, self._is_left, self._in_a_row = Lock(), False, 0
        self._program: Program | None = None
        self._weights: list[Tensor] = []
        self._layouts: list[torch.memory_format | None] = []

    def __call__(self, *given: Any) -> Sequence[Tensor]:
        tensors = [given[position] for position in self._signature.tensors]
        with self._lock:  # two threads would compile twice
            # Of an empty batch nothing can be learnt.
            program = self._current(given) if all(each.numel() for each in tensors) else None
        if program is None:
            return self._graph(*given)
        try:
            with warnings.catch_warnings():  # the user of torch.compile knows no examples=[...]
                warnings.filterwarnings("ignore", "the program was compiled for", UserWarning)
                answers = program(*tensors)
        except ZeroskipError as error:
            _left(self._graph, f"an input is not like the first one: {error}")
            return self._graph(*given)
        return [_in_layout(y, layout) for y, layout in zip(answers, self._layouts, strict=True)]

    def _current(self, given: _Inputs) -> Program | None:
        """The program of the weights as they are now; None where the graph is left to PyTorch."""
        weights = [given[position] for position in self._signature.weights]
        program, same = self._program, all(map(operator.is_, weights, self._weights))
        if self._is_left:
            return None
        if program is not None and same and not program.changed():
            self._in_a_row = 0
            return program
        self._in_a_row += 1
        # Nothing of what is tried here may leave a trace: neither random numbers nor changed tensors.
        grad = torch.is_grad_enabled()
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.set_grad_enabled(grad):
            self._program, reason = self._compiled(given)
        self._weights, self._is_left = weights, reason is not None
        if reason is not None:
            _left(self._graph, reason)
        return self._program

    def _compiled(self, given: _Inputs) -> tuple[Program | None, str | None]:
        """A program, or the reason why there is none."""
        if self._in_a_row > PATIENCE:
            return None, "its weights change at every call, and compiling takes longer than running it."
        obstacle, self._layouts = _trial_run(self._graph, given)
        if obstacle is not None:
            return None, obstacle
        bound = _Bound(self._graph, self._signature, given)
        example = tuple(given[position].detach().clone() for position in self._signature.tensors)
        try:
            if not _is_recurrent(self._graph):
                return compile(bound, example, **self._options), None
            reason = ""
        except ZeroskipError as error:
            reason = str(error)
        try:  # what goes in need not be examples along the first axis
            return compile(bound, example, **{**self._options, "batch_axis": None}), None
        except ZeroskipError as error:
            return None, reason or str(error)


def _is_recurrent(graph: fx.GraphModule) -> bool:
    """Whether it calls torch's LSTM, GRU or RNN, which crash on first states of another number of examples."""
    return any(getattr(node.target, "__name__", "") in GATES for node in graph.graph.nodes)


def _left(graph: fx.GraphModule, reason: str) -> Callable[..., Sequence[Tensor]]:
    warnings.warn(f"zeroskip leaves a graph to PyTorch: {reason}", stacklevel=3)
    return graph.forward


def _placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _is_weight(node: fx.Node) -> bool:
    """Whether torch.compile takes the input for a tensor that belongs to a module."""
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})


def _signature_of(graph: fx.GraphModule) -> _Signature | str:
    """What goes in; a reason where it is not weights, tensors and sizes of these."""
    nodes = _placeholders(graph)
    weights = tuple(position for position, node in enumerate(nodes) if _is_weight(node))
    shown: list[Any] = [node.meta.get("example_value") for node in nodes]
    others = [position for position in range(len(nodes)) if position not in weights]
    tensors = tuple(position for position in others if isinstance(shown[position], Tensor))
    if not tensors:
        return NO_TENSOR
    axes: dict[str, tuple[int, int]] = {}
    for tensor in tensors:
        for axis, size in enumerate(shown[tensor].shape):
            axes.setdefault(str(size), (tensor, axis))
    rest = [position for position in others if position not in tensors]
    if any(str(shown[position]) not in axes for position in rest):
        return MIXED
    sizes = {position: axes[str(shown[position])] for position in rest}
    return _Signature(tuple(node.name for node in nodes), weights, tensors, sizes)


def _short(name: str) -> str:
    """The name of a weight for people: "layer1_0_conv1_weight" of "l_self_modules_layer1_modules_0_..."."""
    parts = re.split("_(?:modules|parameters|buffers)_", name)
    return "_".join(parts[1:]).rstrip("_") if len(parts) > 1 else name


def _trial_run(graph: fx.GraphModule, given: _Inputs) -> tuple[str | None, list[torch.memory_format | None]]:
    """None, or why a program could not stand for the graph; and how its outputs lie in memory."""
    if torch.is_autocast_enabled("cpu"):
        return "it runs under torch.autocast, whose types a program does not follow.", []
    copies = [each.clone() if isinstance(each, Tensor) else each for each in given]
    tensors = [each for each in copies if isinstance(each, Tensor)]
    if any(each.layout is not torch.strided or type(each) not in PLAIN for each in tensors):
        return "it works on sparse tensors or on a subclass of Tensor.", []
    versions, state = [each._version for each in tensors], torch.get_rng_state()
    outputs = graph(*copies)
    if not all(isinstance(each, Tensor) for each in outputs):
        return "it returns something besides tensors.", []
    if any(each.requires_grad for each in outputs):
        return "its answers carry gradients. To have it compiled, call it under torch.no_grad().", []
    if [each._version for each in tensors] != versions:
        return "it overwrites its inputs, or its statistics: is it in training mode?", []
    if not torch.equal(state, torch.get_rng_state()):
        return "it draws random numbers: is it in training mode?", []
    memories = [each.untyped_storage().data_ptr() for each in (*outputs, *tensors)]
    if any(memories.count(memory) > 1 for memory in memories[: len(outputs)]):
        return "its outputs share memory with each other or with its inputs.", []
    return None, [_layout(each) for each in outputs]


def _layout(y: Tensor) -> torch.memory_format | None:
    """How the tensor lies in memory, where that has a name: what reads it may insist on the same."""
    if y.is_contiguous():
        return torch.contiguous_format
    pixelwise = y.ndim == 4 and y.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if pixelwise else None


def _in_layout(y: Tensor, layout: torch.memory_format | None) -> Tensor:
    return y if layout is None else y.contiguous(memory_format=layout)
