"""What several tests of run/ draw: layers, machines, and networks with zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import detect
from zeroskip.run.select import layer_timing, network_selection

HERE = detect()


def machines() -> list[Machine]:
    """This machine, and on x86 the narrower ones that it can pretend to be."""
    narrower = []
    if HERE.vector_bytes == 64:
        avx2 = frozenset(name for name in HERE.features if not name.startswith("avx512"))
        narrower.append(replace(HERE, vector_bytes=32, features=avx2))
    if HERE.vector_bytes >= 32:
        sse = frozenset(name for name in HERE.features if name.startswith(("sse", "ssse", "cmov", "cx8")))
        narrower.append(replace(HERE, vector_bytes=16, features=sse))
    return [HERE, *narrower]


MACHINES = machines()


def random_layer(out: int, inputs: int, sparsity: float, *, bias: bool = True, seed: int = 0) -> Layer:
    """A linear layer of normal weights, each of which is zero with probability `sparsity`."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inputs, generator=generator)
    weight[torch.rand(out, inputs, generator=generator) < sparsity] = 0
    shift = torch.randn(out, generator=generator) if bias else None
    return Layer("drawn", "linear", weight, shift, (inputs,), (out,))


def sparse_(model: nn.Module, sparsity: float = 0.9) -> nn.Module:
    """The model in evaluation mode, with that share of its weights set to zero in place."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            zeros = torch.rand(module.weight.shape, generator=generator) < sparsity
            module.weight.data[zeros] = 0
    return model.eval()


def let_win(monkeypatch: pytest.MonkeyPatch, *, alone: set[str], together: set[str]) -> None:
    """Timings by which these kernels win layer by layer, and these combinations as whole networks."""

    def timed(winners: set[str]) -> Callable[..., dict[str, float]]:
        return lambda calls, *_: {name: 0.1 if name in winners else 1.0 for name in calls}

    monkeypatch.setattr(layer_timing, "raced", timed(alone))
    monkeypatch.setattr(network_selection, "raced", timed(together))


def rounding(layer: Layer, x: Tensor) -> Tensor:
    """How far float32 sums may be from exact ones: a millionth of sum |weight x input| + |bias|."""
    shift = 0 if layer.bias is None else layer.bias.abs().double()
    return 1e-6 * (x.abs().double() @ layer.weight.abs().double().T + shift) + 1e-30


def with_zeros(batch: int, inputs: int, sparsity: float, *, seed: int = 0) -> Tensor:
    """Inputs of a linear layer, each of which is zero with probability `sparsity`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, generator=generator)
    return x * (torch.rand(batch, inputs, generator=generator) >= sparsity)


def exact(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer's output in double precision."""
    bias = None if layer.bias is None else layer.bias.double()
    y = functional.linear(x.double(), layer.weight.double(), bias)
    return y.relu() if relu else y
