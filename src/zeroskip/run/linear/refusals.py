"""Why a kernel for linear layers does not run a layer, where several kernels have the same reason."""

from __future__ import annotations

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.run.dense.pytorch import not_float32

# Column numbers are stored in 16 bits: half the memory traffic of 32, and wide enough for all but giants.
WIDEST = 1 << 16

FEW, LARGE = 0.01, 1 << 20


def without_zeros(layer: Layer) -> str | None:
    """None, or why the layer is nothing for kernels that skip zero weights.

    >>> without_zeros(replace(layer, weight=torch.ones(8, 6)))
    '0 % zeros: nothing to skip'
    """
    reason = not_float32(layer, "linear")
    if reason:
        return reason
    sparsity = layer.sparsity
    if not sparsity:
        return "0 % zeros: nothing to skip"
    # Random numbers hold a few exact zeros, which are not worth building a large layer with every kernel.
    few = sparsity < FEW and layer.weight.numel() >= LARGE
    return f"{100 * sparsity:.2g} % zeros: too few to skip" if few else None


def accepts_16_bit_columns(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer is nothing for kernels that skip zero weights and number columns with 16 bits.

    >>> accepts_16_bit_columns(replace(layer, weight=torch.zeros(1, 65537)), machine, Precision())
    '65537 inputs: column numbers of 16 bits reach 65536'
    """
    if layer.op == "linear" and layer.weight.shape[1] > WIDEST:
        return f"{layer.weight.shape[1]} inputs: column numbers of 16 bits reach {WIDEST}"
    return without_zeros(layer)
