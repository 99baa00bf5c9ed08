"""What a network is called with: tensors, in the way that its forward takes them, and how many examples they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroskip.errors import ModelError

Given: TypeAlias = Tensor | Sequence[object] | Mapping[str, object]
"""A batch as a user gives it: a tensor, a tuple for model(*batch), a mapping for model(**batch)."""


@dataclass(frozen=True)
class Inputs:
    """A batch in one form: the network is called as model(*args, **kwargs).

    args, kwargs  hold tensors, also in lists, tuples and dicts; whatever else is in them is constant
    batch_axis    0: the first axis of the first tensor is that of the examples, as it is of every tensor with as long
                  a first axis; the others are the same for all examples. None: no axis is

    >>> batch = of({"ids": torch.zeros(3, 7).long(), "mask": torch.ones(3, 7), "causal": False})
    >>> batch.size, batch.shapes, batch.take(2).shapes
    (3, ((3, 7), (3, 7)), ((2, 7), (2, 7)))
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    batch_axis: int | None = 0

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those of `args` first."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def size(self) -> int:
        """The number of examples; 1 where no axis is theirs."""
        return next((len(each) for each in self.tensors if each.ndim), 1) if self.batch_axis == 0 else 1

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor."""
        return tuple(tuple(each.shape) for each in self.tensors)

    @property
    def title(self) -> str:
        """The tensors for an error: "(3, 7) of torch.int64, (3, 7) of torch.float32"."""
        return ", ".join(f"{tuple(each.shape)} of {each.dtype}" for each in self.tensors) or "no tensor"

    def has_examples(self, tensor: Tensor) -> bool:
        """Whether the tensor's first axis is that of the examples."""
        return self.batch_axis == 0 and tensor.ndim > 0 and len(tensor) == self.size

    def take(self, count: int) -> Inputs:
        """The first `count` examples; more than there are begin again with the first.

        >>> of(torch.tensor([[1.0], [2.0]])).take(3).tensors[0].flatten()
        tensor([1., 2., 1.])
        """
        size = self.size
        if self.batch_axis is None or count == size:
            return self
        places = torch.arange(count) % max(size, 1)
        return self.map(lambda each: each[places] if self.has_examples(each) else each)

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with `function` of each tensor in its place.

        >>> of(torch.ones(2, 3)).map(torch.neg).tensors[0][0]
        tensor([-1., -1., -1.])
        """
        args, kwargs = pytree.tree_map_only(Tensor, function, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)


def of(given: Given | Inputs, batch_axis: int | None = 0) -> Inputs:
    """The batch in its one form; ModelError for what no network can be called with, or a batch of no tensor.

    >>> of((torch.ones(2, 3), torch.ones(2, 5))).args[1].shape
    torch.Size([2, 5])
    """
    if isinstance(given, Inputs):
        return given
    if batch_axis not in (0, None):
        raise ModelError(
            f"batch_axis={batch_axis!r} is unknown. It is 0 where examples lie along the first axis, and None where "
            "no axis is theirs, as for a graph. Transpose inputs that have them elsewhere."
        )
    if isinstance(given, Tensor):
        inputs = Inputs((given,), {}, batch_axis)
    elif isinstance(given, Mapping):
        inputs = Inputs((), {str(name): value for name, value in given.items()}, batch_axis)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        inputs = Inputs(tuple(given), {}, batch_axis)
    else:
        raise ModelError(
            f"a batch is a {type(given).__name__}. Give a tensor, a tuple of what forward takes, or a dict of its "
            "keywords."
        )
    if not inputs.tensors:
        raise ModelError(
            "a batch holds no tensor. Give at least one; arrays and lists of numbers become tensors by torch.as_tensor."
        )
    return inputs
