"""Which inputs a program takes, what converts others, and how sizes are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from zeroskip.graph import Graph, Input, Inputs
from zeroskip.graph.exporting import first_line

# FakeTensor and others that only look like memory are subclasses; machine code would follow their address.
PLAIN = (Tensor, nn.Parameter)

LEAST = torch.finfo(torch.float16).min  # what hides a token where it is added to scores is no larger

CHANGED = (
    "the network was changed after it was compiled: a parameter, buffer or module is another one or "
    "was written to, so the program's answers would be old. Compile again with run.compile."
)

Key: TypeAlias = tuple[tuple[int, ...], ...]
"""The shapes of the tensors of a call, without the axis of examples."""


def key_of(graph: Graph) -> Key:
    """The size that a graph is for: the shapes of its inputs, without the axis of examples.

    >>> key_of(graph)
    ((6,),)
    """
    return tuple(each.shape for each in graph.inputs)


def shown(inputs: Sequence[Input], key: Key) -> str:
    """A size for people: "(batch, 7)", of several inputs "ids (batch, 7), mask (batch, 7)"."""
    pairs = zip(inputs, key, strict=True)
    words = [", ".join(map(str, shape if not each.has_batch else ("batch", *shape))) for each, shape in pairs]
    if len(inputs) == 1:
        return f"({words[0]})"
    return ", ".join(f"{each.name} ({word})" for each, word in zip(inputs, words, strict=True))


def refusal(wanted: Input, x: object) -> str | None:
    """None where a program that takes `wanted` takes `x`; otherwise what converts it.

    >>> refusal(Input("x", (6,)), torch.zeros(2, 6).double())
    'Convert it with x.to(torch.float32).'
    """
    if not isinstance(x, Tensor):
        return "Convert it with torch.as_tensor(x)."
    if type(x) not in PLAIN:
        return "Convert it with x.as_subclass(torch.Tensor) if it holds plain numbers."
    if x.layout is not torch.strided:
        return "Convert it with x.to_dense()."
    if not x.is_cpu:
        return "Move it with x.cpu()."
    if x.dtype.is_complex and not wanted.dtype.is_complex:
        return "Convert it with x.real or x.abs(), whichever is meant."
    if x.dtype is not wanted.dtype:
        return _other_type(wanted, x)
    axes = len(wanted.shape) + wanted.has_batch
    if wanted.has_batch and x.ndim == axes - 1:
        return "The axis of examples is missing: give x[None]."
    return (
        None
        if x.ndim == axes
        else f"Give {axes} axes{', examples along the first' if wanted.has_batch else ''}."
    )


def converted(wanted: Input, x: object, hidden: bool | int | float | None) -> object:
    """The tensor in the type that a program takes, where each number stays the same; otherwise as it is.

    Whole numbers and truth values are converted into each other; a mask also from and to floats: `hidden` is what it
    holds for a hidden token (None: it is no mask). One of 0 and -inf, which is added to scores, is True for -inf; other
    floats are no truth values.

    >>> converted(Input("mask", (2,), torch.bool), torch.tensor([[1, 0]]), False)
    tensor([[ True, False]])
    >>> converted(Input("ids", (2,), torch.int64), torch.tensor([[1.0, 0.0]]), None)
    tensor([[1., 0.]])
    """
    if not isinstance(x, Tensor) or x.dtype is wanted.dtype or x.dtype.is_complex or not x.is_cpu:
        return x
    if hidden is True and x.dtype.is_floating_point and bool(((x == 0) | (x == -math.inf)).all()):
        return x == -math.inf
    floats = x.dtype.is_floating_point or wanted.dtype.is_floating_point
    if floats and (hidden is None or hidden not in (0, 1)):
        return x
    if x.dtype.is_floating_point and wanted.dtype is torch.bool:  # attention would add them to its scores
        return x
    y = x.to(wanted.dtype)
    return y if bool((y.to(x.dtype) == x).all()) else x


def fit(
    tensors: Sequence[object], known: Sequence[tuple[torch.dtype, torch.Size, bool]]
) -> TypeGuard[Sequence[Tensor]]:
    """Whether these are tensors of the (dtype, shape, has_batch) known, as many examples in each.

    >>> fit([torch.zeros(3, 6)], [(torch.float32, torch.Size([6]), True)])
    True
    """
    count = None
    for x, (dtype, shape, has_batch) in zip(tensors, known, strict=True):
        if not isinstance(x, Tensor) or type(x) not in PLAIN:
            return False
        if x.dtype is not dtype or not x.is_cpu or x.layout is not torch.strided:
            return False
        size = x.shape
        if not has_batch:
            if size != shape:
                return False
        elif not size or size[1:] != shape or (count is not None and size[0] != count):
            return False
        else:
            count = size[0]
    return True


def _other_type(wanted: Input, x: Tensor) -> str:
    """What to do about a tensor of another type."""
    if wanted.dtype.is_floating_point or not x.dtype.is_floating_point:
        return f"Convert it with x.to({wanted.dtype})."
    if bool((x <= LEAST).any()):
        return (
            "It hides tokens by numbers that are added to scores. Give a mask as in the example, such as "
            f"(x == 0).to({wanted.dtype}) where 1 stands for tokens that are seen."
        )
    if bool((x == x.round()).all()):
        return f"Convert it with x.to({wanted.dtype})."
    return "Some of its numbers are not whole, and would be others when converted. Give whole numbers."


def sentence(wanted: Input, name: str, x: object, remedy: str) -> str:
    """Why the program refuses `x` as the input of that name ("" where there is one input), and what converts it.

    >>> sentence(Input("x", (6,)), "", [1.0], "Convert it.").split(", and ")[1]
    'was given a list. Convert it.'
    """
    shape = ", ".join(map(str, ("batch", *wanted.shape) if wanted.has_batch else wanted.shape))
    given = f"a {type(x).__name__}"
    if isinstance(x, Tensor):
        kind = "" if type(x) in PLAIN else f"{given} "
        layout = "" if x.layout is torch.strided else f", stored as {x.layout}"
        given = f"{kind}{tuple(x.shape)} of {x.dtype} on {x.device}{layout}"
    of = f" as {name}" if name else ""
    return (
        f"the program was compiled for a dense tensor ({shape}) of {wanted.dtype} on the cpu{of}, and was given "
        f"{given}. {remedy}"
    )


def is_length(first: Key, key: Key) -> bool:
    """Whether a size differs from the first in the length of sentences alone: the axis behind that of examples.

    All lengths share code and weights.

    >>> is_length(((5, 8), (5,)), ((7, 8), (7,))), is_length(((5, 8),), ((5, 9),))
    (True, False)
    """
    pairs = list(zip(first, key, strict=True))
    plain = all(len(one) < 3 and one[1:] == other[1:] for one, other in pairs if one != other)
    return plain and len({(one[0], other[0]) for one, other in pairs if one != other}) == 1


def length_axes(graph: Graph, tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...] | None:
    """Of each tensor, the axes along which it has another length than those that the graph is for.

    None where the tensors differ from those otherwise than in one length, as pictures do.

    >>> length_axes(Graph((Input("x", (5, 8)),), (), ("x",), tuple), [torch.zeros(2, 3, 8)])
    ((1,),)
    """
    axes, lengths = [], set()
    for each, tensor in zip(graph.inputs, tensors, strict=True):
        pairs = list(enumerate(zip(each.shape, tensor.shape[each.has_batch :], strict=True), each.has_batch))
        axes.append(tuple(axis for axis, (known, size) in pairs if known != size))
        lengths |= {sizes for _, sizes in pairs if sizes[0] != sizes[1]}
        if tensor.ndim > 3 and axes[-1]:
            return None
    return tuple(axes) if len(lengths) == 1 else None


def not_served(lengths: Sequence[int], length: int) -> str:
    """Why a program from a file refuses sentences of so many tokens.

    >>> not_served([64, 128], 200).split(". ")[0]
    'the program was saved for sentences of up to 128 tokens, and was given 200'
    """
    remedy = "Cut them off, or compile with examples=[...] of the longest, then save."
    if lengths and length < max(lengths):
        remedy = "It fills sentences up, which cannot be where a mask hides all of one, or its beginning."
    return (
        f"the program was saved for sentences of up to {max(lengths, default=0)} tokens, and was given {length}. A "
        f"program from a file has no network to compile for others. {remedy}"
    )


def unknown_size(inputs: Sequence[Input], known: Sequence[Key], key: Key) -> str:
    """Why a program from a file refuses inputs of a further size.

    >>> unknown_size([Input("x")], [((6,),)], ((7,),)).split(". ")[1]
    'A program from a file has no network to compile for another size'
    """
    return (
        f"the program was compiled for {all_shown(inputs, known)}, and was given {shown(inputs, key)}. A program from "
        "a file has no network to compile for another size. Compile with examples=[...] of all sizes, then save."
    )


def used_up(inputs: Sequence[Input], known: Sequence[Key], key: Key) -> str:
    """Why a program is not compiled for one more size.

    >>> used_up([Input("x")], [((6,),)], ((7,),)).split(", and")[0]
    'the program is compiled for 1 sizes, which is its bound'
    """
    return (
        f"the program is compiled for {len(known)} sizes, which is its bound, and was given another, "
        f"{shown(inputs, key)}. It has {all_shown(inputs, known)}. Pad to one of these, or compile with a larger "
        "sizes=..."
    )


def first_warning(inputs: Sequence[Input], first: Key, key: Key, most: str) -> str:
    """What is said when a program is compiled for another size than that of its example.

    >>> first_warning([Input("x")], ((6,),), ((7,),), "8 sizes").split(":")[0]
    'the program was compiled for (batch, 6), and now also for (batch, 7)'
    """
    return (
        f"the program was compiled for {shown(inputs, first)}, and now also for {shown(inputs, key)}: the first call "
        f"with another size takes longer, and at most {most} are kept. "
        "To compile them beforehand: run.compile(model, example, examples=[...])."
    )


def all_shown(inputs: Sequence[Input], keys: Sequence[Key]) -> str:
    """Sizes for people.

    >>> all_shown([Input("x")], [((6,),), ((7,),)])
    '(batch, 6) and (batch, 7)'
    """
    return " and ".join(shown(inputs, key) for key in keys)


def fails_on(tensors: Sequence[Tensor], fact: Exception) -> str:
    """What an operation of torch says of numbers that it refuses, and what to look at.

    >>> fails_on([torch.zeros(1)], IndexError("index out of range")).split(". ")[0]
    'the program fails on (1,) of torch.float32: IndexError: index out of range'
    """
    return (
        f"the program fails on {Inputs(tuple(tensors), {}).title}: {first_line(fact)} See whether the network itself "
        "takes these numbers, as an embedding takes ids below its number of rows."
    )


def plain(x: Tensor) -> Tensor:
    """The same numbers as they lie in memory: without gradient, row by row, no sign left to be turned.

    >>> plain(torch.zeros(2, 3).T).is_contiguous()
    True
    """
    x = x.detach() if x.requires_grad else x
    x = x if x.is_contiguous() else x.contiguous()
    return x.resolve_neg() if x.is_neg() else x
