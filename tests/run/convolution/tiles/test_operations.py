"""What of a captured network works on tiles, what is fused, and what may not be; answers equal the network's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import answers, operations_in
from torch import Tensor, nn
from torch.nn import functional

X = torch.randn(2, 6, 12, 12, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two 3x3 convolutions `a` and `b`, a 1x1 `c`, a batch norm, and whatever is done with them."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = (
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 6, 1),
        )
        self.norm = nn.BatchNorm2d(6)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.do = forward
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.do(self, x)


def overwritten(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    z = net.b(y)
    y.relu_()
    return z + y


def overwritten_through_a_view(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, :3].relu_()
    return net.b(y)


def masked(net: Net, x: Tensor) -> Tensor:
    mask = x > 0
    return net.a(x) * (mask & (x < 1)) * mask


def masked_by_an_overwritten_mask(net: Net, x: Tensor) -> Tensor:
    mask = x > 0
    y = net.a(x) * mask
    mask &= x < 1
    return y * mask


FUSED: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[str]]] = {
    "a ReLU joins the convolution before it": (lambda n, x: n.a(x).relu(), ["conv"]),
    "so does a batch norm": (lambda n, x: n.norm(n.a(x)).relu(), ["conv"]),
    "so does a ReLU6": (lambda n, x: functional.relu6(n.a(x)), ["conv"]),
    "so does clamp(0, 2)": (lambda n, x: n.a(x).clamp(0, 2), ["conv"]),
    "so does a clamp from below 0": (lambda n, x: n.a(x).clamp(-1, 2), ["conv"]),
    "so does a SiLU": (lambda n, x: functional.silu(n.a(x)), ["conv"]),
    "so do numbers, and a number for each channel": (
        lambda n, x: (2 * n.a(x) + n.c.bias[:, None, None] - 0.5) / 3,
        ["conv"],
    ),
    "so does a number less the map, whose gate this is": (lambda n, x: 1 - n.a(x), ["conv"]),
    "of what is less than a pixel the map is the second": (
        lambda n, x: torch.rsub(n.c(x).mean((2, 3), True), n.a(x)),
        ["conv", "mean", "conv", "combine"],
    ),
    "what PyTorch alone can do cuts the chain there": (
        lambda n, x: n.b(n.a(x).sin()).relu(),
        ["conv", "conv"],
    ),
    "the later convolution does the sum": (lambda n, x: (n.a(x) + n.b(n.c(x))).relu(), ["conv"] * 3),
    "in whatever order it is written": (lambda n, x: (n.b(n.c(x)) + n.a(x)).relu(), ["conv"] * 3),
    "the sum may be with the network's input": (lambda n, x: n.b(n.a(x).relu()) + x, ["conv"] * 2),
    "two ReLUs after each other are one and another": (
        lambda n, x: n.a(x).relu().clamp(0, 1),
        ["conv", "scale"],
    ),
    "x + x is a sum of its own": (lambda n, x: n.a(x) + n.a(x), ["conv", "conv"]),
    "y + y of one value stays with PyTorch": (lambda n, x: (lambda y: y + y)(n.a(x)), ["conv"]),
    "so does a sum with what differs from pixel to pixel": (lambda n, x: n.a(x) + X[0], ["conv"]),
    "x may be what a sum's convolution reads and what it adds": (lambda n, x: n.a(x) + x, ["conv"]),
    "of three sums each has its convolution": (
        lambda n, x: n.c(n.b(n.a(x) + x) + x) + x,
        ["conv", "conv", "conv"],
    ),
    "a convolution that something else reads does no sum": (
        lambda n, x: (lambda y: n.b(y).relu() + y)(n.a(x)) + n.c(x),
        ["conv", "conv", "conv", "add"],
    ),
    "nor one whose other part is made later": (
        lambda n, x: (lambda y: n.b(y) + y.relu())(n.a(x)),
        ["conv", "scale", "conv", "add"],
    ),
    "what a sum adds is still there for others": (
        lambda n, x: (lambda y: n.c(n.b(n.c(y)) + y) + y)(n.a(x)),
        ["conv"] * 4,
    ),
    "a scaled sum stays with PyTorch": (lambda n, x: torch.add(n.a(x), n.b(x), alpha=2), ["conv", "conv"]),
    "a norm of a sum is a scale": (lambda n, x: n.norm(n.a(x) + x).relu(), ["conv", "scale"]),
    "a mean ends it": (lambda n, x: n.a(x).mean((2, 3)), ["conv", "mean"]),
    "a mean over one side does not": (lambda n, x: n.a(x).mean(3), ["conv"]),
    "a mean is a map of one pixel, which may multiply all": (
        lambda n, x: (lambda y: y * n.c(functional.adaptive_avg_pool2d(y, 1)).sigmoid())(n.a(x)),
        ["conv", "mean", "conv", "combine"],
    ),
    "the mean of a mean is that": (
        lambda n, x: n.c(n.a(x).mean((2, 3), True).mean((2, 3), True)),
        ["conv", "mean", "conv"],
    ),
    "a mean over the examples too is PyTorch's": (lambda n, x: n.a(x).mean(), ["conv"]),
    "parts lie in their concatenation": (
        lambda n, x: torch.cat([n.a(x), n.b(x)], 1),
        ["conv", "conv", "concat"],
    ),
    "also with what comes from outside": (lambda n, x: torch.cat([x, n.a(x)], 1), ["conv", "concat"]),
    "one part twice stays with PyTorch": (lambda n, x: (lambda y: torch.cat([y, y, x], 1))(n.a(x)), ["conv"]),
    "a part that others read as well": (
        lambda n, x: (lambda y: torch.cat([y, n.b(y)], 1).sum(1) + y.sum(1))(n.a(x)),
        ["conv", "conv", "concat"],
    ),
    "a concatenation of concatenations": (
        lambda n, x: (lambda y: torch.cat([torch.cat([y, x], 1), torch.cat([n.b(x), n.c(y)], 1)], 1))(n.a(x)),
        ["conv", "conv", "conv", "concat", "concat", "concat"],
    ),
    "below each other is not a concatenation of channels": (lambda n, x: torch.cat([n.a(x), x], 2), ["conv"]),
    "an overwritten value that others read is another from then on": (
        overwritten,
        ["conv", "conv", "scale", "add"],
    ),
    "also where only a view is overwritten": (
        overwritten_through_a_view,
        ["conv", "rearrange", "scale", "conv"],
    ),
    "a mask out of two is new memory": (masked, ["conv"]),
    "a mask that is overwritten is another from then on": (masked_by_an_overwritten_mask, ["conv"]),
}


@pytest.mark.parametrize("words", FUSED)
def test_which_operations_a_network_becomes(words: str) -> None:
    forward, kinds = FUSED[words]
    model = Net(forward)
    assert sorted(one.kind for one in operations_in(model, X)) == sorted(kinds)
    for ours, theirs in answers(model, X):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "works"),
    [
        (nn.Conv2d(6, 4, 3, stride=(2, 1)), True),
        (nn.Conv2d(6, 4, (3, 4), padding="same"), False),
        (nn.Conv2d(6, 4, (3, 5), padding="same", dilation=(2, 1)), True),
        (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), True),
        (nn.Conv2d(6, 6, 3, groups=6), True),
        (nn.Conv2d(6, 12, 3, groups=6), True),
        (nn.Conv2d(6, 6, 7, groups=6), True),
        (nn.MaxPool2d(3, (2, 1)), True),
        (nn.MaxPool2d(8), False),
        (nn.AdaptiveAvgPool2d(2), False),
        (nn.BatchNorm2d(6, affine=False), True),
        (nn.BatchNorm2d(6, track_running_stats=False), False),
        (nn.Hardtanh(0, 3), True),
        (nn.Hardtanh(), True),
        (nn.Sigmoid(), True),
        (nn.CELU(2), True),
        (nn.CELU(-1.5), False),
        (nn.Softshrink(), False),
        (nn.AvgPool2d(2, divisor_override=-2), False),
    ],
    ids=str,
)
def test_what_cannot_work_on_tiles_is_left_to_pytorch(layer: nn.Module, works: bool) -> None:
    operations = operations_in(nn.Sequential(layer).eval(), X)
    reflects = isinstance(layer, nn.Conv2d) and layer.padding_mode == "reflect"
    assert len(operations) == (2 if reflects else works)  # a padding of its own is a rearrangement
    for ours, theirs in answers(nn.Sequential(layer).eval(), X):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_network_bound_to_one_batch_size_has_no_operations() -> None:
    model = nn.Sequential(nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Unflatten(1, (4, 100)))
    model.register_forward_hook(lambda _, __, y: y.view(2, 400))
    assert operations_in(model.eval(), X) == []


BY_COUNT: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "parts": lambda n, x: n.a(x).split([x.shape[0], 6 - x.shape[0]], 1)[0].sum(1),
    "a factor of a sum": lambda n, x: torch.add(n.a(x), n.c(x), alpha=x.shape[0]),
    "a factor": lambda n, x: n.a(x) * x.shape[0],
    "a bound": lambda n, x: n.a(x).clamp(max=x.shape[0] / 10),
    "places": lambda n, x: n.a(x).narrow(1, x.shape[0], 2),
    "a distance": lambda n, x: n.a(x).roll((x.shape[0], 1), (2, 3)),
}


@pytest.mark.parametrize("words", BY_COUNT)
def test_an_argument_that_is_the_number_of_examples_leaves_its_operation_to_pytorch(words: str) -> None:
    model = Net(BY_COUNT[words])
    assert {one.kind for one in operations_in(model, X)} == {"conv"}
    for ours, theirs in answers(model, X):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_float64_layers_are_left_to_pytorch() -> None:
    assert operations_in(nn.Conv2d(6, 4, 3).double().eval(), X.double()) == []


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.AdaptiveAvgPool2d(1), torch.full((1, 1, 256, 256), 0.1)),
        (nn.GroupNorm(1, 1), torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)).relu()),
        (nn.LayerNorm(30000), torch.randn(1, 8, 30000, generator=torch.Generator().manual_seed(0)).relu()),
    ],
    ids=["mean", "group_norm", "layer_norm"],
)
def test_sums_over_many_numbers_keep_their_digits(layer: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(layer).requires_grad_(False)
    ((ours, _),) = answers(model, x)
    exact = model.double()(x.double())
    model.float()
    # With 16 lanes a mean that adds one number after another would be 3.9e-5 off, with 4 lanes 1.5e-4.
    assert float((ours - exact).abs().max() / exact.abs().max()) < 4e-6
