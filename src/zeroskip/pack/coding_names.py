"""How each tensor of a file is stored, in words."""

from __future__ import annotations

from zeroskip.concepts import Packed, PackedTensor


def codings(packed: Packed) -> dict[str, str]:
    """Tensor name -> the coding of its positions, with the bits that one takes, and of its values; "tied to" another.

    >>> from zeroskip import pack
    >>> codings(pack.encode({"w": torch.eye(8).repeat_interleave(4, 1), "b": torch.tensor([0.5])}))
    {'w': '1x4 blocks by gaps4, 4.0 bits each; values by fixed codes', 'b': 'dense; values as they are'}
    """
    found = {one.name: f"{_positions(one)}; {_values(one)}" for one in packed.tensors}
    return found | {name: f"tied to {first}" for name, first in packed.tied.items()}


def _positions(packed: PackedTensor) -> str:
    if packed.coding == "dense":
        return "dense"
    what = f"{'x'.join(map(str, packed.block))} blocks" if packed.block else "non-zeros"
    bits = (
        f", {8 * len(packed.positions) / packed.places:.1f} bits each"
        if packed.positions and packed.places
        else ""
    )
    return f"{what} by {packed.coding}{bits}"


def _values(packed: PackedTensor) -> str:
    what = "bytes x scales" if packed.scales else "values"
    coded = {"exact": "as they are", "fixed": "by fixed codes"}.get(
        packed.values_coding, f"by {packed.values_coding}"
    )
    return f"{what} {coded}"
