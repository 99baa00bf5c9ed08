"""What follows what: which unit arrives at which column, and which layers have to be left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.graph.channel_flow import Flow, follow
from zeroskip.models import LeNet5, LeNet5Sizes


class Net(nn.Module):
    """Layers by name, and a forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


def sources(flow: Flow) -> dict[str, list[int]]:
    return {stage.name: stage.sources.tolist() for stage in flow.stages}


def two(forward: Callable[[Any, Tensor], Any], **more: nn.Module) -> Flow:
    """The flow through two convolutions "a" (1 -> 4) and "b" (4 -> 4), a linear "c" (4 -> 2) and `more`."""
    layers = {"a": nn.Conv2d(1, 4, 3), "b": nn.Conv2d(4, 4, 3), "c": nn.Linear(4, 2)}
    return follow(Net(forward, **(layers | more)), torch.randn(2, 1, 8, 8))


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def test_units_are_numbered_from_1_in_the_order_of_running_and_arrive_at_every_place_of_a_map() -> None:
    flow = follow(
        LeNet5(LeNet5Sizes(side=14, kernel=3, channels=(2, 3, 5), classes=2)), torch.randn(1, 1, 14, 14)
    )
    assert flow.units == 2 + 3 + 5 + 2
    assert sources(flow) == {
        "conv1": [0], "conv2": [1, 2], "fc1": [3] * 4 + [4] * 4 + [5] * 4, "fc2": [6, 7, 8, 9, 10]
    }  # fmt: skip
    assert flow.fixed == {"fc2": "they are the outputs of the network"}


def test_what_arrives_is_the_real_value_and_nan_where_it_differs_from_place_to_place() -> None:
    a, b = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 3)
    a.weight.data[1] = 0
    norm = nn.BatchNorm2d(2).eval()
    flow = follow(nn.Sequential(a, norm, nn.Tanh(), b), torch.randn(2, 1, 8, 8))
    into_norm, into_b = flow.stages[1].arrived, flow.stages[2].arrived
    assert into_norm.isnan().tolist() == into_b.isnan().tolist() == [True, False]
    assert into_norm[1] == a.bias[1].double()
    assert torch.allclose(into_b[1], torch.tanh(a.bias[1] / (1 + norm.eps) ** 0.5).double(), rtol=1e-6)


def test_a_pool_that_pads_makes_a_constant_differ_at_the_border() -> None:
    a = nn.Conv2d(1, 1, 3)
    a.weight.data.zero_()
    for pool, same in (
        (nn.AvgPool2d(3, 1, 1), False),
        (nn.MaxPool2d(3, 1, 1), True),
        (nn.AvgPool2d(3), True),
    ):
        flow = follow(nn.Sequential(a, pool, nn.Conv2d(1, 1, 1)), torch.randn(1, 1, 8, 8))
        assert flow.stages[1].arrived.isfinite().tolist() == [same]


@pytest.mark.parametrize(
    "squash",
    [
        mean,
        lambda x: x.mean((-1, -2), keepdim=True).flatten(1),
        lambda x: x.flatten(2).amax(2),
        lambda x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
        lambda x: F.max_pool2d(x, 4).squeeze(-1).squeeze(-1),
        lambda x: F.relu_(F.dropout(x.contiguous(), 0.5, False)).mean((2, 3)),
        lambda x: F.avg_pool2d(x, 4).permute(0, 2, 3, 1).reshape(len(x), -1),
    ],
)
def test_7_ways_from_a_map_to_features_are_followed(squash: Callable[[Tensor], Tensor]) -> None:
    flow = two(lambda net, x: net.c(squash(net.b(net.a(x)))))
    assert sources(flow)["c"] == [5, 6, 7, 8]
    assert list(flow.fixed) == ["c"]


def test_one_map_may_feed_two_layers_and_be_joined_with_another() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.d(mean(torch.cat([net.b(x).relu(), net.e(x)], 1)))

    flow = two(forward, d=nn.Linear(7, 2), e=nn.Conv2d(4, 3, 3))
    assert sources(flow) == {"a": [0], "b": [1, 2, 3, 4], "e": [1, 2, 3, 4], "d": [5, 6, 7, 8, 9, 10, 11]}
    assert list(flow.fixed) == ["d"]


def test_the_hidden_features_of_a_transformers_feed_forward_are_followed_past_the_residual_sum() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.norm(x + net.out(F.gelu(net.into(x))))

    net = Net(forward, into=nn.Linear(4, 6), out=nn.Linear(6, 4), norm=nn.LayerNorm(4))
    flow = follow(net, torch.randn(2, 5, 4))
    assert sources(flow) == {"into": [0] * 4, "out": [1, 2, 3, 4, 5, 6]}
    assert flow.fixed == {"out": "aten.add.Tensor reads them"}


SHARED = nn.Linear(4, 4)
TWIN = nn.Linear(4, 4)
TWIN.weight = SHARED.weight


@pytest.mark.parametrize(
    ("forward", "more", "layer", "reason"),
    [
        (lambda net, x: net.c(mean(net.a(x) + net.a(x).relu())), {}, "a", "runs more than once"),
        (lambda net, x: net.c(net.d(net.d(mean(net.b(net.a(x)))))), {"d": SHARED}, "b", "d .it runs more than"),
        (lambda net, x: net.c(net.d(net.e(mean(net.a(x))))), {"d": SHARED, "e": TWIN}, "a", "shares its param"),
        (lambda net, x: net.c(mean(net.d(net.a(x)))), {"d": nn.Conv2d(4, 4, 3, groups=2)}, "a", "d .its 2 groups"),
        (lambda net, x: net.c(mean(net.d(net.a(x)))), {"d": nn.Conv2d(4, 4, 3, groups=2)}, "d", "2 groups have"),
        (lambda net, x: net.c(mean(net.d(net.a(x)))), {"d": nn.PReLU(4)}, "a", "prelu"),
        (lambda net, x: net.c(mean(net.d(net.a(x)))), {"d": nn.GroupNorm(2, 4)}, "a", "group_norm"),
        (lambda net, x: net.c(mean(net.d(net.a(x)))), {"d": nn.InstanceNorm2d(4, affine=True)}, "a", "instance_norm"),
        (
            lambda net, x: net.c(mean(net.d(net.b(net.d(net.a(x)))))),
            {"d": nn.BatchNorm2d(4)}, "a", "d, which runs more than once",
        ),
        (lambda net, x: net.c(mean(net.a(x)).softmax(1)), {}, "a", "softmax"),
        (
            lambda net, x: net.c(F.max_pool2d(net.a(x).flatten(2), (3, 1), 1, (1, 0)).mean(2)),
            {}, "a", "max_pool2d",
        ),
        (lambda net, x: net.c(mean(net.a(x)) * 2), {}, "a", "mul"),
        (lambda net, x: net.c(net.a(x).mean((2, 3)).clamp(min=torch.zeros(4))), {}, "a", "clamp"),
        (lambda net, x: net.c(F.pad(mean(net.a(x)[:, :3]), (0, 1))), {}, "a", "slice"),
        (lambda net, x: net.c(mean(torch.cat(net.a(x).chunk(2, 1)[::-1], 1))), {}, "a", "chunk|split"),
        (lambda net, x: net.c(mean(net.a(x)).view(-1, 4)), {}, "a", "view"),
        (lambda net, x: net.c(net.a(x).flatten(2).mean(2).reshape(len(x), 2, 2).flatten(1)), {}, "a", "view|reshape"),
        (
            lambda net, x: net.c(mean(net.a(x).view(len(x), 2, -1, 6, 6).transpose(1, 2).flatten(1, 2))),
            {}, "a", "view.default",
        ),
        (lambda net, x: net.d(net.a(x)), {"d": nn.Linear(6, 2)}, "a", "d reads them along another axis"),
        (lambda net, x: net.d(net.a(x).mean((1, 3))), {"d": nn.Linear(6, 2)}, "a", "mean"),
        (lambda net, x: net.d(net.a(x).mean((1, 3))[:, :4]), {"d": SHARED}, "a", "mean"),
        (lambda net, x: (net.c(mean(net.a(x))), mean(net.a(x))), {}, "a", "more than once"),
        (lambda net, x: {"y": net.c(mean(net.a(x))), "z": x}, {}, "c", "outputs of the network"),
        (lambda net, x: (lambda h: (net.c(mean(h)), h))(net.a(x)), {}, "a", "outputs of the network"),
        (lambda net, x: net.c(mean(F.conv2d(x, net.a.weight.flip(0)))), {}, "a", "not a plain nn.Linear"),
        (lambda net, x: net.c(mean(F.pad(net.a(x), (1, 1)))), {}, "a", "pad"),
        (lambda net, x: net.c(mean(net.a(x).transpose(0, 1).transpose(0, 1))), {}, "a", "mixes them with places"),
    ],
)  # fmt: skip
def test_a_layer_is_left_alone_with_the_reason(
    forward: Callable[[Any, Tensor], Any], more: dict[str, nn.Module], layer: str, reason: str
) -> None:
    fixed = two(forward, **more).fixed
    assert layer in fixed
    assert re.search(reason, fixed[layer]), fixed


def test_a_weight_used_with_a_bias_of_another_is_left_alone() -> None:
    flow = two(lambda net, x: net.c(mean(F.conv2d(x, net.a.weight, net.b.bias))))
    assert flow.fixed["a"] == "it is not a plain nn.Linear or nn.Conv2d"


def test_a_convolution_without_a_batch_is_left_alone() -> None:
    flow = two(lambda net, x: net.c(mean(net.b(net.a(x)[0]).unsqueeze(0)).expand(len(x), 4)))
    assert "b" not in sources(flow)
    assert "a" in flow.fixed


def test_a_layer_of_another_class_is_left_alone() -> None:
    class Own(nn.Linear):
        pass

    flow = follow(nn.Sequential(nn.Linear(4, 3), Own(3, 3), nn.Linear(3, 2)), torch.randn(1, 4))
    assert sources(flow) == {"0": [0] * 4, "2": [0] * 3}
    assert flow.fixed["1"] == "it is not a plain nn.Linear or nn.Conv2d"
    assert flow.fixed["0"].startswith("1 (it is not a plain")


def test_an_average_pool_that_counts_zeros_around_a_map_names_the_units_that_meet_them() -> None:
    for pool, bordered in (
        (nn.AvgPool2d(3, 1, 1), {1, 3, 4}),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), set()),
        (nn.AvgPool2d(3), set()),
        (nn.MaxPool2d(3, 1, 1), set()),
    ):
        a = nn.Conv2d(1, 4, 3)
        a.weight.data[1], a.bias.data[1] = 0, 0
        flow = follow(nn.Sequential(a, pool, nn.Conv2d(4, 1, 1)), torch.randn(1, 1, 8, 8))
        assert flow.bordered == bordered
