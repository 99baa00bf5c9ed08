"""All that a program is made from, so that it can be made again without timing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroskip.concepts import Kernel, Precision
from zeroskip.graph import Graph


@dataclass(frozen=True)
class Origin:
    """A network and how each of its layers is computed.

    dtype    of the network's input
    kernels  node of a layer -> its kernel, unless the layer works on tiles
    tiles    operation on tiles that has weights -> its kernel; empty: nothing works on tiles. All of them have the
             same `element`, which is that of the maps
    images   that are worked on at a time there
    """

    graph: Graph
    dtype: torch.dtype
    precision: Precision
    kernels: dict[str, Kernel]
    tiles: dict[str, Kernel]
    images: int = 1
