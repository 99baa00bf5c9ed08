"""Which inputs a program takes, what converts others, and how sizes are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zeroskip.graph import Graph, Input

# FakeTensor and others that only look like memory are subclasses; machine code would follow their address.
PLAIN = (Tensor, nn.Parameter)

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
        return f"Convert it with x.to({wanted.dtype})."
    axes = len(wanted.shape) + wanted.has_batch
    if wanted.has_batch and x.ndim == axes - 1:
        return "The axis of examples is missing: give x[None]."
    return (
        None
        if x.ndim == axes
        else f"Give {axes} axes{', examples along the first' if wanted.has_batch else ''}."
    )


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
