"""How each tensor of a file is stored, in words."""

from __future__ import annotations

from zeroskip.concepts import Packed, PackedTensor


def codings(packed: Packed) -> dict[str, str]:
    """Tensor name -> the coding of its positions, with the block and the bits that one takes, and that of its values.

    >>> from zeroskip import pack
    >>> codings(pack.encode({"w": torch.eye(8).repeat_interleave(4, 1), "b": torch.tensor([0.5])}))
    {'w': '1x4 gaps4, 4.0 bits; fixed codes', 'b': 'dense'}
    """
    found = {one.name: "; ".join([_positions(one), *_values(one)]) for one in packed.tensors}
    return found | {name: f"tied to {first}" for name, first in packed.tied.items()}


def _positions(packed: PackedTensor) -> str:
    block = f"{'x'.join(map(str, packed.block))} " if packed.block else ""
    bits = ""
    if packed.positions and packed.places:
        bits = f", {8 * len(packed.positions) / packed.places:.1f} bits"
    return f"{block}{packed.coding}{bits}"


def _values(packed: PackedTensor) -> list[str]:
    """Nothing where they are stored as they are."""
    codes = [] if packed.values_coding == "exact" else [f"{packed.values_coding} codes"]
    return [*(["bytes"] if packed.scales else []), *codes]
