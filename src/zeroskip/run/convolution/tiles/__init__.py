"""Convolutions and what surrounds them on tiles: maps cut into a grid, one tile in each lane of a vector.

Files, each of which imports only those above it:

    layout, operations, shape_checks       where a map's pixels lie; what is done to maps, and whether it fits
    arrangement                            operations -> tiles, rings and addresses of all maps
    steps                                  a piece of machine code with its arguments; what happens to sums
    relayout, tensors, pointwise           steps that copy maps, read and write tensors, pool, scale and add
    convolution_job                        a convolution between two maps, for one of:
    baked, baked_steps, streamed           its weights as machine code, or as data
    lowering, segment                      arrangement -> steps in one call -> a function of tensors
    tiling, half_precision, kernels        the part of a network that works on tiles; kernels to choose from
"""
