"""Where the non-zeros are, as bytes and back: one file per way of writing it down.

    bitmask   one bit per position
    gaps      the distance from each non-zero to the next, in a fixed number of bits (Han et al. 2015)

Each has `encode`, `decode`, `bits` (exact, before the last byte is filled up) and `expected_bits` (the mean
of `bits` over masks whose positions are zero independently with probability `sparsity`). A mask is a 1-D bool
array whose True is a non-zero. `decode` trusts nothing it is given and raises PackError with the bare fact.
"""
