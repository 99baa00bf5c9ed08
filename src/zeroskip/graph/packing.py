"""LSTM, GRU, RNN and packed sequences in a network that is exported: one operation each, of unknown size where packed.

torch.export cannot follow packing by itself, since sizes depend on lengths, which are numbers; and it takes recurrent
operations apart, 80 ms for each step. While a network is exported, operations of our own with the same arguments stand
for torch's; afterwards torch's take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from zeroskip.errors import EngineError
from zeroskip.graph.constant_values import changing

ATEN = torch.ops.aten
STATES = {"lstm": 2, "gru": 1, "rnn_tanh": 1, "rnn_relu": 1}
MADE_ELSEWHERE = (
    "the network is given a packed sequence that was made outside of its forward. Give it the padded sequences and "
    "their lengths, and call pack_padded_sequence in forward."
)
LIBRARY = torch.library.Library("zeroskip", "DEF")


def _define() -> None:
    """The operations, with torch's arguments: "lstm" of packed sequences, "lstm_whole" of others."""
    LIBRARY.define("pack(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)")
    LIBRARY.define(
        "pad(Tensor data, Tensor batch_sizes, bool batch_first, Scalar padding_value, SymInt total_length, "
        "SymInt examples) -> (Tensor, Tensor)"
    )
    for kind, count in STATES.items():
        states, made = "Tensor[]" if count == 2 else "Tensor", ", ".join(["Tensor"] * (1 + count))
        options = f"{states} hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train"
        options += ", bool bidirectional"
        LIBRARY.define(f"{kind}(Tensor data, Tensor batch_sizes, {options}) -> ({made})")
        LIBRARY.define(f"{kind}_whole(Tensor input, {options}, bool batch_first) -> ({made})")


_define()


@torch.library.register_fake("zeroskip::pack", lib=LIBRARY)
def _fake_pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    steps, batch = input.shape[batch_first], input.shape[not batch_first]
    torch._check(lengths.shape[0] == batch)
    context = torch.library.get_ctx()
    longest = context.new_dynamic_size(min=1, max=steps if isinstance(steps, int) else None)
    total = context.new_dynamic_size(min=1)
    return input.new_empty(total, *input.shape[2:]), lengths.new_empty(longest)


@torch.library.register_fake("zeroskip::pad", lib=LIBRARY)
def _fake_pad(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int, examples: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sizes = (examples, total_length) if batch_first else (total_length, examples)
    return data.new_empty(*sizes, *data.shape[1:]), batch_sizes.new_empty(examples)


def _fake_steps(
    data: Tensor, batch_sizes: Tensor, hx: Sequence[Tensor] | Tensor, params: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, ...]:
    return _made(data, hx, bidirectional=rest[-1])


def _fake_whole(
    input: Tensor, hx: Sequence[Tensor] | Tensor, params: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, ...]:
    return _made(input, hx, bidirectional=rest[-2])


def _made(x: Tensor, hx: Sequence[Tensor] | Tensor, *, bidirectional: bool) -> tuple[Tensor, ...]:
    """Outputs (..., directions x units) of x (..., features), and the last states."""
    states = [hx] if isinstance(hx, Tensor) else hx
    return (
        x.new_empty(*x.shape[:-1], (1 + bidirectional) * states[0].shape[2]),
        *map(torch.empty_like, states),
    )


for _kind in STATES:
    torch.library.register_fake(f"zeroskip::{_kind}", _fake_steps, lib=LIBRARY)
    torch.library.register_fake(f"zeroskip::{_kind}_whole", _fake_whole, lib=LIBRARY)
OURS = torch.ops.zeroskip


def pack_padded_sequence(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """The steps of all sequences one after another, and how many sequences have each step.

    x (batch, steps, ...) or (steps, batch, ...), lengths (batch,) of int64 -> (sum of lengths, ...), (longest,)

    EngineError where a length is below 1 or above the number of steps, or they do not descend.

    >>> data, batch_sizes = pack_padded_sequence(torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1]), True)
    >>> data.tolist(), batch_sizes.tolist()
    ([1, 4, 2, 3], [2, 1, 1])
    """
    steps, batch = x.shape[batch_first], x.shape[not batch_first]
    given = lengths.tolist()
    if len(given) != batch:
        raise EngineError(f"{len(given)} lengths are given for {batch} sequences. Give one for each.")
    if not given:
        raise EngineError("a packed batch needs one sequence at least, and was given none.")
    if min(given) < 1 or max(given) > steps:
        wrong = next(length for length in given if not 1 <= length <= steps)
        raise EngineError(
            f"a sequence of length {wrong} cannot be packed: lengths go from 1 to {steps}, the steps there are. "
            "Leave out sequences without a step, or give them a length of 1 and ignore what comes out."
        )
    if sorted(given, reverse=True) != given:
        raise EngineError(
            f"lengths must descend, and are {_shown(given)}. Sort the sequences, or pack them with "
            "enforce_sorted=False."
        )
    return cast("tuple[Tensor, Tensor]", ATEN._pack_padded_sequence.default(x, lengths, batch_first))


def pad_packed_sequence(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_padded_sequence`, as far as `total_length` steps: the sequences, and their lengths.

    EngineError for sizes that are not of this data.

    >>> pad_packed_sequence(torch.tensor([1, 4, 2, 3]), torch.tensor([2, 1, 1]), True, 0, 4)[0].tolist()
    [[1, 2, 3, 0], [4, 0, 0, 0]]
    """
    sizes = sizes_of(data, batch_sizes, "pad_packed_sequence")
    if total_length < len(sizes):
        raise EngineError(
            f"a sequence has {len(sizes)} steps, and total_length={total_length} leaves them no room."
        )
    padded = ATEN._pad_packed_sequence.default(data, batch_sizes, batch_first, padding_value, total_length)
    return cast("tuple[Tensor, Tensor]", padded)


def sizes_of(data: Tensor, batch_sizes: Tensor, name: str) -> list[int]:
    """How many sequences have each step; EngineError where they are not those of the data that `name` is given.

    >>> sizes_of(torch.zeros(4), torch.tensor([2, 1, 1]), "lstm")
    [2, 1, 1]
    """
    plain = batch_sizes.ndim == 1 and not batch_sizes.dtype.is_floating_point
    sizes: list[int] = batch_sizes.tolist() if plain else []
    if not sizes or sizes[-1] < 1 or sum(sizes) != len(data) or sorted(sizes, reverse=True) != sizes:
        raise EngineError(
            f"{name} takes packed sequences, whose batch_sizes descend to 1 at least and add up to the {len(data)} "
            f"steps in all, and was given {batch_sizes.tolist()}. Keep those of pack_padded_sequence."
        )
    return sizes


def _shown(lengths: Sequence[int]) -> str:
    return ", ".join(map(str, lengths[:8])) + (", ..." if len(lengths) > 8 else "")


@contextmanager
def following(network: nn.Module, packed: Callable[[], None]) -> Iterator[None]:
    """Inside, torch.export follows packed sequences in the network, on this thread; `packed` is called for each.

    >>> with following(model, print):
    ...     y = model(x)
    """
    mode = _Following(packed)
    modules = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
    for module in modules:  # their own check asks for numbers
        vars(module)["check_forward_args"] = mode.check_of(module)
    try:
        with mode:
            yield
    finally:
        for module in modules:
            vars(module).pop("check_forward_args", None)


class _Following(TorchFunctionMode):
    """Calls operations of ours instead of torch's.

    examples  of the sizes of a packed batch, and of their first number, how many sequences there are
    """

    def __init__(self, packed: Callable[[], None]) -> None:
        super().__init__()
        self._packed = packed
        self.examples: dict[int, tuple[Tensor, Any]] = {}

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch._pack_padded_sequence:
            self._packed()
            x, lengths, batch_first = args
            data, sizes = OURS.pack(x, lengths, batch_first)
            self._enter(sizes, x.shape[not batch_first])
            return data, sizes
        if func is torch._pad_packed_sequence:
            return OURS.pad(*args, self._of(args[1]))
        if func in OPERATIONS and isinstance(args[3], list | tuple):  # data, sizes, states, weights, ...
            self._of(args[1])
            return getattr(OURS, OPERATIONS[func])(*args)
        if func in OPERATIONS:  # input, states, weights, ...
            return getattr(OURS, f"{OPERATIONS[func]}_whole")(*args)
        if func is torch.zeros:
            args = tuple(self._number(each) for each in args)
        result = func(*args, **kwargs)
        if (
            func is Tensor.__getitem__
            and id(args[0]) in self.examples
            and isinstance(args[1], int)
            and not args[1]
        ):
            self._enter(result, self._of(args[0]))
        return result

    def _enter(self, tensor: Tensor, examples: object) -> None:
        self.examples[id(tensor)] = tensor, examples  # which keeps it, and so its id

    def _of(self, sizes: Tensor) -> Any:
        if id(sizes) not in self.examples:
            raise EngineError(MADE_ELSEWHERE)
        return self.examples[id(sizes)][1]

    def _number(self, given: object) -> object:
        return self.examples[id(given)][1] if id(given) in self.examples else given

    def check_of(self, module: nn.RNNBase) -> Callable[..., None]:
        """What stands for the module's `check_forward_args`."""
        checks = type(module).check_forward_args

        def check(self_: nn.RNNBase, x: Tensor, states: Any, sizes: Tensor | None) -> None:
            if sizes is not None:  # as of a batch that is not packed: one step of as many sequences
                axes = (self._of(sizes), 1) if self_.batch_first else (1, self._of(sizes))
                x = x.new_empty(*axes, *x.shape[1:])
            checks(self_, x, states, None)

        return MethodType(check, module)


OPERATIONS = {getattr(torch, kind): kind for kind in STATES}
TARGETS: dict[object, Callable[..., Any]] = {
    **{getattr(OURS, kind).default: getattr(ATEN, kind).data for kind in STATES},
    **{getattr(OURS, f"{kind}_whole").default: getattr(ATEN, kind).input for kind in STATES},
    OURS.pack.default: pack_padded_sequence,
    OURS.pad.default: pad_packed_sequence,
}


def packs_by_constants(graph: fx.Graph, inputs: Sequence[fx.Node]) -> bool:
    """Whether lengths are the same at every call: then they are those of a batch of that size, as it lies.

    >>> packs_by_constants(fx.Graph(), [])
    False
    """
    packs = [node for node in graph.nodes if node.target in (OURS.pack.default, pack_padded_sequence)]
    return bool(packs) and not changing(graph, inputs).issuperset(node.args[1] for node in packs)


def restore(graph: fx.Graph) -> None:
    """Put torch's operations in place of ours, and packing that checks its lengths.

    >>> restore(fx.Graph())
    """
    for node in list(graph.nodes):
        target = node.target
        if target is ATEN._assert_scalar.default and _is_size_of_packed(node.args[0]):
            graph.erase_node(node)
        elif (
            target in (ATEN.scatter_.src, ATEN.scatter.src) and node.args[0].target is ATEN.empty_like.default
        ):
            # How torch inverts a permutation: in memory that holds anything before.
            node.target, node.args = ATEN.argsort.default, (node.args[2],)
        elif target in TARGETS:
            node.args = node.args[:5] if target is OURS.pad.default else node.args
            node.target = TARGETS[target]


def _is_size_of_packed(asked: fx.Node) -> bool:
    """Whether it compares what packing promises: how many steps there are in all, or of the longest sequence."""
    size = asked.args[0]
    if not isinstance(size, fx.Node) or size.target is not ATEN.sym_size.int:
        return False
    part: Any = size.args[0]
    whole = part.args[0] if part.op == "call_function" and part.args else None
    return isinstance(whole, fx.Node) and whole.target in (OURS.pack.default, pack_padded_sequence)
