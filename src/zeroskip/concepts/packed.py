"""A network as a file holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PackedTensor:
    """One stored tensor, exact: `positions` says where its non-zeros are, `values` what they are, as bytes.

    coding          "dense" (no positions: every element has a value), "bitmask", "gaps2" ... "gaps16" (relative
                    index of that many bits), "huffman2" ... "huffman16" (as Huffman codes), "arithmetic"
    values_coding   "exact" (as they are), or codes that number the entries of `codebook`: "fixed" (all of one
                    width), "huffman", "arithmetic"; where both are "arithmetic", `values` holds both
    block           its sides along each axis, where positions are those of blocks: all values of a block that holds a
                    non-zero are stored, zeros too; `kept` counts these blocks
    scales          a float32 number for each output, where values are int8: weight = scale * byte
    codebook        the distinct values, of `codebook_dtype`, torch's name; both empty without codes
    tables          the Huffman codes of the gaps, then those of the values, where they are used
    escapes         how many gaps went on because their field was too narrow

    >>> from zeroskip import pack
    >>> pack.encode({"fc1.weight": model.fc1.weight.detach()}).tensors[0].nonzeros
    12
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: str
    nonzeros: int
    positions: bytes
    values: bytes
    values_coding: str = "exact"
    codebook_dtype: str = ""
    codebook: bytes = b""
    tables: bytes = b""
    escapes: int = 0
    block: tuple[int, ...] = ()
    kept: int = 0
    scales: bytes = b""

    @property
    def stored_dtype(self) -> str:
        """Of the values: int8 where the weights are bytes times scales."""
        return "int8" if self.scales else self.dtype

    @property
    def places(self) -> int:
        """How many positions are stored: of blocks, or of non-zeros."""
        return self.kept if self.block else self.nonzeros


@dataclass(frozen=True)
class Packed:
    """A network's stored tensors. It holds no code: to run it, load it into the task's own model.

    ledger  tensor name -> bytes of its "values", "positions", "codebook", "scales", "tables", "header"; "(file)":
            of no tensor
    tied    name of a further tensor -> the stored one whose memory it has

    >>> from zeroskip import pack
    >>> pack.encode({"fc1.weight": model.fc1.weight.detach()}).ledger["fc1.weight"]["values"]
    48
    """

    tensors: tuple[PackedTensor, ...]
    ledger: dict[str, dict[str, int]]
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def stored_bytes(self) -> int:
        """Size of the whole file in bytes."""
        return sum(sum(parts.values()) for parts in self.ledger.values())
