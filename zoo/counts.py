"""Weights, zeros and multiply-accumulates of a network, counted without zeroskip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoo.network import Given
from zoo.preparation import call


@dataclass(frozen=True)
class Count:
    """Of every parameter with two or more axes, each once; `macs` of one call, products of activations included."""

    weights: int
    kept: int
    bytes: int
    macs: int


def count(model: nn.Module, given: Given) -> Count:
    """`macs` is half of what torch's FlopCounterMode counts, with the operations split that it does not know."""
    weights = [tensor for name, tensor in model.named_parameters() if tensor.ndim > 1 and not _is_scale(name)]
    kept = sum(int(tensor.count_nonzero()) for tensor in weights)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    return Count(sum(tensor.numel() for tensor in weights), kept, stored, _flops(model, given) // 2)


def _is_scale(name: str) -> bool:
    """Whether the parameter is the scale that weight norm multiplies a weight with; it has the weight's axes."""
    return name.endswith((".weight_g", ".parametrizations.weight.original0"))


def _flops(model: nn.Module, given: Given) -> int:
    """oneDNN's LSTM, fused attention and the fast path of transformers count as nothing; here they are not taken."""
    fast_path, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of GPUs
    try:
        # Not without gradients: the counter hangs itself into them.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call(model, given)
        return counter.get_total_flops()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch._C._set_mkldnn_enabled(mkldnn)
