"""A compiled network: what it is made of, and how it is called."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Machine, Precision
from zeroskip.errors import EngineError, ZeroskipError
from zeroskip.graph import Graph
from zeroskip.graph.signature import of_tensor, places
from zeroskip.run.call_checks import (
    CHANGED,
    Key,
    converted,
    fails_on,
    first_warning,
    fit,
    is_length,
    key_of,
    not_served,
    plain,
    refusal,
    sentence,
    unknown_size,
    used_up,
)
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.integer_network import saturated
from zeroskip.run.measurement import Measurement, table
from zeroskip.run.padding import Shortening, TokenPadding, filled_up, lengths_of
from zeroskip.run.quantisation import Quantisation
from zeroskip.run.runner import Runner

MOST_LENGTHS = 64  # of sentences, that a program keeps besides the first


@dataclass(frozen=True)
class Origin:
    """A network and how each of its layers is computed.

    kernels  node of a layer -> its kernel, unless the layer works on tiles
    tiles    operation on tiles that has weights -> its kernel; empty: nothing works on tiles. All of them have the
             same `element`, which is that of the maps, but for some in int8
    images   that are worked on at a time there
    quantisation  if anything has eight bits because of it
    """

    graph: Graph
    precision: Precision
    kernels: dict[str, Kernel]
    tiles: dict[str, Kernel]
    images: int = 1
    quantisation: Quantisation | None = None


@dataclass(frozen=True)
class CompiledNetwork:
    """What a program runs for inputs of one size.

    graph      has a node for each segment on tiles, in place of the nodes it stands for
    functions  node of a layer that is not on tiles -> what computes it
    """

    run: Runner
    origin: Origin
    machine: Machine
    graph: Graph
    functions: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Further:
    """How a program comes to inputs of further sizes.

    make     the tensors of a call -> the network compiled for them, or EngineError
    repeats  the tensors of a call, and the same with one row in place of as many as there are examples -> whether the
             network computes the same of both; also True where it takes the former only
    fills    a padding, the tensors of a call -> whether sentences may be filled up to their length
    most     sizes in all
    """

    make: Callable[[Sequence[Tensor]], CompiledNetwork]
    repeats: Callable[[Sequence[Tensor], Sequence[Tensor]], bool]
    fills: Callable[[TokenPadding, Sequence[Tensor]], bool]
    most: int = 8


class Program:
    """A network compiled for this machine: call it as the network is called, with any number of examples.

    It answers as the network does in evaluation mode, up to rounding and to one documented difference: a zero
    weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch (not so where it
    was compiled with strict=True). Inputs in any memory layout are taken, and copied where a kernel needs another;
    gradients do not pass: an input that asks for them is detached. Inputs of another size are
    compiled for at their first call, by the same kernels (`run.compile`, `sizes`); sentences may have any length.
    Everything else is refused with an EngineError: another dtype or device, sparse tensors, subclasses of Tensor, other
    constants than in the example.
    It was tuned for `batch` examples at once and `threads` threads, and may be called from several threads.
    `print(program)` shows which kernel runs each layer.

    seconds, dense_seconds  of one call on the example batch; the latter with every layer dense, measured in turns
    error                   0 where no layer is rounded; otherwise the largest difference from the network on the
                            example batch, as share of its largest output
    changed                 tells whether the network was changed since; `change_watch.watch` says what is not noticed
    scratch                 bytes of working memory of one call, for layers on tiles
    through                 what PyTorch computes between the layers, e.g. ("flatten", "softmax")
    unreached               the weights that are in no layer, and why
    explanation             why it is not faster; None of a program saved by an older version
    origin                  what it was made from, which `run.save` keeps

    >>> program = run.compile(model, x)
    >>> program(x).shape, program.precision, program.batch, program.threads
    (torch.Size([3, 4]), 'fp32', 3, 1)
    """

    def __init__(
        self,
        compiled: CompiledNetwork,
        measurement: Measurement,
        changed: Callable[[], bool],
        further: Further | None = None,
        others: Sequence[CompiledNetwork] = (),
        padding: TokenPadding | None = None,
    ) -> None:
        self.compiled, self.measurement, self.changed, self.further = compiled, measurement, changed, further
        self.padding = padding
        self.origin, self.machine = compiled.origin, compiled.machine
        self.scratch = _scratch_bytes(compiled.graph, measurement.threads)
        self.through = _through(compiled.graph)
        self.choices, self.precision = measurement.choices, measurement.precision
        self.threads, self.batch, self.error = measurement.threads, measurement.batch, measurement.error
        self.seconds, self.dense_seconds = measurement.seconds, measurement.dense_seconds
        self.unreached, self.explanation = measurement.unreached, measurement.explanation
        graph = self.origin.graph
        self.inputs = graph.inputs
        self.signature = graph.signature or of_tensor(graph.names[0])
        self.places = places(self.signature)
        self._networks = {key_of(each.origin.graph): each for each in (compiled, *others)}
        self._lock, self._warned = Lock(), False
        self._repeated: set[tuple[bool, ...]] = set()  # which inputs' one row was seen to serve all
        # The call with tensors of the known size, by position, takes the shortest way.
        known = graph.inputs if self.signature.plain else ()
        self._known = [(each.dtype, torch.Size(each.shape), each.has_batch) for each in known]
        self._run, self._rebuild = compiled.run, graph.rebuild

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """What the network returns. EngineError for a call that is refused, or changed weights."""
        if not kwargs and len(args) == len(self._known) and fit(args, self._known):
            if self.changed():
                self._refuse_changed()
            try:
                return self._rebuild(self._run(*map(plain, args)))
            except ZeroskipError:
                raise
            except Exception as fact:  # of an operation of torch that refuses these numbers
                raise EngineError(fails_on(args, fact)) from fact
        given = self._given(args, kwargs)
        tensors = self._with_as_many_examples(given)
        if self.changed():
            self._refuse_changed()
        if tensors is not given:
            self._check_repeated(tensors, given)
        network, tensors, cut = self._network_for(tensors)
        try:
            values = network.run(*map(plain, tensors))
            return network.origin.graph.rebuild(values if cut is None else cut(values))
        except ZeroskipError:
            raise
        except Exception as fact:
            raise EngineError(fails_on(given, fact)) from fact

    def __str__(self) -> str:
        return table(self.measurement, self.machine, self.scratch, self.through)

    def __deepcopy__(self, memo: object) -> Program:
        return self  # nothing in it changes but the sizes that it is compiled for, which copies may share

    def generate(self, *args: object, **kwargs: object) -> None:
        """Refused: a program computes one call of forward.

        >>> run.compile(model, x).generate(x)
        Traceback (most recent call last):
        zeroskip.errors.EngineError: a program computes one call of forward, and keeps nothing between calls...
        """
        raise EngineError(
            "a program computes one call of forward, and keeps nothing between calls. Call it in a loop, with all "
            "tokens so far, or call model.generate."
        )

    def saturated(self, *args: object, **kwargs: object) -> int:
        """How many numbers of these inputs lie beyond the range that was calibrated for eight bits, or are NaN.

        >>> run.compile(model, x).saturated(x)
        0
        """
        origin, tensors = self.origin, self._tensors(args, kwargs)
        return saturated(origin.graph, origin.quantisation, tensors, origin.tiles | origin.kernels)

    @property
    def networks(self) -> tuple[CompiledNetwork, ...]:
        """The network of each size that it is compiled for, in the order in which they came.

        >>> len(run.compile(model, x).networks)
        1
        """
        return tuple(self._networks.values())

    def refusal(self, *args: object, **kwargs: object) -> str | None:
        """None where the program takes the call; otherwise why not, and what converts it.

        Whether it can be compiled for a further size is seen at the call.

        >>> print(run.compile(model, x).refusal(x.double()))
        the program was compiled for a dense tensor (batch, 6) of torch.float32 on the cpu, and was given (3, 6) of
        torch.float64 on cpu. Convert it with x.to(torch.float32).
        """
        try:
            tensors = self._tensors(args, kwargs)
            known = self._key(tensors) in self._networks or self._filled(tensors) is not None
        except EngineError as error:
            return str(error)
        return None if known or self.further is not None else self._unknown(tensors)

    def add(self, *args: object, **kwargs: object) -> None:
        """Compile for the size of such a call now, if it is a new one; EngineError as at the call.

        >>> program = run.compile(nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8))
        >>> program.add(torch.zeros(1, 1, 9, 9))
        >>> len(program.networks)
        2
        """
        self._compile_for(self._tensors(args, kwargs))

    def _tensors(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        """The tensors of a call, examples in all of them alike; EngineError where they are not as in the example."""
        return self._with_as_many_examples(self._given(args, kwargs))

    def _given(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        if (
            len(args) == 1
            and not kwargs
            and self.signature.single
            and not isinstance(args[0], (tuple, list, dict))
        ):
            tensors = cast("list[Tensor]", list(args))
        else:
            tensors = self.signature.tensors(args, kwargs)
        masks = {} if self.padding is None else {self.padding.mask: self.padding.hidden}
        tensors = [
            cast("Tensor", converted(each, tensor, masks.get(number)))
            for number, (each, tensor) in enumerate(zip(self.inputs, tensors, strict=True))
        ]
        for each, name, tensor in zip(self.inputs, self.places, tensors, strict=True):
            if (why := refusal(each, tensor)) is not None:
                raise EngineError(sentence(each, name if len(tensors) > 1 else "", tensor, why))
        return tensors

    def _with_as_many_examples(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors, those of one example repeated to as many as the others have."""
        counts = {
            name: len(tensor)
            for each, name, tensor in zip(self.inputs, self.places, tensors, strict=True)
            if each.has_batch
        }
        if len(set(counts.values())) < 2:
            return tensors
        most = max(counts.values())
        if set(counts.values()) != {1, most}:
            given = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise EngineError(
                f"the inputs differ in their number of examples: {given}. Give as many in each."
            )
        return [
            tensor.expand(most, *tensor.shape[1:]) if each.has_batch and len(tensor) == 1 else tensor
            for each, tensor in zip(self.inputs, tensors, strict=True)
        ]

    def _refuse_changed(self) -> None:
        with self._lock:  # while a further size is compiled, torch.export has other tensors in their places
            changed = self.changed()
        if changed:
            raise EngineError(CHANGED)

    def _check_repeated(self, tensors: Sequence[Tensor], given: Sequence[Tensor]) -> None:
        """EngineError where the network computes something else of `given`, seen at the first call like it."""
        repeated = tuple(len(tensor) != len(one) for tensor, one in zip(tensors, given, strict=True))
        if self.further is None or repeated in self._repeated:
            return
        with self._lock:  # the network itself answers, which several threads may not ask at once
            alike = self.further.repeats(tensors, given)
        if not alike:
            name, count = self.places[repeated.index(True)], len(tensors[repeated.index(True)])
            raise EngineError(
                f"{name} has one row for {count} examples, of which the network computes something else than of as "
                f"many equal rows. Compile with an example of several rows in the other inputs and one in {name}, "
                "which is then the same for all examples; or repeat it: expand(count, ...)."
            )
        self._repeated.add(repeated)

    def _key(self, tensors: Sequence[Tensor]) -> Key:
        pairs = zip(self.inputs, tensors, strict=True)
        return tuple(tuple(tensor.shape[1:] if each.has_batch else tensor.shape) for each, tensor in pairs)

    def _network_for(self, tensors: list[Tensor]) -> tuple[CompiledNetwork, list[Tensor], Shortening | None]:
        """The network of the size of these tensors, the tensors, and what cuts the outputs if they were filled up.

        A network of a new size is compiled now.
        """
        if (network := self._networks.get(self._key(tensors))) is not None:
            return network, tensors, None
        padding, filled = self.padding, self._filled(tensors)
        if padding is not None and filled is not None:
            try:
                network = self._compile_for(filled[0])
                if self.padding is not None:
                    return network, filled[0], partial(padding.cut, length=filled[1])
            except EngineError:  # beyond the largest length; or compiled for it, and different
                if self.further is None:
                    raise
        network = self._compile_for(tensors)
        self._warn_once(self._key(tensors))
        return network, tensors, None

    def _warn_once(self, key: Key) -> None:
        """Say that it was compiled for a size; not of lengths that others are filled up to, which are few."""
        known = next(iter(self._networks))
        length = is_length(known, key)
        if self.further is None or (length and self.padding is not None):
            return
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            most = f"{MOST_LENGTHS} lengths" if length else f"{self.further.most} sizes"
            warnings.warn(first_warning(self.inputs, known, key, most), stacklevel=4)

    def _filled(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], int] | None:
        """Sentences filled up to a length that there is or is to be, and their own; None where that is not possible."""
        if (padding := self.padding) is None:
            return None
        return filled_up(padding, tensors, self._lengths(padding), self.further is not None)

    def _lengths(self, padding: TokenPadding) -> list[int]:
        return lengths_of(padding, self.inputs, [*self._networks])

    def _unknown(self, tensors: Sequence[Tensor]) -> str:
        """Why a program from a file refuses inputs of this size."""
        if (
            self.padding is not None
            and (length := self.padding.length([each.shape for each in tensors])) is not None
        ):
            return not_served(self._lengths(self.padding), length)
        return unknown_size(self.inputs, [*self._networks], self._key(tensors))

    def _compile_for(self, tensors: Sequence[Tensor]) -> CompiledNetwork:
        key = self._key(tensors)
        with self._lock:  # two threads would compile twice
            if key in self._networks:
                return self._networks[key]
            if self.further is None:
                raise EngineError(self._unknown(tensors))
            if not self._is_length(key) and self._other_sizes() >= self.further.most:
                raise EngineError(used_up(self.inputs, [*self._networks], key))
            network = self.further.make(tensors)
            if self.padding and self._is_length(key) and not self.further.fills(self.padding, tensors):
                self.padding = None  # seen only at this length, and it may be so at others
            lengths = [known for known in self._networks if self._is_length(known)]
            if self._is_length(key) and len(lengths) >= MOST_LENGTHS:
                del self._networks[lengths[0]]  # another thread that uses it has it
            self._networks[key] = network
            return network

    def _is_length(self, key: Key) -> bool:
        """Whether a size differs from the first in the length of sentences alone."""
        return is_length(next(iter(self._networks)), key)

    def _other_sizes(self) -> int:
        return sum(not self._is_length(key) for key in self._networks)


def _scratch_bytes(graph: Graph, threads: int) -> int:
    """Working memory that one call of a network on tiles needs."""
    every = [node.function for node in graph.nodes]
    return threads * sum(each.code.bytes for each in every if isinstance(each, Segment))


def _through(graph: Graph) -> tuple[str, ...]:
    """The operations that are neither layers nor on tiles, by torch's names."""
    others = [node.op for node in graph.nodes if not node.layers and not isinstance(node.function, Segment)]
    names = [op.removeprefix("aten.").split(".")[0] for op in others]
    return tuple(dict.fromkeys(name for name in names if name != "getitem"))
