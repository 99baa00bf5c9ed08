"""Whether sentences of a network may be filled up, and how: the network is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from zeroskip.errors import ModelError
from zeroskip.graph import Graph, undisturbed
from zeroskip.graph.nodes import kind_of
from zeroskip.run.captured import taken
from zeroskip.run.network_checks import network_on
from zeroskip.run.output_difference import agree, leaves
from zeroskip.run.padding import Axes, Number, TokenPadding, shortest

SHORT, LONG = 6, 14  # tokens of what is tried
SHARE = 1e-5  # of the largest output by which answers may differ


def found_padding(model: nn.Module, graph: Graph, tensors: Sequence[Tensor]) -> TokenPadding | None:
    """How inputs like these may be filled up; None where that changes answers, or no axis is that of tokens.

    The network is asked: few tokens, and the same with any others behind them, which one of the inputs hides.
    """
    axes = _axes_of_tokens(graph, tensors)
    if axes is None:
        return None
    first = next(number for number, several in enumerate(axes) if several)
    count = tensors[first].shape[1]
    short = min(SHORT, max(2, count // 2))
    lengths = short, min(LONG, max(count, short + 2))
    generator = torch.Generator().manual_seed(0)
    few = [
        _drawn(graph, number, each, _size_with(each, several, lengths[0]), generator) if several else each
        for number, (each, several) in enumerate(zip(taken(graph, tensors, 2), axes, strict=True))
    ]
    if bool((few[first] == few[first][:, :1]).all()):
        return None  # tokens that are all alike tell nothing
    with torch.no_grad(), undisturbed(model):
        for mask, hidden, seen in _masks(few, axes, first):
            given = [
                torch.full_like(each, seen) if number == mask else each for number, each in enumerate(few)
            ]
            outputs = _outputs(model, graph, TokenPadding(axes, (), mask, hidden), given, lengths)
            found = TokenPadding(axes, outputs or (), mask, hidden)
            if outputs is not None and fills(model, graph, found, tensors):
                return replace(found, leading=_leads(model, graph, found, given, lengths))
    return None


def fills(model: nn.Module, graph: Graph, padding: TokenPadding, tensors: Sequence[Tensor]) -> bool:
    """Whether sentences may be filled up to as many tokens as these have: a network may look that far, and not less."""
    length = padding.length([each.shape for each in tensors])
    if length is None or (short := shortest(length)) >= length:
        return True
    generator = torch.Generator().manual_seed(2)
    few = [
        _drawn(graph, number, each, _size_with(each, several, short), generator) if several else each
        for number, (each, several) in enumerate(zip(taken(graph, tensors, 1), padding.inputs, strict=True))
    ]
    if padding.mask is not None:
        few[padding.mask] = torch.full_like(few[padding.mask], padding.seen)
    with torch.no_grad(), undisturbed(model):
        return _outputs(model, graph, padding, few, (short, length)) == padding.outputs


def _axes_of_tokens(graph: Graph, tensors: Sequence[Tensor]) -> Axes | None:
    """None unless the first input is one of ids (batch, tokens), or of features (batch, tokens, features)."""
    first = next((each for each, known in zip(tensors, graph.inputs, strict=True) if known.has_batch), None)
    if first is None or graph.batch is not None:
        return None
    if first.ndim != (3 if first.is_floating_point() else 2):
        return None
    length = first.shape[1]
    axes = tuple(
        (1,) if known.has_batch and tensor.ndim in (2, 3) and tensor.shape[1] == length else ()
        for tensor, known in zip(tensors, graph.inputs, strict=True)
    )
    # An input with that length elsewhere, as a mask for each query and key, is not made longer.
    others = (tensor.shape[1:] for tensor, several in zip(tensors, axes, strict=True) if not several)
    return None if length > 1 and any(length in shape for shape in others) else axes


def _masks(tensors: Sequence[Tensor], axes: Axes, first: int) -> Iterator[tuple[int | None, Number, Number]]:
    """Which input may hide tokens, what it may hold for those that are hidden, and for those that are not."""
    for number, (tensor, several) in enumerate(zip(tensors, axes, strict=True)):
        if number == first or not several or tensor.ndim != 2:
            continue
        if tensor.dtype is torch.bool:
            yield from ((number, False, True), (number, True, False))
        elif tensor.is_floating_point():
            least = torch.finfo(tensor.dtype).min
            yield from ((number, 0.0, 1.0), (number, -math.inf, 0.0), (number, least, 0.0))
        else:
            yield from ((number, 0, 1), (number, 1, 0))
    yield None, 0, 0


def _outputs(
    model: nn.Module, graph: Graph, padding: TokenPadding, few: Sequence[Tensor], lengths: tuple[int, int]
) -> Axes | None:
    """The axes of tokens of each output, if what follows tokens changes no answer for them."""
    pair = _answers(model, graph, padding, few, lengths)
    if pair is None or not all(bool(each.isfinite().all()) for each in pair[0]):
        return None
    axes = []
    for short, long in zip(*pair, strict=True):
        sizes = list(enumerate(zip(short.shape, long.shape, strict=True)))
        axes.append(tuple(axis for axis, (one, other) in sizes if (one, other) == lengths and one != other))
        if any(one != other for axis, (one, other) in sizes if axis not in axes[-1]):
            return None
    cut = TokenPadding(padding.inputs, tuple(axes)).cut(pair[1], lengths[0])
    return tuple(axes) if agree(cut, list(pair[0]), tolerance=SHARE) else None


def _leads(
    model: nn.Module, graph: Graph, padding: TokenPadding, few: Sequence[Tensor], lengths: tuple[int, int]
) -> bool:
    """Whether the same holds where the first tokens are hidden."""
    if padding.mask is None:
        return True
    given = [each.clone() for each in few]
    given[padding.mask][:, : lengths[0] // 2] = padding.hidden
    pair = _answers(model, graph, padding, given, lengths)
    if pair is None:
        return False
    cut = padding.cut(pair[1], lengths[0])
    same = all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(cut, pair[0], strict=True))
    return same and agree(cut, list(pair[0]), tolerance=SHARE)


def _answers(
    model: nn.Module, graph: Graph, padding: TokenPadding, few: Sequence[Tensor], lengths: tuple[int, int]
) -> tuple[list[Tensor], list[Tensor]] | None:
    """The outputs for few tokens, and for those with others behind them; None where the network refuses either.

    Every second of the others is 0, as where sentences are filled up.
    """
    more, generator = padding.filled(few, lengths[1]), torch.Generator().manual_seed(1)
    for number, (tensor, several) in enumerate(zip(more, padding.inputs, strict=True)):
        if several and number != padding.mask:
            behind = tensor[:, lengths[0] :]
            others = _drawn(graph, number, few[number], behind.shape, generator)
            behind.copy_(3 * others if others.is_floating_point() else others)
            behind[:, 1::2] = 0
    try:
        short, long = (
            leaves(network_on(model, graph, [each.clone() for each in given])) for given in (few, more)
        )
    except ModelError:
        return None
    alike = len(short) == len(long) and all(a.ndim == b.ndim for a, b in zip(short, long, strict=True))
    return ([each.float() for each in short], [each.float() for each in long]) if alike else None


def _drawn(
    graph: Graph, number: int, tensor: Tensor, shape: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Random numbers of that shape which an input may hold: rows of the table it picks from, or those in `tensor`."""
    if tensor.is_floating_point():
        return torch.randn(shape, generator=generator).to(tensor.dtype) * (
            1 + tensor.abs().nan_to_num(0, 0).max()
        )
    readers = [node for node in graph.nodes if node.inputs == (graph.names[number],)]
    tables = [node.arguments.get("weight") for node in readers if kind_of(node) == "embedding"]
    rows = [len(table) for table in tables if isinstance(table, Tensor)]
    if rows:
        return torch.randint(min(rows), tuple(shape), generator=generator).to(tensor.dtype)
    return tensor.flatten()[torch.randint(tensor.numel(), tuple(shape), generator=generator)]


def _size_with(tensor: Tensor, axes: Sequence[int], length: int) -> list[int]:
    return [length if axis in axes else size for axis, size in enumerate(tensor.shape)]
