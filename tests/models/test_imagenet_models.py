"""The ImageNet networks: exact sizes, names under which published checkpoints load, shapes of one forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroskip import graph
from zeroskip.models import VGG16, AlexNet, AlexNetCaffe, SqueezeNet10
from zeroskip.models.squeezenet import Fire

SIDES = {AlexNetCaffe: 227, AlexNet: 224, VGG16: 224, SqueezeNet10: 227}


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build()


def counts(model: nn.Module) -> dict[str, int]:
    """Layer name -> number of weights."""
    named = model.named_parameters()
    return {name.removesuffix(".weight"): one.numel() for name, one in named if name.endswith("weight")}


def test_alexnet_caffe_has_the_60_954_656_weights_of_table_4() -> None:
    assert counts(meta(AlexNetCaffe)) == {
        "conv1": 34_848,
        "conv2": 307_200,
        "conv3": 884_736,
        "conv4": 663_552,
        "conv5": 442_368,
        "fc6": 37_748_736,
        "fc7": 16_777_216,
        "fc8": 4_096_000,
    }
    assert sum(counts(meta(AlexNetCaffe)).values()) == 60_954_656


def test_vgg_16_has_the_138_344_128_weights_of_table_5() -> None:
    found = list(counts(meta(VGG16)).values())
    assert found == [
        1_728, 36_864, 73_728, 147_456, 294_912, 589_824, 589_824, 1_179_648, 2_359_296, 2_359_296,
        2_359_296, 2_359_296, 2_359_296, 102_760_448, 16_777_216, 4_096_000,
    ]  # fmt: skip
    assert sum(found) == 138_344_128


def test_squeezenet_has_1_244_448_weights_in_26_layers() -> None:
    found = counts(meta(SqueezeNet10))
    assert (len(found), sum(found.values())) == (26, 1_244_448)


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(AlexNetCaffe, 60_965_224), (AlexNet, 61_100_840), (VGG16, 138_357_544), (SqueezeNet10, 1_248_424)],
)
def test_parameters_with_biases_are_as_many_as_published(build: type[nn.Module], parameters: int) -> None:
    assert sum(one.numel() for one in meta(build).parameters()) == parameters


@pytest.mark.parametrize(
    ("build", "features", "classifier"),
    [
        (AlexNet, (0, 3, 6, 8, 10), (1, 4, 6)),
        (VGG16, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (0, 3, 6)),
    ],
)
def test_names_are_those_of_torchvision_s_checkpoints(
    build: type[nn.Module], features: tuple[int, ...], classifier: tuple[int, ...]
) -> None:
    layers = [f"features.{i}" for i in features] + [f"classifier.{i}" for i in classifier]
    wanted = [f"{name}.{what}" for name, what in itertools.product(layers, ("weight", "bias"))]
    assert list(meta(build).state_dict()) == wanted


def test_torchvision_s_alexnet_has_the_shapes_of_its_checkpoint() -> None:
    weights = {n: tuple(t.shape) for n, t in meta(AlexNet).state_dict().items() if n.endswith("weight")}
    assert weights == {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3),
        "features.8.weight": (256, 384, 3, 3),
        "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    }


@pytest.mark.parametrize("build", SIDES, ids=lambda one: one.__name__)
def test_two_images_give_two_rows_of_1000_scores(build: type[nn.Module]) -> None:
    example = torch.zeros(2, 3, SIDES[build], SIDES[build], device="meta")
    assert meta(build).eval()(example).shape == (2, 1000)


def test_macs_of_alexnet_caffe_are_half_the_flops_of_table_4() -> None:
    found = graph.layers(meta(AlexNetCaffe), torch.zeros(1, 3, 227, 227, device="meta"))
    millions = [round(2 * layer.macs / 1e6) for layer in found]
    assert millions == [211, 448, 299, 224, 150, 75, 34, 8]


def test_macs_of_vgg_16_are_half_the_flops_of_table_5() -> None:
    found = graph.layers(meta(VGG16), torch.zeros(1, 3, 224, 224, device="meta"))
    assert sum(2 * layer.macs for layer in found) / 1e9 == pytest.approx(30.9, abs=0.05)


def test_squeezenet_s_maps_are_those_of_the_caffe_file() -> None:
    """No padding in conv1 gives 111, pools that round up 55, 27 and 13, padding of conv_final 15."""
    found = graph.layers(meta(SqueezeNet10), torch.zeros(1, 3, 227, 227, device="meta"))
    sides = {layer.name: layer.output_shape[-1] for layer in found}
    named = ("conv1", "fire2.conv1x1_1", "fire5.conv3x3_2", "fire9.conv3x3_2", "conv_final")
    assert [sides[name] for name in named] == [111, 55, 27, 13, 15]


def test_squeezenet_loads_names_with_slashes_and_its_own_alike() -> None:
    torch.manual_seed(0)
    source, target = SqueezeNet10(classes=5), SqueezeNet10(classes=5)
    caffe = {
        (name.replace(".", "/", 1) if name.startswith("fire") else name): tensor
        for name, tensor in source.state_dict().items()
    }
    assert "fire2/conv1x1_1.weight" in caffe
    target.load_state_dict(caffe)
    assert all(torch.equal(target.state_dict()[name], one) for name, one in source.state_dict().items())
    target.load_state_dict(source.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        target.load_state_dict({})


def test_a_fire_module_puts_its_1x1_half_before_its_3x3_half() -> None:
    torch.manual_seed(0)
    fire, x = Fire(6, 2, 4), torch.randn(2, 6, 5, 5)
    squeezed = fire.conv1x1_1(x).relu()
    ours = fire(x)
    torch.testing.assert_close(ours[:, :4], fire.conv1x1_2(squeezed).relu())
    torch.testing.assert_close(ours[:, 4:], fire.conv3x3_2(squeezed).relu())


def test_alexnet_caffe_agrees_with_its_layers_written_out() -> None:
    """Grouped convolutions as two halves, and response normalisation from its formula: alpha over 5 channels."""
    torch.manual_seed(0)
    model, x = AlexNetCaffe(classes=7).eval(), torch.randn(1, 3, 227, 227)

    def normal(y: torch.Tensor) -> torch.Tensor:
        squares = F.pad(y**2, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
        return y / (1 + 1e-4 / 5 * squares) ** 0.75

    def halves(y: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
        assert layer.bias is not None
        triples = zip(y.chunk(2, 1), layer.weight.chunk(2), layer.bias.chunk(2), strict=True)
        return torch.cat([F.conv2d(a, w, b, padding=layer.padding) for a, w, b in triples], 1).relu()

    y = F.max_pool2d(normal(F.conv2d(x, model.conv1.weight, model.conv1.bias, stride=4).relu()), 3, 2)
    y = F.max_pool2d(normal(halves(y, model.conv2)), 3, 2)
    y = halves(model.conv3(y).relu(), model.conv4)
    y = F.max_pool2d(halves(y, model.conv5), 3, 2).flatten(1)
    torch.testing.assert_close(model(x), model.fc8(model.fc7(model.fc6(y).relu()).relu()))


def test_dropout_is_at_work_in_training_only() -> None:
    torch.manual_seed(0)
    model, x = SqueezeNet10(classes=5), torch.randn(1, 3, 63, 63)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_initial_weights_are_spread_as_in_the_authors_files() -> None:
    torch.manual_seed(0)
    alex, squeeze = AlexNetCaffe(classes=5).requires_grad_(False), SqueezeNet10().requires_grad_(False)
    assert float(alex.fc7.weight.std()) == pytest.approx(0.005, rel=0.01)
    assert float(alex.conv3.weight.std()) == pytest.approx(0.01, rel=0.01)
    assert alex.get_parameter("conv3.bias").eq(0).all()
    assert alex.get_parameter("conv2.bias").eq(torch.tensor(0.1)).all()
    inputs = squeeze.fire9.conv3x3_2.weight[0].numel()
    assert float(squeeze.fire9.conv3x3_2.weight.var()) == pytest.approx(1 / inputs, rel=0.05)
    assert float(squeeze.conv_final.weight.std()) == pytest.approx(0.01, rel=0.01)
