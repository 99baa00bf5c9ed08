"""Arrays as bits and back: one file per way of writing them down.

Where the non-zeros are:

    bitmask     one bit per position
    gaps        the distance from each non-zero to the next, in a fixed number of bits
    csr         compressed sparse rows: the column of each non-zero in 16 bits, and a pointer per row

What they are, or anything else that is a small number:

    huffman     canonical Huffman codes, the more often the shorter

Both together:

    arithmetic  each bit predicted from those before it, and stored by arithmetic coding
    relative    Deep Compression's relative index: entries of a gap and a code, with fillers (Han et al. 2016)
    eie         EIE's interleaved compressed columns (Han et al. 2016)
    runlength   Eyeriss's code for 16-bit activations: runs of zeros and levels in 64-bit words (Chen et al. 2017)
    zerovalue   a bitmask and the non-zeros of a tensor of 8 to 32 bits, at memory speed (Rhu et al. 2018)

Each has `encode`, `decode`, `bits` (exact, before the last byte is filled up) and `expected_bits` (the mean
of `bits` over masks whose positions are zero independently with probability `sparsity`; for huffman, over
symbols drawn independently; for arithmetic, the entropy). A mask is a bool array whose True is a non-zero.
`decode` trusts nothing it is given and raises PackError with the bare fact. stream.py puts codes of any width
one after the other.
"""
