"""Who computes what, and when: one function for each way of sharing a layer out among lanes.

    array, structured, planar       dense grids, and one that halves 2:4 weights
    row_stationary                  Eyeriss
    bricks                          Cnvlutin
    selected, shared                Cambricon-X, Cambricon-S
    columns                         EIE
    cartesian                       SCNN, the processing element of Eyeriss v2
    chunks, paired, repaired        SparTen, without balance, GB-S, GB-H
    joined                          ExTensor

Each takes (workload, chip) and returns the Schedule that the published rule gives on these zeros, exactly, with
no limit of a memory. Lanes wait for each other where, and only where, those of the paper do.
"""

from zeroskip.simulate.dataflows.dense import array, planar, structured
from zeroskip.simulate.dataflows.extensor import joined
from zeroskip.simulate.dataflows.eyeriss import row_stationary
from zeroskip.simulate.dataflows.nonzero_products import cartesian, columns
from zeroskip.simulate.dataflows.operand_selection import bricks, selected, shared
from zeroskip.simulate.dataflows.sparten import chunks, paired, repaired

__all__ = [
    "array",
    "bricks",
    "cartesian",
    "chunks",
    "columns",
    "joined",
    "paired",
    "planar",
    "repaired",
    "row_stationary",
    "selected",
    "shared",
    "structured",
]
