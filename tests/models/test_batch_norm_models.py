"""ResNets, MobileNets, EfficientNet and GoogLeNet: published sizes and costs, and torchvision's names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroskip import graph
from zeroskip.models import (
    efficientnet_b0,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3_large,
    resnet20,
    resnet50,
)  # fmt: skip
from zeroskip.models.googlenet import Inception
from zeroskip.models.mobile_blocks import BlockShape, MBConv, SqueezeExcitation
from zeroskip.models.mobilenet import InvertedResidual
from zeroskip.models.resnet import BasicBlock, Bottleneck

Build = Callable[..., nn.Module]


def meta(build: Build, **keywords: int) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(**keywords).eval()


def traced(build: Build, side: int) -> list[graph.Layer]:
    return graph.layers(meta(build), torch.zeros(1, 3, side, side, device="meta"))


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (resnet20, 272_474),
        (resnet50, 25_557_032),
        (mobilenet_v1, 4_231_976),
        (mobilenet_v2, 3_504_872),
        (mobilenet_v3_large, 5_483_032),
        (efficientnet_b0, 5_288_548),
        (googlenet, 6_624_904),
    ],
)
def test_parameters_are_as_many_as_published(build: Build, parameters: int) -> None:
    assert sum(one.numel() for one in meta(build).parameters()) == parameters


def test_resnet_20_without_the_projections_of_option_b_has_the_269_722_parameters_of_the_papers_own() -> None:
    named = meta(resnet20).named_parameters()
    assert sum(one.numel() for name, one in named if "downsample" not in name) == 269_722


@pytest.mark.parametrize(
    ("build", "side", "millions"),
    [
        (resnet20, 32, 41),
        (resnet50, 224, 4089),
        (mobilenet_v1, 224, 569),
        (mobilenet_v2, 224, 301),
        (mobilenet_v3_large, 224, 217),
        (efficientnet_b0, 224, 386),
        (googlenet, 224, 1498),
    ],
)
def test_multiplications_of_one_image_are_as_many_as_published(
    build: Build, side: int, millions: int
) -> None:
    """569 million are those of Howard et al. 2017, table 4; the others stand in torchvision's table."""
    assert round(sum(layer.macs for layer in traced(build, side)) / 1e6) == millions


@pytest.mark.parametrize(
    ("build", "tensors", "digest"),
    [
        (resnet50, 320, "a87e91cd6bd1f939e0b723852e567a7205d33b0ac984ac02dd1a5f225d37c036"),
        (mobilenet_v2, 314, "e3eb10f890f74c6ee65e79c53b1a3c9ee5dd5c8d8eb4ec3185d92cbea9d47b89"),
        (mobilenet_v3_large, 312, "555a3f5e3bcc126ea392ac52ab422c6a68f733ea2a9046dbf0f1b191dd1a09af"),
        (efficientnet_b0, 360, "98a6d92c040c4bca9b0daea5616d2df84c1cbc4d570afdfbdd5e6ede87f9a700"),
        (googlenet, 344, "545eb1baab91f5d8eaeda1e7754af9efc250be79163c448f76a67a5cceab25f9"),
    ],
)
def test_names_and_shapes_are_those_of_torchvision_0_28(build: Build, tensors: int, digest: str) -> None:
    """The digest is that of torchvision's own sorted list, one "name (shape)" on each line."""
    names = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in meta(build).state_dict().items())
    assert len(names) == tensors
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == digest


@pytest.mark.parametrize(
    "build",
    [resnet20, resnet50, mobilenet_v1, mobilenet_v2, mobilenet_v3_large, efficientnet_b0, googlenet],
)
def test_two_images_give_two_rows_with_a_score_for_each_of_7_classes(build: Build) -> None:
    assert meta(build, classes=7)(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2, 7)


def test_maps_shrink_as_in_the_tables_of_the_papers() -> None:
    def sides(build: Build, side: int) -> list[int]:
        """The sides of the maps in the order in which they first appear."""
        maps = [layer.output_shape[-1] for layer in traced(build, side) if layer.op == "conv2d"]
        return list(dict.fromkeys(maps))

    assert sides(resnet20, 32) == [32, 16, 8]
    assert sides(resnet50, 224) == sides(googlenet, 224) == [112, 56, 28, 14, 7]
    assert sides(mobilenet_v1, 224) == sides(mobilenet_v2, 224) == [112, 56, 28, 14, 7]
    # Squeeze and excite works on one pixel.
    assert sides(efficientnet_b0, 224) == [112, 1, 56, 28, 14, 7]
    assert sides(mobilenet_v3_large, 224) == [112, 56, 28, 1, 14, 7]


def test_mobilenet_v1_has_the_blocks_of_table_1() -> None:
    layers = [layer for layer in traced(mobilenet_v1, 224) if layer.groups > 1]
    found = [(layer.groups, layer.stride[0], layer.output_shape[1]) for layer in layers]
    assert found == [
        (32, 1, 112), (64, 2, 56), (128, 1, 56), (128, 2, 28), (256, 1, 28), (256, 2, 14),
        *[(512, 1, 14)] * 5, (512, 2, 7), (1024, 1, 7),
    ]  # fmt: skip


def test_a_bottleneck_is_its_three_convolutions_plus_the_shortcut() -> None:
    torch.manual_seed(0)
    block, x = Bottleneck(6, 2, 2).eval(), torch.randn(2, 6, 8, 8)
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight)))
    y = F.relu(block.bn2(F.conv2d(y, block.conv2.weight, stride=2, padding=1)))
    y = block.bn3(F.conv2d(y, block.conv3.weight))
    short = block.get_submodule("downsample.1")(
        F.conv2d(x, block.get_parameter("downsample.0.weight"), stride=2)
    )
    torch.testing.assert_close(block(x), F.relu(y + short))


def test_squeeze_and_excite_multiplies_each_channel_by_a_gate_of_all_means() -> None:
    torch.manual_seed(0)
    module, x = SqueezeExcitation(6, 2, nn.SiLU(), nn.Sigmoid()), torch.randn(2, 6, 5, 4)
    inner = x.mean((2, 3)) @ module.fc1.weight.flatten(1).T + module.fc1.bias
    gate = (inner * inner.sigmoid()) @ module.fc2.weight.flatten(1).T + module.fc2.bias
    torch.testing.assert_close(module(x), x * gate.sigmoid()[:, :, None, None])


def test_an_mbconv_expands_convolves_each_channel_squeezes_and_narrows() -> None:
    torch.manual_seed(0)
    squeeze = SqueezeExcitation(8, 2, nn.ReLU(), nn.Hardsigmoid())
    block, x = MBConv(4, BlockShape(8, 5, 1, 4), nn.Hardswish, squeeze).eval(), torch.randn(2, 4, 6, 6)
    expand, depthwise, narrow = (block.get_parameter(f"block.{place}.0.weight") for place in (0, 1, 3))
    scale = (1 + 1e-5) ** -0.5  # of a batch norm that has seen nothing
    y = F.hardswish(scale * F.conv2d(x, expand))
    y = squeeze(F.hardswish(scale * F.conv2d(y, depthwise, padding=2, groups=8)))
    torch.testing.assert_close(block(x), x + scale * F.conv2d(y, narrow))


def test_mobilenet_v3_has_the_small_number_of_batch_norm_that_its_checkpoints_were_trained_with() -> None:
    eps = {norm.eps for norm in meta(mobilenet_v3_large).modules() if isinstance(norm, nn.BatchNorm2d)}
    assert eps == {0.001}


def narrow(channels: int, stride: int, out: int) -> MBConv:
    return MBConv(channels, BlockShape(2 * channels, 3, stride, out), nn.SiLU, None)


def test_a_shortcut_is_the_input_itself_where_sizes_agree() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 4, 4)
    for block in (BasicBlock(8, 8, 1), Bottleneck(8, 2, 1), InvertedResidual(8, 8, 1, 6), narrow(8, 1, 8)):
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.weight)
        assert torch.equal(block.eval()(x), x)
    for block in (
        InvertedResidual(8, 8, 2, 6),
        InvertedResidual(8, 9, 1, 6),
        narrow(8, 2, 8),
        narrow(8, 1, 9),
    ):
        assert not block.has_shortcut


def test_an_inception_module_has_its_four_ways_in_order() -> None:
    torch.manual_seed(0)
    module, x = Inception(6, 2, (3, 4), (1, 5), 7).eval(), torch.randn(2, 6, 9, 9)
    ways = module.branch1, module.branch2, module.branch3, module.branch4
    parts = module(x).split((2, 4, 5, 7), 1)
    for part, way in zip(parts, ways, strict=True):
        assert torch.equal(part, way(x))


def test_convolutions_start_as_he_et_al_have_it_and_two_networks_of_one_seed_are_equal() -> None:
    torch.manual_seed(0)
    first = resnet20()
    torch.manual_seed(0)
    second = resnet20()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.get_parameter("layer3.2.conv2.weight").detach()
    assert float(weight.var()) == pytest.approx(2 / (64 * 9), rel=0.02)
    head = mobilenet_v1(classes=100).get_parameter("classifier.1.weight").detach()
    assert float(head.std()) == pytest.approx(0.01, rel=0.02)
