"""How sentences are filled up to a length that a program has, where that changes none of the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from torch import Tensor
from torch.nn.functional import pad

from zeroskip.errors import EngineError
from zeroskip.graph import Input, Inputs
from zeroskip.run.call_checks import Key
from zeroskip.run.measurement import JsonObject

STEP, PARTS = 16, 8  # lengths are multiples of 16 tokens, and a part of the next power of two from 128 on

Axes = tuple[tuple[int, ...], ...]
"""Of each tensor, the axes along which tokens lie, that of the examples counted."""
Number = bool | int | float
Shortening: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]
"""What cuts the outputs of sentences that were filled up."""


@dataclass(frozen=True)
class TokenPadding:
    """How sentences are made longer so that the answers for their own tokens stay what they are.

    inputs   the axes of each input
    outputs  the axes of each output
    mask     the number of the input that hides tokens; None: what follows a token never changes its answer
    hidden   what the mask holds for a hidden token
    leading  whether the first tokens may be hidden as well
    """

    inputs: Axes
    outputs: Axes
    mask: int | None = None
    hidden: Number = 0
    leading: bool = True

    def length(self, shapes: Sequence[Sequence[int]]) -> int | None:
        """The number of tokens of inputs of these shapes; None where they differ in it.

        >>> TokenPadding(((1,), (1,)), ()).length([(2, 7), (2, 7)])
        7
        """
        found = {
            shape[axis]
            for shape, axes in zip(shapes, self.inputs, strict=True)
            for axis in axes
            if axis < len(shape)
        }
        return found.pop() if len(found) == 1 else None

    def allows(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these sentences may be filled up: each has a token that is seen, and the mask says nothing else.

        >>> TokenPadding(((1,),), (), mask=0).allows([torch.tensor([[1, 1], [0, 0]])])
        False
        """
        if self.mask is None:
            return True
        mask = tensors[self.mask]
        hides, seen = mask == self.hidden, mask == self.seen
        if not bool((hides | seen).all()):  # of other numbers the network was not asked
            return False
        return bool((seen if self.leading else seen[:, :1]).any(1).all())

    @property
    def seen(self) -> Number:
        """What the mask holds for a token that is not hidden.

        >>> [TokenPadding((), (), hidden=hidden).seen for hidden in (True, 0, 1, -1e4)]
        [False, 1, 0, 0]
        """
        return not self.hidden if isinstance(self.hidden, bool) else int(self.hidden == 0)

    def filled(self, tensors: Sequence[Tensor], length: int) -> list[Tensor]:
        """The inputs with so many tokens: hidden ones of 0 are added at the end.

        >>> TokenPadding(((1,),), ()).filled([torch.tensor([[5, 6]])], 4)
        [tensor([[5, 6, 0, 0]])]
        """
        return [
            _longer(tensor, axes, length, self.hidden if number == self.mask else 0)
            for number, (tensor, axes) in enumerate(zip(tensors, self.inputs, strict=True))
        ]

    def cut(self, outputs: Sequence[Tensor], length: int) -> list[Tensor]:
        """The outputs of the first so many tokens.

        >>> TokenPadding((), ((1,), ())).cut([torch.zeros(1, 4, 8), torch.zeros(1, 8)], 2)[0].shape
        torch.Size([1, 2, 8])
        """
        return [_cut(tensor, axes, length) for tensor, axes in zip(outputs, self.outputs, strict=True)]


def filled_up(
    padding: TokenPadding, tensors: Sequence[Tensor], lengths: Sequence[int], free: bool
) -> tuple[list[Tensor], int] | None:
    """Sentences filled up to one of the `lengths`, or where others are `free` to the next one; and their own length.

    None where they are as long as that, or cannot be filled up. EngineError where they have no token.

    >>> filled_up(TokenPadding(((1,),), ()), [torch.tensor([[5, 6]])], [128], True)[0][0].shape
    torch.Size([1, 16])
    """
    length = padding.length([tensor.shape for tensor in tensors])
    if length == 0:
        raise EngineError(
            f"of the inputs, {Inputs(tuple(tensors), {}).title}, one is empty: the sentences have 0 tokens, of which "
            "nothing can be computed. Give at least one token."
        )
    if length is None or not padding.allows(tensors):
        return None
    new = next_length(length)
    known = [size for size in lengths if length < size and (size <= new or not free)]
    if not known and (not free or new == length):
        return None
    return padding.filled(tensors, min(known, default=new)), length


def lengths_of(padding: TokenPadding, inputs: Sequence[Input], keys: Sequence[Key]) -> list[int]:
    """The numbers of tokens of these sizes.

    >>> lengths_of(TokenPadding(((1,),), ()), [Input("ids")], [((16,),), ((32,),)])
    [16, 32]
    """
    shapes = (
        [(0, *shape) if each.has_batch else shape for each, shape in zip(inputs, key, strict=True)]
        for key in keys
    )
    found = (padding.length(each) for each in shapes)
    return [length for length in found if length is not None]


def to_json(padding: TokenPadding) -> JsonObject:
    """The padding as data that JSON can hold.

    >>> from_json(to_json(TokenPadding(((1,),), ((1,),), None)), 1) == TokenPadding(((1,),), ((1,),), None)
    True
    """
    return {**asdict(padding), "hidden": repr(padding.hidden)}


def from_json(stored: JsonObject, inputs: int) -> TokenPadding:
    """What `to_json` made, of a network of so many inputs; EngineError for anything else."""
    axes = [tuple(tuple(map(int, several)) for several in stored[name]) for name in ("inputs", "outputs")]
    hidden, mask = str(stored["hidden"]), stored["mask"]
    value: Number = hidden == "True" if hidden in ("True", "False") else float(hidden)
    inside = mask is None or (isinstance(mask, int) and 0 < mask < inputs)
    if (
        len(axes[0]) != inputs
        or not inside
        or any(set(several) - {1, 2, 3} for both in axes for several in both)
    ):
        raise EngineError("what it says of the length of sentences makes no sense")
    return TokenPadding(axes[0], axes[1], mask, value, bool(stored["leading"]))


def next_length(length: int) -> int:
    """The length that sentences are filled up to: at most 15 tokens more, or a quarter.

    >>> [next_length(each) for each in (1, 16, 17, 100, 129, 300, 512)]
    [16, 16, 32, 112, 160, 320, 512]
    """
    step = _step(length)
    return -(-length // step) * step


def shortest(length: int) -> int:
    """The least number of tokens that is filled up to `length`, or to the next one after it.

    >>> [shortest(each) for each in (16, 48, 128, 160, 320)]
    [2, 33, 113, 129, 257]
    """
    return max(2, length - _step(length) + 1)


def _step(length: int) -> int:
    return max(STEP, (1 << max(length - 1, 1).bit_length()) // PARTS)


def _longer(tensor: Tensor, axes: Sequence[int], length: int, value: float) -> Tensor:
    for axis in axes:
        behind = [0, 0] * (tensor.ndim - 1 - axis)  # of the axes that follow, which are not made longer
        tensor = pad(tensor, [*behind, 0, length - tensor.shape[axis]], value=value)
    return tensor


def _cut(tensor: Tensor, axes: Sequence[int], length: int) -> Tensor:
    for axis in axes:
        tensor = tensor.narrow(axis, 0, length)
    return tensor
