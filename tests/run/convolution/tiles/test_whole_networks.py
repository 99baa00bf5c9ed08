"""What the networks of today become on tiles: which operations, in how many pieces, and the same answers.

Answers are compared with PyTorch in float64, for batches, several images at a time and several threads. A network that
goes through a file answers the same to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from run.drawn import HERE
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.graph import Graph, capture
from zeroskip.graph.graph_json import from_json, to_json
from zeroskip.graph.nodes import kind_of
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import DEPTHWISE, STREAMED
from zeroskip.run.convolution.tiles.shape_checks import check
from zeroskip.run.convolution.tiles.tiling import count_segments, on_tiles
from zeroskip.run.runner import runner


class Net(nn.Module):
    """What `forward` does with an input and these modules."""

    def __init__(self, forward: Callable[..., Tensor], *modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.do = forward
        self.parts = nn.ModuleList([each for each in modules if isinstance(each, nn.Module)])
        self.numbers = nn.ParameterList([each for each in modules if isinstance(each, nn.Parameter)])

    def forward(self, x: Tensor) -> Tensor:
        return self.do(x, *self.parts, *self.numbers)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def squeeze_and_excite(
    x: Tensor, first: nn.Module, squeeze: nn.Module, excite: nn.Module, last: nn.Module
) -> Tensor:
    y = functional.silu(first(x))
    share = excite(functional.silu(squeeze(functional.adaptive_avg_pool2d(y, 1))))
    return last(y * torch.sigmoid(share)) + x


def convnext(
    x: Tensor, depth: nn.Module, norm: nn.Module, wide: nn.Module, narrow: nn.Module, scale: Tensor
) -> Tensor:
    y = norm(depth(x).permute(0, 2, 3, 1))
    return x + (scale * narrow(functional.gelu(wide(y)))).permute(0, 3, 1, 2)


def shuffled(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    left, right = first(x).chunk(2, 1)
    y = torch.cat([left, second(right)], 1)
    n, c, h, w = y.shape
    return last(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def u_net(mode: str) -> Callable[..., Tensor]:
    def forward(x: Tensor, down: nn.Module, inner: nn.Module, up: nn.Module) -> Tensor:
        y = down(x).relu()
        z = inner(functional.max_pool2d(y, 2)).relu()
        return up(torch.cat([functional.interpolate(z, scale_factor=2, mode=mode), y], 1))

    return forward


def mixer(x: Tensor, patches: nn.Module, norm: nn.Module, wide: nn.Module, narrow: nn.Module) -> Tensor:
    y = patches(x).flatten(2).transpose(1, 2)
    y = y + narrow(functional.gelu(wide(norm(y))))
    return y.mean(1)


def ghost(x: Tensor, primary: nn.Module, cheap: nn.Module) -> Tensor:
    y = primary(x).relu()
    out = torch.cat([y, cheap(y).relu()], 1)[:, :6]
    out += x
    return out


def tcn(x: Tensor, first: nn.Module, second: nn.Module, skip: nn.Module) -> Tensor:
    y = first(functional.pad(x, (4, 0))).relu()
    return (second(functional.pad(y, (8, 0))).relu() + skip(x)).relu()


def windows(x: Tensor, first: nn.Module, norm: nn.Module, wide: nn.Module) -> Tensor:
    y = torch.roll(first(x).permute(0, 2, 3, 1), (-1, -1), (1, 2))
    return torch.roll(wide(norm(y)), (1, 1), (1, 2)).permute(0, 3, 1, 2)


def one_window(x: Tensor, first: nn.Module, inner: nn.Module, last: nn.Module) -> Tensor:
    y = first(x)
    n, _, c = y.shape
    z = inner(y.cumsum(1)).view(n, 1, 1, 4, 5, c).permute(0, 1, 3, 2, 4, 5).reshape(n, 4, 5, c)
    return last(y.view(n, 4, 5, c) + z[:, :4, :5])


IMAGE, ROW, TOKENS = (3, 12, 16), (4, 40), (20, 12)
SHORT = {"a": "average", "c": "conv", "d": "depthwise", "g": "group_norm", "l": "layer_norm", "m": "mean",
         "M": "max", "p": "prelu", "r": "rearrange", "s": "scale", "x": "combine", "+": "add",
         "&": "concat"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network, the shape of one example, the letters of its operations (SHORT) and the pieces that they form."""

    model: nn.Module
    shape: tuple[int, ...]
    operations: str
    pieces: int = 1


@cache
def networks() -> dict[str, Case]:
    """The networks by name, with weights that are drawn once."""
    torch.manual_seed(0)
    return {
        "squeeze and excite": Case(
            Net(squeeze_and_excite, conv(3, 8), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 3, 1)),
            IMAGE, "cmccxc"),
        "ConvNeXt, with layer scale": Case(
            Net(convnext, conv(3, 3, 7, groups=3), nn.LayerNorm(3), nn.Linear(3, 12), nn.Linear(12, 3),
                nn.Parameter(torch.rand(3))), IMAGE, "clcc"),
        "a channel shuffle": Case(
            Net(shuffled, conv(3, 8), conv(4, 4, groups=4), nn.Conv2d(8, 5, 1)), IMAGE, "crrd&rc"),
        "a U-Net, nearest": Case(Net(u_net("nearest"), conv(3, 8), conv(8, 6), conv(14, 3)), IMAGE, "cMcr&c"),
        "a U-Net, bilinear": Case(Net(u_net("bilinear"), conv(3, 8), conv(8, 6), conv(14, 3)), IMAGE, "cMcr&c"),
        "upsampling by 1.5": Case(
            Net(lambda x, a, b: b(functional.interpolate(a(x), scale_factor=1.5)), conv(3, 4), conv(4, 2)),
            IMAGE, "cc", 2),
        "upsampling with aligned corners": Case(
            Net(lambda x, a, b: b(functional.interpolate(a(x), scale_factor=2, mode="bilinear", align_corners=True)),
                conv(3, 4), conv(4, 2)), IMAGE, "cc", 2),
        "upsampling whose factor is 2.2, and whose size is twice as much": Case(
            Net(lambda x, a, b: b(functional.interpolate(a(x)[..., :3, :4], scale_factor=2.2)), conv(3, 4), conv(4, 2)),
            IMAGE, "crrc", 2),
        "a network of sequences, dilated and causal": Case(
            Net(tcn, nn.Conv1d(4, 8, 3, dilation=2), nn.Conv1d(8, 6, 3, dilation=4), nn.Conv1d(4, 6, 1)),
            ROW, "crcc"),
        "Wav2Letter": Case(
            nn.Sequential(nn.Conv1d(4, 8, 7, stride=2, padding=3), nn.ReLU(), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 5),
                          nn.GELU(), nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2)), ROW, "cscMa"),
        "a spectrum, with a long step": Case(
            nn.Sequential(nn.Conv1d(4, 10, 16, stride=8), nn.ReLU(), nn.Conv1d(10, 3, 3, padding=1)), (4, 80), "cc"),
        "other steps down than across": Case(
            nn.Sequential(conv(3, 8, 3, stride=(2, 1)), nn.MaxPool2d((1, 3), (1, 2)), conv(8, 4, 1, stride=(1, 2))),
            IMAGE, "cMc"),
        "a generator of images": Case(
            nn.Sequential(nn.ConvTranspose2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), nn.Tanh(),
                nn.ConvTranspose2d(4, 4, 2, 2, groups=2)),
            IMAGE, "crcrscr"),
        "a generator of sound": Case(
            nn.Sequential(nn.ConvTranspose1d(4, 6, 8, 4, 2), nn.LeakyReLU(0.1),
                nn.ConvTranspose1d(6, 3, 5, 3, 1, output_padding=1)),
            ROW, "crscr"),
        "a dilated transposed convolution": Case(
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 3, dilation=2), nn.Conv2d(4, 3, 1)),
            IMAGE, "cc", 2),
        "pixels into channels and back": Case(
            nn.Sequential(nn.PixelUnshuffle(2), conv(12, 16), nn.PixelShuffle(4), nn.Conv2d(1, 3, 1)), IMAGE, "rcrc"),
        "an MLP on patches": Case(
            Net(mixer, nn.Conv2d(3, 12, 2, 2), nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)), IMAGE, "clccm"),
        "linear layers on tokens": Case(
            nn.Sequential(nn.Linear(12, 24), nn.GELU(approximate="tanh"), nn.LayerNorm(24), nn.Linear(24, 5)),
            TOKENS, "clc"),
        "windows that are rolled": Case(
            Net(windows, conv(3, 8), nn.LayerNorm(8), nn.Linear(8, 4)), IMAGE, "crlcr"),
        "a window as large as the map": Case(
            Net(one_window, nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 4)), TOKENS, "ccc", 2),
        "a sum into a slice": Case(
            Net(ghost, conv(6, 4), conv(4, 4, groups=4)), (6, 9, 7), "cd&r+"),
        "PReLU with one slope and with several": Case(
            nn.Sequential(conv(3, 5), nn.PReLU(5), conv(5, 2), nn.PReLU()), IMAGE, "cpcp"),
        "norms over groups and images": Case(
            nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8), nn.SiLU(), conv(8, 4), nn.InstanceNorm2d(4, affine=True),
                          nn.ReLU(), nn.GroupNorm(1, 4, affine=False)), IMAGE, "cgcgg"),
        "paddings of all kinds": Case(
            Net(lambda x, a, b: b(functional.pad(a(x), (1, 2, 1, 0), mode="reflect"))
                + b(functional.pad(a(x), (2, 1, 0, 1), mode="replicate"))
                + b(functional.pad(a(x), (3, 0, 1, 0), value=2.0)),
                conv(3, 4), nn.Conv2d(4, 2, 3)), IMAGE, "crc" * 3),
        "a padding around": Case(
            Net(lambda x, a: a(functional.pad(x, (1, 1, 1, 1), mode="circular")), nn.Conv2d(3, 2, 3)), IMAGE, "c"),
        "slices of channels, rows and columns": Case(
            Net(lambda x, a, b: b(a(x)[:, 1:9:2, 1:-1, ::3]), conv(3, 12), conv(4, 2)), IMAGE, "crrrc"),
        "largest, smallest, difference": Case(
            Net(lambda x, a, b: torch.maximum(a(x), b(x)) - torch.minimum(a(x), b(x)) * a(x), conv(3, 4), conv(3, 4)),
            IMAGE, "cc" * 2 + "xxcxx"),
        "a magnitude": Case(
            Net(lambda x, a, b: b((a(x)[:, :4] ** 2 + a(x)[:, 4:] ** 2).sqrt()), conv(3, 8), conv(4, 2)),
            IMAGE, "crscrs+c"),
        "powers": Case(
            Net(lambda x, a, b: b(a(x).abs().add(1).rsqrt() * a(x).exp().reciprocal() + a(x).pow(3)), conv(3, 4),
                conv(4, 2)), IMAGE, "cscsxc+c"),
        "a map of one channel times all channels": Case(
            Net(lambda x, a, b: (lambda y: a(x) * y + y)(b(x)), conv(3, 4), conv(3, 1)), IMAGE, "cc"),
        "a row times a column": Case(
            Net(lambda x, a: a(x).mean(2, True) * a(x).mean(3, True), conv(3, 4)), IMAGE, "cc"),
        "concatenated maps of one channel": Case(
            Net(lambda x, a, b: b(torch.cat([a(x), a(x.relu()), x], 1)), conv(3, 1), conv(5, 2)), IMAGE, "csc&c"),
        "maps of one pixel": Case(
            Net(lambda x, a, b: b(a(x).relu().mean((2, 3), keepdim=True)) * a(x),
                nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), (3, 1, 1), "cccx"),
        "maps of one row": Case(
            nn.Sequential(nn.Conv2d(3, 4, (1, 3)), nn.SiLU(), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 2, 3)),
            (3, 1, 20), "cgcr"),
        "an unknown function": Case(
            Net(lambda x, a, b, c: c(b(a(x)).sin()) + a(x), conv(3, 4), conv(4, 4), conv(4, 4)), IMAGE, "cccc", 2),
        "an unknown function on one branch": Case(
            Net(lambda x, a, b, c: (lambda y: c(b(y).relu()) * y.cumsum(1))(a(x)), conv(3, 4), conv(4, 4), conv(4, 4)),
            IMAGE, "cccx", 2),
    }  # fmt: skip


NAMES = [*networks()]


def model_of(name: str) -> nn.Module:
    """The network with half of its weights zero, and norms that are not those of the first day."""
    generator, model = torch.Generator().manual_seed(0), deepcopy(networks()[name].model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= torch.rand(parameter.shape, generator=generator) < 0.5
            else:
                parameter += 0.5 * torch.rand(parameter.shape, generator=generator)
    return model.eval()


def examples(name: str, count: int) -> Tensor:
    return torch.randn(count, *networks()[name].shape, generator=torch.Generator().manual_seed(1))


@cache
def graph_of(name: str) -> Graph:
    return capture(model_of(name), examples(name, 2))


def answer(graph: Graph, x: Tensor, *, images: int = 1, threads: int = 1) -> Tensor:
    """The network with all that can work on tiles there."""
    operations = operations_of(graph)
    kernels = {
        one.name: DEPTHWISE if one.kind == "depthwise" else STREAMED
        for one in operations
        if one.layer is not None
    }
    tiled = on_tiles(graph, operations, kernels, HERE, images=images, threads=threads)
    assert [node.op for node in tiled.nodes].count("tiles") == count_segments(graph, operations)
    with torch.no_grad():
        (y,) = runner(tiled, {})(x)
    assert isinstance(y, Tensor)
    return y


def assert_close(ours: Tensor, exact: Tensor) -> None:
    assert ours.shape == exact.shape
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-6 * (1 + float(exact.abs().max())))


@pytest.mark.parametrize("name", NAMES)
def test_which_operations_a_network_becomes_and_in_how_many_pieces(name: str) -> None:
    case, operations = networks()[name], operations_of(graph_of(name))
    assert Counter(one.kind for one in operations) == Counter(SHORT[letter] for letter in case.operations)
    assert count_segments(graph_of(name), operations) == case.pieces


@pytest.mark.parametrize("name", NAMES)
def test_no_operation_added_to_tiles_loses_a_value(name: str) -> None:
    graph, operations = graph_of(name), operations_of(graph_of(name))
    for kind in sorted({kind_of(node) for node in graph.nodes}):
        assert 1 <= count_segments(graph, operations, kind) <= networks()[name].pieces + 1


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_the_network_does_for_batches_of_any_size(name: str) -> None:
    x = examples(name, 5)
    exact = model_of(name).double()(x.double()).detach()
    assert_close(answer(graph_of(name), x), exact)
    assert_close(answer(graph_of(name), x, images=2, threads=2), exact)
    assert answer(graph_of(name), x[:0]).shape == exact[:0].shape


@pytest.mark.parametrize("name", NAMES)
def test_after_a_file_it_answers_the_same_to_the_last_bit(name: str) -> None:
    graph, x = graph_of(name), examples(name, 2)
    again = from_json(*to_json(graph))
    check(operations_of(again), again)
    assert torch.equal(answer(again, x), answer(graph, x))


def test_all_kinds_of_operations_are_in_these_networks() -> None:
    assert {*"".join(case.operations for case in networks().values())} == {*SHORT}
