"""A network of the table: where it comes from, how it is made, what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Generator, Tensor, nn

Given = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Network:
    """One line of the table.

    package     that it comes from
    make        the network; its random weights follow torch's seed
    inputs      (batch, size, generator) -> what the network is called with: a tensor, a tuple or keywords
    sizes       of the example, and of the second size: pixels a side, tokens, samples, nodes
    sparsity    share of zeros in each weight that is pruned
    batch_axis  None where the first axis is no batch
    fixed       why there is no second size; "" where there is one
    kinds       what it counts as: "recurrent", "sound", "decoder", "graph"
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int, Generator], Given]
    sizes: tuple[int, int]
    sparsity: float = 0.9
    batch_axis: int | None = 0
    fixed: str = ""
    kinds: tuple[str, ...] = ()
