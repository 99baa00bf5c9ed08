"""An order of the channels in which blocks of neighbouring inputs keep more of the weights' magnitude.

A block of `1x4` lies on four inputs that are neighbours by chance. Where channels change places, in all parameters
that know them, the network computes the same function, its sums in another order, and inputs that matter to the same
outputs become neighbours. Pool and Yu 2021 ("Channel Permutations for N:M Sparsity") do so for 2:4. Here each pass
takes one channel out of every block and gives all of them back by the best assignment, so no pass keeps less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroskip.errors import ModelError, PatternError
from zeroskip.graph import Given, Inputs, weight_name
from zeroskip.graph.channel_coupling import OTHER, Carrier, Coupling, coupling
from zeroskip.patterns import check_sparsity, parse
from zeroskip.prune.edits import plain_copy
from zeroskip.prune.same_answers import answers_differ

ROWS = 1024  # of columns that are compared, drawn from all: enough to know which are alike
PASSES, STALE = 100, 12  # at most; and without a gain
SUMS = 4e9  # for one set of channels, a few seconds

HIDDEN = "the network uses a weight in a way that its operations do not show, so every channel stays"

Exchange = tuple[Tensor, Tensor]
"""Units, and the units that take their places."""


@dataclass(frozen=True)
class Permuted:
    """A network with its channels in another order, and what that brings.

    kept  weight -> share of its magnitude in the blocks that stay at the sparsity asked for, before and after
    left  other weights that the blocks fit -> why their inputs stay where they are

    >>> permute_channels(model, x, sparsity=0.5).left
    {'fc1': 'it reads inputs of the network, or what cannot be followed'}
    """

    model: nn.Module
    kept: dict[str, tuple[float, float]]
    left: dict[str, str]


def permute_channels(
    model: nn.Module, example: Given | Inputs, pattern: str = "1x4", *, sparsity: float = 0.9
) -> Permuted:
    """A copy of `model` that answers the same up to rounding, its channels in an order that suits the pattern.

    Names and shapes of its state, and the order of inputs and outputs, stay. The same call gives the same network.
    One order serves what residual sums, depthwise convolutions, norms and shared weights couple; each part of a
    concatenation has its own.

    pattern   blocks of one output and several inputs
    sparsity  of each layer, for which the order is sought; it serves others nearly as well

    Raises PatternError for other patterns, EngineError where torch.export cannot follow, ModelError for masks, and
    for NaN or Inf in a weight.

    >>> torch.allclose(permute_channels(model, x, sparsity=0.5).model(x), model(x), atol=1e-6)
    True
    """
    check_sparsity(sparsity, parse(pattern))
    if not gains_by_order(pattern):
        raise PatternError(
            f'pattern "{pattern}" gains nothing from an order that is sought for blocks of one output and several '
            'inputs. Use one like "1x4".'
        )
    side = parse(pattern).block[1]
    made = plain_copy(model)
    coupled, state = coupling(made, example), made.state_dict()
    matrices = {each.name: _matrix(each, state[each.name]) for each in coupled.carriers if each.reads}
    sets = [found for units in coupled.movable if (found := _set(coupled, matrices, units, side)) is not None]
    for each in sets:
        order = _order(each, matrices, sparsity)
        for carrier in coupled.carriers:
            _move_(state[carrier.name], carrier, order)
    if answers_differ(made, model, example):
        return Permuted(plain_copy(model), {}, dict.fromkeys(map(weight_name, matrices), HIDDEN))
    return Permuted(made, _kept(coupled, sets, matrices, state, sparsity), _left(coupled, sets))


def gains_by_order(pattern: str) -> bool:
    """Whether it has blocks of one output and several inputs, at one tap.

    >>> [gains_by_order(text) for text in ("1x4", "4x1", "free", "2:4")]
    [True, False, False, False]
    """
    parsed = parse(pattern)
    outs, inputs, *taps = parsed.block
    return not parsed.of and outs == 1 and inputs > 1 and set(taps) <= {1}


def best_order(matrices: Sequence[Tensor], side: int, sparsity: float) -> Tensor:
    """(channels,) the channels in an order in which the blocks that stay in each matrix keep more of its sum, or as
    much; every share counts alike.

    matrices  (rows, channels) each, what is kept of a weight: not negative; channels are a multiple of `side`

    >>> order = best_order([torch.tensor([[9.0, 0, 9, 0, 9, 0, 9, 0]])], 4, 0.5)
    >>> sorted(order.reshape(2, 4).sort().values.tolist())
    [[0, 2, 4, 6], [1, 3, 5, 7]]
    """
    seeded = torch.Generator().manual_seed(0)
    shares = [matrix / matrix.sum().clamp(min=torch.finfo(torch.float32).tiny) for matrix in matrices]
    owner = torch.repeat_interleave(torch.tensor([len(each) for each in shares]))
    drawn = torch.randperm(len(owner), generator=seeded)[:ROWS]
    columns = torch.cat(shares)[drawn].T.contiguous()  # (channels, rows)
    order, stale = torch.arange(len(columns)), 0
    blocks = len(columns) // side
    for turn in range(min(PASSES, max(10, int(SUMS / (blocks**2 * len(drawn)))))):
        if turn % 10 == 0:
            least = torch.stack([_threshold(each[:, order], side, sparsity) for each in shares])
        order, is_better = _pass(columns - least[owner[drawn]] / side, order, side, seeded)
        stale = 0 if is_better else stale + 1
        if stale == STALE:
            break
    gain = sum(
        share_kept(each[:, order], side, sparsity) - share_kept(each, side, sparsity) for each in shares
    )
    return order if gain > 0 else torch.arange(len(columns))


def share_kept(matrix: Tensor, side: int, sparsity: float) -> float:
    """Share of a matrix's sum, 0..1, in its best blocks of `side` columns; the last block may be smaller.

    >>> share_kept(torch.tensor([[1.0, 2, 3, 4]]), 2, 0.5)
    0.7
    """
    blocks = _block_sums(matrix, side).flatten()
    best = blocks.topk(len(blocks) - round(sparsity * len(blocks))).values
    return float(best.sum().double() / matrix.sum().double().clamp(min=torch.finfo(torch.float32).tiny))


def _pass(columns: Tensor, order: Tensor, side: int, seeded: torch.Generator) -> tuple[Tensor, bool]:
    """The order after one exchange among all blocks, and whether it is better: what sums above 0 counts.

    columns  (channels, rows) less a share of the sum that a block needs to stay
    """
    from scipy.optimize import linear_sum_assignment

    blocks = order.reshape(-1, side).clone()
    every = torch.arange(len(blocks))
    slot = torch.randint(side, every.shape, generator=seeded)
    taken = columns[blocks[every, slot]]  # (blocks, rows) of the channels that are taken out
    rest = columns[blocks].sum(1) - taken
    gains = torch.stack([(each + taken).clamp_(min=0).sum(1) for each in rest])  # (blocks, channels)
    given = torch.from_numpy(linear_sum_assignment(gains.double().numpy(), maximize=True)[1])
    before, after = gains.diagonal().sum(), gains[every, given].sum()
    blocks[every, slot] = blocks[every, slot][given]
    return blocks.flatten(), bool(after > before * (1 + 1e-5))


def _threshold(matrix: Tensor, side: int, sparsity: float) -> Tensor:
    """The sum of the last block that stays."""
    blocks = _block_sums(matrix, side).flatten()
    return blocks.topk(max(1, len(blocks) - round(sparsity * len(blocks)))).values[-1]


def _block_sums(matrix: Tensor, side: int) -> Tensor:
    """(rows, blocks), a last one that is not full included."""
    padded = nn.functional.pad(matrix, (0, -matrix.shape[1] % side))
    return padded.reshape(len(matrix), -1, side).sum(2)


@dataclass(frozen=True)
class _Set:
    """Channels that can change places.

    blocks   (blocks, side) their units, as they lie in the weights that gain
    readers  the columns of these weights
    """

    blocks: Tensor
    readers: tuple[Carrier, ...]


def _set(coupled: Coupling, matrices: Mapping[str, Tensor], units: Tensor, side: int) -> _Set | None:
    """The blocks that can exchange these units: where weights are cut in several ways, that of most weights."""
    cuts: dict[tuple[tuple[int, ...], ...], list[Carrier]] = {}
    for carrier in coupled.carriers:
        if carrier.reads and len(blocks := _whole_blocks(carrier.units, units, side)) > 1:
            cuts.setdefault(blocks, []).append(carrier)
    if not cuts:
        return None
    best = max(cuts, key=lambda cut: sum(matrices[each.name].numel() for each in cuts[cut]))
    return _Set(torch.tensor(best), tuple(cuts[best]))


def _whole_blocks(places: Tensor, units: Tensor, side: int) -> tuple[tuple[int, ...], ...]:
    """The blocks of columns that hold these units alone; none where a unit has several columns, as after flatten."""
    inside = torch.isin(places, units)
    if len(places[inside].unique()) < int(inside.sum()):
        return ()
    whole = len(places) // side * side
    chosen = inside[:whole].reshape(-1, side).all(1)
    return tuple(sorted(tuple(sorted(block)) for block in places[:whole].reshape(-1, side)[chosen].tolist()))


def _order(found: _Set, matrices: Mapping[str, Tensor], sparsity: float) -> Exchange:
    units = found.blocks.flatten()
    column = [{unit: at for at, unit in enumerate(each.units.tolist())} for each in found.readers]
    read = [
        matrices[each.name][:, [places[unit] for unit in units.tolist()]]
        for each, places in zip(found.readers, column, strict=True)
    ]
    return units, units[best_order(read, found.blocks.shape[1], sparsity)]


def _move_(tensor: Tensor, carrier: Carrier, order: Exchange) -> None:
    """Put what belongs to each unit where the one lay whose place it takes; of several places each in its turn."""
    old, new = order
    taken_by = torch.arange(OTHER, max(int(carrier.units.max()), int(old.max())) + 1)
    taken_by[old - OTHER] = new
    wanted = taken_by[carrier.units - OTHER]
    source = torch.empty_like(wanted)
    source[wanted.argsort(stable=True)] = carrier.units.argsort(stable=True)
    with torch.no_grad():
        tensor.copy_(tensor.index_select(carrier.axis, source.to(tensor.device)))


def _matrix(carrier: Carrier, weight: Tensor) -> Tensor:
    """(out x taps, in) the magnitude of a weight (out, in, taps ...)."""
    size = weight.detach().abs().float().cpu()
    if not size.isfinite().all():
        raise ModelError(
            f'weight "{weight_name(carrier.name)}" holds NaN or Inf. Train it again, or leave it out.'
        )
    return size.movedim(1, -1).flatten(0, -2)


def _kept(
    coupled: Coupling,
    sets: Sequence[_Set],
    matrices: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    sparsity: float,
) -> dict[str, tuple[float, float]]:
    """Of the weights that read channels which may have moved."""
    kept = {}
    for carrier in _moved(coupled, sets):
        pair = matrices[carrier.name], _matrix(carrier, state[carrier.name])
        side = sets[0].blocks.shape[1]
        before, after = (share_kept(each, side, sparsity) for each in pair)
        kept[weight_name(carrier.name)] = before, after
    return kept


def _moved(coupled: Coupling, sets: Sequence[_Set]) -> list[Carrier]:
    units = (
        torch.cat([each.blocks.flatten() for each in sets]) if sets else torch.tensor([], dtype=torch.long)
    )
    return [each for each in coupled.carriers if each.reads and torch.isin(each.units, units).any()]


def _left(coupled: Coupling, sets: Sequence[_Set]) -> dict[str, str]:
    moved = {each.name for each in _moved(coupled, sets)}
    return {
        weight_name(each.name): _reason(coupled, each.units)
        for each in coupled.carriers
        if each.reads and each.name not in moved
    }


def _reason(coupled: Coupling, units: Tensor) -> str:
    if (units == OTHER).any():
        return "it reads inputs of the network, or what cannot be followed"
    fixed = [coupled.fixed[unit] for unit in units.tolist() if unit in coupled.fixed]
    return f"its inputs stay: {fixed[0]}" if fixed else "no two whole blocks of its inputs can change places"
