"""Make it small: a network's tensors as a `.zs` file, exact to the bit, every byte accounted for.

zs_file.py                the file format, on one screen
network_coding.py         a network <-> Packed
tensor_coding.py          one tensor <-> its cheapest codings
block_search.py           the block in which its zeros lie
scaled_bytes.py           weights that are bytes times the scale of an output
position_coding.py        of its non-zeros' or blocks' positions
value_coding.py           of its values
tensor_record.py          one tensor's bytes in the file
coding_names.py           how tensors are stored, in words
deep_compression_file.py  the file that the authors of Deep Compression published
"""

from zeroskip.pack.coding_names import codings
from zeroskip.pack.deep_compression_file import read_deep_compression
from zeroskip.pack.network_coding import decode, encode
from zeroskip.pack.zs_file import escapes, from_bytes, load, save, to_bytes

__all__ = [
    "codings", "decode", "encode", "escapes", "from_bytes", "load", "read_deep_compression", "save", "to_bytes",
]  # fmt: skip
