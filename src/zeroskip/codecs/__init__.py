"""Arrays as bits and back: one file per code.

Positions of the non-zeros:

    bitmask     one bit per position
    gaps        the distance from each non-zero to the next, in a fixed number of bits
    csr         compressed sparse rows: the column of each non-zero in 16 bits, and a pointer per row

Values, or any other small numbers:

    huffman     canonical Huffman codes: the more frequent, the shorter

Positions and values:

    arithmetic  each bit predicted from those before it, and stored by arithmetic coding
    relative    Deep Compression's relative index: entries of a gap and a code, with fillers (Han et al. 2016)
    eie         EIE's interleaved compressed columns (Han et al. 2016)
    runlength   Eyeriss's code for 16-bit activations: runs of zeros and levels in 64-bit words (Chen et al. 2017)
    zerovalue   a bitmask and the non-zeros of a tensor with elements of 8 to 32 bits (Rhu et al. 2018)

Each has `encode`, `decode`, `bits` (exact, before the last byte is filled up) and `expected_bits` (the mean
of `bits` over masks whose positions are zero independently with probability `sparsity`; for huffman, over
symbols drawn independently; for arithmetic, the entropy). A mask is a bool array whose True is a non-zero.
`decode` checks all of its input and raises PackError with the bare fact. bit_stream.py writes and reads codes of
any width, blocks.py turns a mask of elements into one of blocks and back, and context_mixing.py holds the loops of
arithmetic.py.
"""
