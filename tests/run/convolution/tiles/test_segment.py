"""A part of a network, called: batches, threads, memory that is used again, and the networks of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from captured import METHODS, answers, lowered, values_of
from interpreted import baking
from run.drawn import HERE, sparse_
from torch import Tensor, nn

from zeroskip import models
from zeroskip.errors import EngineError
from zeroskip.graph import capture
from zeroskip.run.convolution.tiles.segment import Segment

SHAPE = (3, 16, 16)


def small() -> nn.Module:
    """Convolutions of three sizes, pooling, and a mean at the end."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 33, 3, stride=2, padding=1),
    ]
    return sparse_(nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(33, 7, 1), nn.AdaptiveAvgPool2d(1)), 0.5)


def batch(count: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def segment(model: nn.Module, *, images: int = 1, threads: int = 1) -> Segment:
    return Segment(lowered(capture(model, batch(2)), images=images), threads)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_batches_of_any_size_whatever_number_is_worked_on_at_once(
    count: int, images: int, threads: int
) -> None:
    model, x = small(), batch(count)
    (ours,) = segment(model, images=images, threads=threads)(x)
    assert ours.shape == (count, 7, 1, 1)
    close(ours, model(x))


def test_8_threads_may_call_one_segment_at_once() -> None:
    model = small()
    part = segment(model, images=2)
    given = [batch(5, seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: part(x)[0], given))
    for x, ours in zip(given, found, strict=True):
        close(ours, model(x))
    assert len(part._idle) <= 8


def test_a_call_leaves_nothing_behind_for_the_next() -> None:
    model, part = small(), segment(small())
    part(torch.full((1, *SHAPE), math.nan))
    close(part(batch(1))[0], model(batch(1)))
    assert torch.equal(part(batch(1))[0], segment(small())(batch(1))[0])


def test_results_of_two_calls_are_two_tensors() -> None:
    part = segment(small())
    (first,) = part(batch(1))
    kept = first.clone()
    part(batch(1, seed=1))
    assert torch.equal(first, kept)


def test_an_input_that_does_not_lie_in_order_is_read_as_it_is_meant() -> None:
    model, x = small(), batch(3).transpose(2, 3)
    assert not x.is_contiguous()
    close(segment(model)(x)[0], model(x))


@pytest.mark.parametrize(
    "x", [batch(2).double(), batch(2)[:, :2], batch(2)[..., :15], torch.zeros(2, 3)], ids=str
)
def test_another_shape_or_type_is_an_error_and_not_foreign_memory(x: Tensor) -> None:
    with pytest.raises(EngineError, match=r"take \(3, 16, 16\)"):
        segment(small())(x)


def test_a_convolution_is_computed_by_a_method_that_exists_or_not_at_all() -> None:
    with pytest.raises(EngineError, match='by the method "winograd"'):
        lowered(capture(small(), batch(2)), method="winograd")


def images_of(*, size: int = 64, channels: int = 3, count: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def still(model: nn.Module) -> nn.Module:
    """Batch norms that are not those of the first day, and 80 % zeros."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.2, 0.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return sparse_(model, 0.8)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "LeNet5": (models.LeNet5, images_of(size=28, channels=1, count=2)),
    "resnet20": (models.resnet20, images_of(size=32, count=2)),
    "mobilenet_v1": (models.mobilenet_v1, images_of()),
    "SqueezeNet10": (models.SqueezeNet10, images_of()),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "googlenet": (models.googlenet, images_of()),
    "mobilenet_v2": (models.mobilenet_v2, images_of()),
    "resnet50": (models.resnet50, images_of()),
    "AlexNet": (models.AlexNet, images_of(size=224)),
    "AlexNetCaffe": (models.AlexNetCaffe, images_of(size=227)),
    "VGG16": (models.VGG16, images_of(size=224)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*NETWORKS, *[pytest.param(name, marks=pytest.mark.slow) for name in LARGE]])
def test_the_convolutions_of_each_network_of_the_papers(name: str, method: str) -> None:
    make, x = (NETWORKS | LARGE)[name]
    torch.manual_seed(0)
    model = still(make())
    compared = answers(model, x, method=method)
    assert compared
    for ours, theirs in compared:
        assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


@pytest.mark.parametrize("images", [1, 2])
def test_a_residual_network_with_several_images_and_threads(images: int) -> None:
    torch.manual_seed(0)
    x = images_of(size=32, count=5)
    for ours, theirs in answers(still(models.resnet20()), x, images=images, threads=2):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


POISON = pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
EACH_METHOD = pytest.mark.parametrize("method", ["streamed", "baked"])


@POISON
@EACH_METHOD
def test_without_zero_weights_nan_and_infinity_end_where_pytorch_has_them(method: str, poison: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 30, 3), nn.ReLU6()
    ).eval()
    x = batch(1)
    x[0, 1, 7, 5] = poison
    with baking() if method == "baked" else nullcontext(HERE) as machine:
        ((ours, theirs),) = answers(model, x, method=method, machine=machine)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert math.isinf(poison) or theirs.isnan().any()


@POISON
@EACH_METHOD
def test_a_zero_weight_hides_nan_and_infinity_which_pytorch_turns_into_nan(
    method: str, poison: float
) -> None:
    layer = nn.Conv2d(3, 2, 1, bias=False).eval()
    layer.weight.data = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])[:, :, None, None]
    x = torch.ones(1, 3, 4, 4)
    x[0, 1, 2, 3] = poison
    with baking() if method == "baked" else nullcontext(HERE) as machine:
        ((ours, theirs),) = answers(layer, x, method=method, machine=machine)
    assert theirs[0, 0, 2, 3].isnan()
    assert ours[0, 0, 2, 3] == 2
    torch.testing.assert_close(ours[0, 1], theirs[0, 1], equal_nan=True)


@pytest.mark.parametrize(
    "model", [nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.ReLU6(), nn.AvgPool2d(2), nn.BatchNorm2d(3)], ids=str
)
def test_pools_scales_and_activations_hand_nan_on(model: nn.Module) -> None:
    x = batch(1)
    x[0, 0, 3, 4], x[0, 1, 15, 15], x[0, 2, 0, 0] = math.nan, math.inf, -math.inf
    ((ours, theirs),) = answers(nn.Sequential(model).eval(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert ours.isnan().any()


def test_a_network_that_returns_values_from_its_middle_gets_all_of_them() -> None:
    model = small()
    x, graph = batch(2), capture(model, batch(2))
    names = [node.name for node in graph.nodes if node.shape is not None and len(node.shape) == 3]
    graph = type(graph)(graph.inputs, graph.nodes, tuple(names), list)
    part, values = lowered(graph), values_of(graph, x)
    assert set(part.outputs) == set(names)
    for ours, name in zip(Segment(part, 1)(x), part.outputs, strict=True):
        close(ours, values[name])
