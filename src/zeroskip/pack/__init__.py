"""Make it small: a network's tensors as a `.zs` file, exact to the bit, every byte accounted for.

container.py   the file format, on one screen
encode.py      a network <-> Packed
tensor.py      one tensor: which codings are the cheapest; positions.py and values.py its two halves
record.py      one tensor's bytes in the file
foreign.py     files of others
"""

from zeroskip.pack.container import escapes, from_bytes, load, save, to_bytes
from zeroskip.pack.deep_compression_file import read_deep_compression
from zeroskip.pack.encode import decode, encode

__all__ = ["decode", "encode", "escapes", "from_bytes", "load", "read_deep_compression", "save", "to_bytes"]
