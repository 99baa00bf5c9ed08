"""SparTen: chunks of both operands as bit masks, and one match of them a cycle (Gondimalla et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zeroskip.simulate import lane_counts
from zeroskip.simulate.accelerator import Accelerator, divided, size
from zeroskip.simulate.lane_counts import Schedule, tiles
from zeroskip.simulate.workload import Workload, windows

FilterOrder = Callable[[Tensor, int, int], Tensor]
"""(weight mask (groups, outputs, k), chunk, lanes) -> the filter of each place, see `_units`."""


def chunks(work: Workload, chip: Accelerator) -> Schedule:
    """Clusters of `filters` lanes, a filter each, share chunks of `chunk` inputs of one position.

    A lane takes one match a cycle, at least one cycle a chunk, and waits for the others of its cluster after each.
    Clusters have positions of their own and wait for each other at the end of the layer.

    >>> chunks(of_masks("fc", torch.ones(32, 200) != 0, torch.ones(1, 200) != 0), chips.SPARTEN).cycles
    200
    """
    return _units(work, chip, _as_they_are)


def paired(work: Workload, chip: Accelerator) -> Schedule:
    """`chunks` with two filters a lane: the densest with the sparsest of the layer, and so on inwards (GB-S).

    >>> paired(of_masks("fc", torch.ones(64, 200) != 0, torch.ones(1, 200) != 0), chips.SPARTEN).cycles
    400
    """
    return _units(work, chip, _by_filter)


def repaired(work: Workload, chip: Accelerator) -> Schedule:
    """`paired`, where the filters of a cluster are paired anew for each chunk (GB-H).

    >>> repaired(of_masks("fc", torch.ones(64, 200) != 0, torch.ones(1, 200) != 0), chips.SPARTEN).cycles
    400
    """
    return _units(work, chip, _by_chunk)


def _units(work: Workload, chip: Accelerator, order: FilterOrder) -> Schedule:
    """Units of work are (cluster-load of filters, position), dealt to the clusters.

    An order is (chunks, groups, loads, filters of a lane, lanes): the filter at each place, and one more than there
    are where there is none.
    """
    chunk, clusters = min(size(chip, "chunk"), work.inputs), divided(chip, "filters")
    lanes = min(size(chip, "filters"), work.weight.shape[1])  # those that can have a filter
    weight = work.weight.permute(0, 1, 3, 4, 2).flatten(2)  # (g, m, k), neighbouring channels together
    places = order(weight, chunk, lanes)
    weight, there = _placed(lane_counts.grouped(weight, chunk), places.flatten(2))
    units, busy = [], 0
    for seen in windows(work, numbers=1 << 22):
        window = lane_counts.grouped(seen.flatten(2), chunk).permute(2, 1, 0, 3)  # (chunks, g, p, chunk)
        cycles = torch.zeros(*places.shape[1:3], len(seen), dtype=torch.float64)  # (g, loads, p)
        for first in range(0, len(weight), 32):  # so many chunks at a time, which bounds the memory
            at = slice(first, first + 32)
            matches = lane_counts.matches(weight[at], window[at])  # (chunks, g, places, p)
            costs = torch.maximum(matches, there[at])
            busy += int(costs.sum(2).sum(dtype=torch.float64))  # the inner sum is exact in float32
            costs = costs.unflatten(2, places.shape[2:])  # (chunks, g, loads, filters of a lane, lanes, p)
            cycles += costs.sum(3).amax(3).sum(0, dtype=torch.float64)
        units.append(cycles)
    return Schedule(int(lane_counts.dealt(torch.cat(units, dim=2).flatten(), clusters)), busy)


def _placed(weight: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Filters (g, m, chunks, chunk) in their places: bool (chunks, g, places, chunk); and whether there is one, float.

    A filter takes a cycle of each chunk at least; a place without a filter takes none.
    """
    groups, outputs, pieces, chunk = weight.shape
    there = (places < outputs)[..., None]
    filters = torch.arange(groups)[:, None] * outputs + places.clamp(max=outputs - 1)  # (chunks, g, places)
    rows = filters * pieces + torch.arange(pieces)[:, None, None]
    chosen = weight.reshape(-1, chunk)[rows.flatten()].reshape(*rows.shape, chunk)
    return chosen & there, there.float()


def _as_they_are(weight: Tensor, chunk: int, lanes: int) -> Tensor:
    """One filter a lane, in their order."""
    groups, outputs, inputs = weight.shape
    filled = torch.nn.functional.pad(torch.arange(outputs), (0, -outputs % lanes), value=outputs)
    return filled.reshape(1, 1, -1, 1, lanes).expand(tiles(inputs, chunk), groups, -1, -1, -1)


def _by_filter(weight: Tensor, chunk: int, lanes: int) -> Tensor:
    """Pairs by the non-zeros of whole filters, the same for every chunk."""
    nonzeros = lane_counts.blocks(weight, max(weight.shape[2], 1))[None, ..., 0]  # (1, g, m)
    return _pairs(nonzeros, lanes).expand(tiles(weight.shape[2], chunk), -1, -1, -1, -1)


def _by_chunk(weight: Tensor, chunk: int, lanes: int) -> Tensor:
    """The filters of each load of `_by_filter`, paired by their non-zeros in each chunk."""
    members = _by_filter(weight, chunk, lanes).flatten(3)  # (chunks, g, loads, 2 lanes)
    nonzeros = lane_counts.blocks(weight, chunk).movedim(2, 0)  # (chunks, g, m)
    nonzeros = torch.nn.functional.pad(nonzeros, (0, 1), value=-1)  # no filter is sparser than an empty one
    sizes = nonzeros[:, :, None].expand(-1, -1, members.shape[2], -1).gather(3, members)
    ranked = members.gather(3, sizes.argsort(dim=3, descending=True, stable=True))
    return torch.stack([ranked[..., :lanes], ranked[..., lanes:].flip(-1)], dim=3)


def _pairs(nonzeros: Tensor, lanes: int) -> Tensor:
    """Densest with sparsest: nonzeros (chunks, g, m) -> (chunks, g, loads, 2, lanes)."""
    outputs = nonzeros.shape[2]
    ranked = nonzeros.argsort(dim=2, descending=True, stable=True)
    filled = torch.nn.functional.pad(ranked, (0, -outputs % (2 * lanes)), value=outputs)
    half = filled.shape[2] // 2
    pairs = torch.stack([filled[..., :half], filled[..., half:].flip(-1)], dim=-1)  # (chunks, g, half, 2)
    return pairs.unflatten(2, (-1, lanes)).transpose(-1, -2)
