"""Make it small: a network's tensors as a `.zs` file, exact to the bit, every byte accounted for.

container.py   the file format, on one screen
encode.py      a network <-> Packed
tensor.py      one tensor: which coding is the cheapest
"""

from zeroskip.pack.container import from_bytes, load, save, to_bytes
from zeroskip.pack.encode import decode, encode

__all__ = ["decode", "encode", "from_bytes", "load", "save", "to_bytes"]
