"""Operations beside convolutions in eight bits equal the integer reference in every bit, on every kind of processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from run.drawn import MACHINES
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Machine
from zeroskip.graph import Graph, capture
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import STREAMED_INT8
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.tiling import on_tiles
from zeroskip.run.integer_network import integer_network, with_bytes
from zeroskip.run.quantisation import Quantisation
from zeroskip.run.runner import runner

Made = tuple[Graph, Quantisation, list[Operation]]


class Moves(nn.Module):
    """A gate, slices, chunks, padding, upsampling, rolling, norms, a channel shuffle; parts begin within quads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.small, self.big = nn.Conv2d(3, 10, 3, 2, 1), nn.Conv2d(10, 6, 1), nn.Conv2d(6, 10, 1)
        self.one, self.two, self.three = (
            nn.Conv2d(10, 7, 1),
            nn.Conv2d(10, 9, 3, 1, 1),
            nn.Conv2d(22, 12, 3, 1, 1),
        )
        self.norm, self.last = nn.BatchNorm2d(26), nn.Conv2d(26, 8, 3, 1, 1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.stem(x))
        x = x * F.relu6(self.big(self.small(x.mean((2, 3), keepdim=True)).relu()))
        y = torch.cat([self.one(x).relu(), self.two(x), x[:, 3:9]], 1)
        y = self.three(F.pad(F.max_pool2d(y, 2), (1, 0, 2, 1))).relu()
        a, b = F.interpolate(y, scale_factor=2.0)[:, :, : x.shape[2], : x.shape[3]].chunk(2, 1)
        z = self.norm(torch.cat([b * a, x, torch.roll(a, 1, 3), x[:, :4]], 1)).relu()
        return self.last(F.channel_shuffle(z, 2))


class Joined(nn.Module):
    """A window reads a concatenation, of which one part is rescaled into its place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(torch.cat([self.second(x), x], 1))


class Transposed(nn.Module):
    """Transposed convolutions: with a ReLU, with groups and steps that differ, and as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.third = nn.ConvTranspose2d(6, 9, 3, (2, 1), 1, (1, 0), groups=3)
        self.fourth, self.last = nn.Conv2d(12, 4, 3, 1, 1), nn.ConvTranspose2d(4, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu()).relu()
        y = self.third(y)[:, :, : x.shape[2], : x.shape[3]]
        return self.last(self.fourth(torch.cat([y, x], 1)))


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 18, 14, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    found = {}
    for model in (Moves().eval(), Joined().eval(), Transposed().eval()):
        quantisation = run.calibrate(model, [pictures(2)], method="min-max")
        graph = capture(model, pictures(2))
        operations = with_bytes(graph, operations_of(graph), quantisation)
        found[type(model).__name__] = graph, quantisation, operations
    return found


def test_everything_between_layers_in_eight_bits_stays_in_bytes(made) -> None:
    operations = [each for name in made for each in made[name][2]]
    assert all(each.in_bytes is not None for each in operations)
    assert {each.kind for each in operations} == {
        *("conv", "mean", "combine", "concat", "max", "rearrange", "scale"),
    }


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
@pytest.mark.parametrize(("name", "images"), [("Moves", 1), ("Moves", 4), ("Joined", 1), ("Transposed", 1)])
@torch.no_grad()
def test_they_equal_the_integer_reference_in_every_bit(
    made, name: str, images: int, machine: Machine
) -> None:
    graph, quantisation, operations = made[name]
    kernels = {each.name: STREAMED_INT8 for each in operations if each.layer is not None}
    tiled = runner(on_tiles(graph, operations, kernels, machine, images=images, threads=1), {})
    assert torch.equal(tiled(pictures(3))[0], integer_network(graph, quantisation)(pictures(3))[0])
