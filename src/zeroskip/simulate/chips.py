"""Published accelerators as data. Each number has its source beside it; "assumed" where the paper is silent.

A chip of your own is `dataclasses.replace(chips.SCNN, name="mine", tile={**chips.SCNN.tile, "filters": 16})`.
"""

from __future__ import annotations

from dataclasses import replace

from zeroskip.simulate import dataflows, formats
from zeroskip.simulate.accelerator import Accelerator, Memory
from zeroskip.simulate.dataflows import dense, eyeriss, operand_selection

# No paper's: a plain grid to compare with, 1,024 multipliers as SCNN and SparTen have them.
DENSE = Accelerator(
    "dense array",
    dataflows.array,
    lanes=64,  # 16 outputs x 4 positions
    width=16,
    tile={"outputs": 16},
    memories=(Memory("buffer", 2 << 20, {"A": 16, "W": 4, "O": 16}),),  # an operand is shared across the grid
    dram_bytes_per_cycle=32,
)

# Chen et al., JSSC 2017, section V: 12 x 14 elements, 200 MHz, 108 KB buffer of which 100 KB hold inputs and sums,
# pads of 12, 224 and 24 words. The buffer reads and writes 8 bytes a cycle each; 15.5 of those 16
# and 14 % of the cycles to fill the array are fitted, to VGG-16's latencies and traffic (its megabytes read as 2^20
# bytes) and to AlexNet's latencies.
EYERISS = Accelerator(
    "Eyeriss",
    dataflows.row_stationary,
    lanes=168,
    tile={"rows": 12, "input_row": 12, "weights": 224, "sums": 24},
    gates="A",
    memories=(
        Memory("global buffer", 108 << 10, {"A": 4, "O": 4}, bytes_per_cycle=15.5),
        Memory("input pad", 168 * 24, {"A": 1}, instances=168),
        Memory("weight pad", 168 * 448, {"W": 1}, instances=168),
        Memory("sum pad", 168 * 48, {"O": 1}, instances=168),
    ),
    formats={"A": formats.run_length},  # weights are not compressed
    hertz=200e6,
    ramp=1.14,
    traffic=eyeriss.traffic,
)

# Chen et al., JETCAS 2019, as Sparseloop's baseline counts it: one element, one MAC a cycle.
EYERISS_V2_PE = Accelerator(
    "Eyeriss v2 element",
    dataflows.cartesian,
    lanes=1,
    tile={"rows": 1, "columns": 1, "weights": 1, "inputs": 1},  # all filters are one group
    skips="AW",
    memories=(
        Memory("input pad", 128, {"A": 1}),
        Memory("weight pad", 288, {"W": 1}),
        Memory("sum pad", 80, {"O": 1}),
    ),
    bits={"A": 8, "W": 8, "O": 20},
    hertz=200e6,
)

# Reagen et al., ISCA 2016: fully connected layers, words of about 8 bits, 40 nm. A small input gates the read of its
# weights and its MAC; no cycle is saved. 16 lanes, 250 MHz and the sizes are assumed.
MINERVA = Accelerator(
    "Minerva",
    dataflows.array,
    lanes=16,
    tile={"outputs": 16},
    gates="A",
    memories=(
        Memory("weights", 1 << 20, {"W": 1}, instances=16),
        Memory("activities", 32 << 10, {"A": 16}),
    ),
    bits={"A": 8, "W": 8, "O": 16},
    ops=("linear",),
    hertz=250e6,
)

# Han et al., ISCA 2016: 64 elements, 800 MHz, 4-bit codes and 4-bit runs, queues of 8, 128 KB of entries an element,
# vectors of at most 4,096 at a time. Computes in 16 bits.
EIE = Accelerator(
    "EIE",
    dataflows.columns,
    lanes=64,
    tile={"queue": 8, "inputs": 4096},
    skips="AW",
    memories=(
        Memory("entries", 64 * (128 << 10), {"W": 1}, instances=64),
        Memory("activities", 64 * (2 << 10), {"A": 64, "O": 1}, instances=64),
    ),
    shaped={"W": lambda chip: formats.columns(chip.lanes)},
    bits={"A": 16, "W": 4, "O": 16},
    ops=("linear",),
    hertz=800e6,
)

# Chen et al., MICRO 2014 (DaDianNao), as Cnvlutin describes its base: 16 units x 16 filters x 16 inputs, 606 MHz,
# 4 MB of inputs, 2 MB of weights a unit.
DADIANNAO = Accelerator(
    "DaDianNao",
    dataflows.bricks,
    lanes=16,  # of inputs
    width=256,  # filters
    tile={"brick": 16, "empty": 1},
    memories=(
        Memory("inputs", 4 << 20, {"A": 256, "O": 4096}),
        Memory("weights", 32 << 20, {"W": 1}, instances=16),
    ),
    hertz=606e6,
)

# Albericio et al., ISCA 2016: DaDianNao whose 16 input lanes take the non-zeros of bricks of 16 channels, each with 4
# bits of its place; 256 filters share a lane. An empty brick takes a cycle (assumed: a brick is read per cycle).
CNVLUTIN = replace(DADIANNAO, name="Cnvlutin", skips="A", formats={"A": formats.bricks})

# Parashar et al., ISCA 2017, tables II and III: 8 x 8 elements of 4 x 4 multipliers, 8 filters at a time, 10 KB of
# inputs and of outputs an element, indices among them, a queue of 500 bytes of weights, DRAM of 50 GB/s at 1 GHz.
# Section 3, the loops: groups of filters, channels, pixels, then filters and kernel places, so an input is read once
# for each group; sums leave their banks once a group. Maps that fit stay on the chip. The crossbar's energy is not
# published. Other layers than convolutions are not described; they are counted as dense.
SCNN = Accelerator(
    "SCNN",
    dataflows.cartesian,
    lanes=64,
    width=16,
    tile={"rows": 8, "columns": 8, "weights": 4, "inputs": 4, "filters": 8},
    skips="AW",
    memories=(
        Memory("inputs", 64 * (10 << 10), {}, instances=64, held={"A": "filters"}),
        Memory("outputs", 64 * (10 << 10), {}, instances=64, held={"O": ""}),
        Memory("weights", 64 * 500, {"W": 4}, instances=64),
        Memory("sums", 64 * 32 * 32 * 3, {"O": 1}, instances=64 * 32),
    ),
    formats={"A": formats.zero_runs, "W": formats.zero_runs},
    dram_bytes_per_cycle=50,
    keeps="AO",
    ops=("conv2d",),
    fallback=True,
)

# Section 5, the dense twin: the same loops with dot products of 16 instead of all products, 2 MB for maps. An input is
# held as in SCNN; a dot product takes 16 weights and one sum, which needs no banks. That its groups of filters, its
# queue of weights and its sums are SCNN's, and that half of the 2 MB is for outputs, is assumed.
DCNN = Accelerator(
    "DCNN",
    dataflows.planar,
    lanes=64,
    width=16,
    tile={"rows": 8, "columns": 8, "filters": 8},
    memories=(
        Memory("inputs", 1 << 20, {}, instances=64, held={"A": "filters"}),
        Memory("outputs", 1 << 20, {}, instances=64, held={"O": ""}),
        Memory("weights", 64 * 500, {"W": 1}, instances=64),
        Memory("sums", 64 * 32 * 32 * 3, {"O": 16}, instances=64),
    ),
    dram_bytes_per_cycle=50,
    keeps="AO",
)

# Zhang et al., MICRO 2016: 16 elements of 16 multipliers, 1 GHz, 8 KB of inputs and of outputs, 2 KB of weights an
# element; the selector looks at 256 inputs at a time.
CAMBRICON_X = Accelerator(
    "Cambricon-X",
    dataflows.selected,
    lanes=16,
    width=16,
    tile={"window": 256},
    skips="W",
    memories=(
        Memory("inputs", 8 << 10, {"A": 1}),
        Memory("outputs", 8 << 10, {"O": 16}),
        Memory("weights", 16 * (2 << 10), {"W": 1}, instances=16),
    ),
    formats={"W": formats.zero_runs},
)

# Zhou et al., MICRO 2018: the same array; blocks of 16 filters share their zeros, so that one selection serves all
# elements, and zero inputs are skipped as well. Weights have 8 bits; 4 in fully connected layers.
CAMBRICON_S = replace(
    CAMBRICON_X,
    name="Cambricon-S",
    dataflow=dataflows.shared,
    skips="AW",
    memories=(
        Memory("inputs", 8 << 10, {"A": 16}),
        Memory("outputs", 8 << 10, {"O": 16}),
        Memory("weights", 16 * (2 << 10), {"W": 1}, instances=16),
    ),
    formats={},
    shaped={"W": lambda chip: formats.shared(chip.lanes)},
    bits={"A": 16, "W": 8, "O": 16},
    stored=operand_selection.shared_weights,
)

# Gondimalla et al., MICRO 2019: 32 clusters of 32 units, chunks of 128, 8 bits, 45 nm. Buffer sizes are assumed.
SPARTEN = Accelerator(
    "SparTen",
    dataflows.chunks,
    lanes=1024,
    tile={"chunk": 128, "filters": 32},
    skips="AW",
    memories=(
        Memory("unit buffers", 1024 * 512, {"A": 1, "W": 1, "O": 128}, instances=1024),
        Memory("cluster buffers", 32 * (32 << 10), {"A": 32, "W": 1}, instances=32),
    ),
    formats={"A": formats.bitmask, "W": formats.bitmask},
    bits={"A": 8, "W": 8, "O": 8},
)
SPARTEN_GB_S = replace(SPARTEN, name="SparTen GB-S", dataflow=dataflows.paired)
SPARTEN_GB_H = replace(SPARTEN, name="SparTen GB-H", dataflow=dataflows.repaired)

# Hegde et al., MICRO 2019, as TeAAL's artifact describes it (Nayak et al., MICRO 2023): 128 elements, 1 GHz, 64 bits,
# 64 KB an element, 30 MB for all of which 256 words pass in a cycle, DRAM of 68.256 GB/s, a GB being 2^30 (the authors'
# own bytes and time of p2p-Gnutella31 are 71.9 bytes a cycle). There tiles are chosen for each matrix; these are the
# largest that fit with no zero in them, numbers, coordinates and sums, as multiples of 32. As many banks as words is
# assumed.
EXTENSOR = Accelerator(
    "ExTensor",
    dataflows.joined,
    lanes=128,
    tile={"element": 32, "outputs": 864, "positions": 864, "inputs": 864},
    skips="AW",
    memories=(
        Memory("buffer", 30 << 20, {"A": 1, "W": 1, "O": 1}, bytes_per_cycle=2048, instances=256),
        Memory("element buffers", 128 * (64 << 10), {"A": 1, "W": 1, "O": 1}, instances=128),
    ),
    shaped=dict.fromkeys("AW", lambda chip: formats.fibers(chip.tile["element"])),
    bits={"A": 64, "W": 64, "O": 64},
    dram_bytes_per_cycle=73.29,
)

# NVIDIA A100 whitepaper, 2020: 1,024 fp16 MACs a cycle and multiprocessor, twice that on 2:4 weights; 1.41 GHz, 192 KB
# of shared memory, 1,555 GB/s over 108 multiprocessors. Other weights run densely.
TENSOR_CORE = Accelerator(
    "2:4 tensor core",
    dataflows.structured,
    lanes=128,  # 16 outputs x 8 positions
    width=8,
    tile={"outputs": 16},
    skips="W",
    memories=(Memory("shared memory", 192 << 10, {"A": 16, "W": 8, "O": 1024}),),
    formats={"W": formats.two_of_four},
    dram_bytes_per_cycle=10,
    hertz=1.41e9,
    stored=dense.two_of_four,
)

CHIPS = (
    DENSE,
    EYERISS,
    EYERISS_V2_PE,
    MINERVA,
    EIE,
    DADIANNAO,
    CNVLUTIN,
    SCNN,
    DCNN,
    CAMBRICON_X,
    CAMBRICON_S,
    SPARTEN,
    SPARTEN_GB_S,
    SPARTEN_GB_H,
    EXTENSOR,
    TENSOR_CORE,
)
