"""A compiled network: what it is made of, how it is called, and whether the network was changed since."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Kernel, Machine, Precision
from zeroskip.errors import EngineError
from zeroskip.graph import Graph
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.measurement import Measurement, table
from zeroskip.run.runner import Runner

# FakeTensor and others that only look like memory are subclasses; machine code would follow their address.
PLAIN = (Tensor, nn.Parameter)


@dataclass(frozen=True)
class Origin:
    """A network and how each of its layers is computed.

    dtype    of the network's input
    kernels  node of a layer -> its kernel, unless the layer works on tiles
    tiles    operation on tiles that has weights -> its kernel; empty: nothing works on tiles. All of them have the
             same `element`, which is that of the maps
    images   that are worked on at a time there
    """

    graph: Graph
    dtype: torch.dtype
    precision: Precision
    kernels: dict[str, Kernel]
    tiles: dict[str, Kernel]
    images: int = 1


@dataclass(frozen=True)
class CompiledNetwork:
    """What a program runs; `graph` has a node for each segment on tiles, in place of the nodes it stands for."""

    run: Runner
    origin: Origin
    machine: Machine
    graph: Graph


class Program:
    """A network compiled for this machine: call it with a batch of any size, also from several threads.

    It answers as the network does in evaluation mode, up to rounding and to one documented difference: a zero
    weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch (not so where it
    was compiled with strict=True). Inputs in any memory layout are taken, and copied where a kernel needs another;
    gradients do not pass: an input that asks for them is detached. Everything else is refused with an EngineError:
    another dtype, shape or device, sparse tensors, subclasses of Tensor. It was tuned for `batch` examples at once
    and `threads` threads. `print(program)` shows which kernel runs each layer.

    seconds, dense_seconds  of one call on the example batch; the latter with every layer dense, measured in turns
    error                   0 where no layer is rounded; otherwise the largest difference from the network on the
                            example batch, as share of its largest output
    changed                 tells whether the network was changed after it was compiled
    scratch                 bytes of working memory of one call, for layers on tiles
    through                 what PyTorch computes between the layers, e.g. ("flatten", "softmax")
    origin                  what it was made from, which `run.save` keeps

    >>> program = run.compile(model, x)
    >>> program(x).shape, program.precision, program.batch, program.threads
    (torch.Size([3, 4]), 'fp32', 3, 1)
    """

    def __init__(
        self, compiled: CompiledNetwork, measurement: Measurement, changed: Callable[[], bool]
    ) -> None:
        self.compiled, self.measurement, self.changed = compiled, measurement, changed
        self.origin, self.machine = compiled.origin, compiled.machine
        self.scratch = _scratch_bytes(compiled.graph, measurement.threads)
        self.through = _through(compiled.graph)
        self.choices, self.precision = measurement.choices, measurement.precision
        self.threads, self.batch, self.error = measurement.threads, measurement.batch, measurement.error
        self.seconds, self.dense_seconds = measurement.seconds, measurement.dense_seconds
        self._run, self._rebuild = compiled.run, self.origin.graph.rebuild
        self._dtype, self._shape = self.origin.dtype, torch.Size(self.origin.graph.shape)

    def __call__(self, x: Tensor) -> Any:
        """What the network returns for `x`. EngineError for an input that is refused, or changed weights."""
        if not self._fits(x):
            raise EngineError(self.refusal(x))
        if self.changed():
            raise EngineError(
                "the network was changed after it was compiled: a parameter, buffer or module is another one or "
                "was written to, so the program's answers would be old. Compile again with run.compile."
            )
        return self._rebuild(self._run(_plain(x)))

    def __str__(self) -> str:
        return table(self.measurement, self.machine, self.scratch, self.through)

    def refusal(self, x: Any) -> str | None:
        """None where the program takes `x`; otherwise why not, and the line that converts it.

        >>> print(run.compile(model, x).refusal(torch.zeros(2, 9)))
        the program was compiled for a dense tensor (batch, 6) of torch.float32 on the cpu, and was given (2, 9) of
        torch.float32 on cpu. Give examples of that shape, the batch first, or compile again with one of the new shape.
        """
        if self._fits(x):
            return None
        shape = ", ".join(["batch", *map(str, self._shape)])
        wanted = f"a dense tensor ({shape}) of {self._dtype} on the cpu"
        given = f"a {type(x).__name__}"
        if isinstance(x, Tensor):
            kind = "" if type(x) in PLAIN else f"{given} "
            layout = "" if x.layout is torch.strided else f", stored as {x.layout}"
            given = f"{kind}{tuple(x.shape)} of {x.dtype} on {x.device}{layout}"
        return f"the program was compiled for {wanted}, and was given {given}. {self._remedy(x)}"

    def _fits(self, x: Any) -> bool:
        return (
            type(x) in PLAIN
            and x.dtype is self._dtype
            and x.shape[1:] == self._shape
            and x.ndim > 0
            and x.is_cpu
            and x.layout is torch.strided
        )

    def _remedy(self, x: Any) -> str:
        if not isinstance(x, Tensor):
            return "Convert it with torch.as_tensor(x)."
        if type(x) not in PLAIN:
            return "Convert it with x.as_subclass(torch.Tensor) if it holds plain numbers."
        if x.layout is not torch.strided:
            return "Convert it with x.to_dense()."
        if not x.is_cpu:
            return "Move it with x.cpu()."
        if x.dtype.is_complex and not self._dtype.is_complex:
            return "Convert it with x.real or x.abs(), whichever is meant."
        if x.dtype is not self._dtype:
            return f"Convert it with x.to({self._dtype})."
        return "Give examples of that shape, the batch first, or compile again with one of the new shape."


def _scratch_bytes(graph: Graph, threads: int) -> int:
    """Working memory that one call of a network on tiles needs."""
    segments = [node.function for node in graph.nodes if isinstance(node.function, Segment)]
    return threads * sum(segment.code.bytes for segment in segments)


def _through(graph: Graph) -> tuple[str, ...]:
    """The operations that are neither layers nor on tiles, by torch's names."""
    others = [
        node.op for node in graph.nodes if node.layer is None and not isinstance(node.function, Segment)
    ]
    names = [op.removeprefix("aten.").split(".")[0] for op in others]
    return tuple(dict.fromkeys(name for name in names if name != "getitem"))


def _plain(x: Tensor) -> Tensor:
    """The same numbers as they lie in memory: without gradient, row by row, no sign left to be turned."""
    x = x.detach() if x.requires_grad else x
    x = x if x.is_contiguous() else x.contiguous()
    return x.resolve_neg() if x.is_neg() else x


def watch(model: nn.Module) -> Callable[[], bool]:
    """A function that tells whether the parameters, buffers, modules or thresholds of `model` are others than now.

    It sees tensors that were replaced, moved or written to. What it cannot see is what goes through `.data` and
    stays in the same memory (`weight.data.mul_(0)`), which PyTorch does not count either. About 2 us for ten
    tensors. The memory as it is now is kept, so that no other tensor can come to lie there.

    >>> changed = watch(model)
    >>> changed()
    False
    """
    places: list[tuple[Any, ...]] = [
        (table, key, value)
        for module in model.modules()
        for table in (module._parameters, module._buffers, module._modules, module._forward_pre_hooks)
        for key, value in table.items()
    ]
    tables, keys, values = ([place[part] for place in places] for part in range(3))
    tensors = [value for value in values if isinstance(value, Tensor)]
    # Tensors made under torch.inference_mode() do not count their changes; the others share the count with what
    # they are detached from.
    counted = [tensor.detach() for tensor in tensors if not tensor.is_inference()]
    # A threshold is a hook, and one that comes new changes answers as well.
    hooks = [module._forward_pre_hooks for module in model.modules()]
    hooked = list(map(len, hooks))
    version = operator.attrgetter("_version")
    versions, addresses = list(map(version, counted)), list(map(Tensor.data_ptr, tensors))

    def changed() -> bool:
        # This runs at every call of a program; `map` over C functions is three times faster than a loop.
        same = all(map(operator.is_, map(dict.get, tables, keys), values))
        same = same and list(map(version, counted)) == versions and list(map(len, hooks)) == hooked
        return not (same and list(map(Tensor.data_ptr, tensors)) == addresses)

    return changed


def as_module(program: Program, model: nn.Module) -> nn.Module:
    """A module that runs `program` where `model` would run, so that a task's `evaluate` can take it.

    It has the model's parameters and answers to `eval()`; training it is of no use.

    >>> module = as_module(run.compile(model, x), model)
    >>> module(x).shape, len(list(module.parameters()))
    (torch.Size([3, 4]), 4)
    """
    return _Running(program, model)


class _Running(nn.Module):
    def __init__(self, program: Program, model: nn.Module) -> None:
        super().__init__()
        self.model = model  # for evaluate functions that ask for parameters() or their device
        self._program = program

    def forward(self, x: Tensor) -> object:
        return self._program(x)
