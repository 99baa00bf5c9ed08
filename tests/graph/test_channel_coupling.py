"""Which channels can change places: any order of a set that is movable, in all carriers, leaves the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.graph.channel_coupling import Coupling, coupling


class Net(nn.Module):
    """Layers by name, and a forward that is given."""

    def __init__(self, does: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.does = does

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


def conv(into: int, out: int, kernel: int = 3, **keywords: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **keywords)


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    for tensor in (made.weight.data, made.bias.data, made.running_mean, made.running_var):
        tensor.uniform_(0.5, 1.5)
    return made


def cycle(length: int) -> Tensor:
    """A random order in which no place keeps its own."""
    around = torch.randperm(length)
    return torch.empty_like(around).index_copy_(0, around, around.roll(1))


def reordered(model: nn.Module, found: Coupling) -> nn.Module:
    """A copy with each movable set in a random order, moved unit by unit."""
    made = copy.deepcopy(model)
    state = made.state_dict()
    for units in found.movable:
        new = dict(zip(units.tolist(), units[cycle(len(units))].tolist(), strict=True))
        for carrier in found.carriers:
            old, places = state[carrier.name].clone(), carrier.units.tolist()
            for unit in set(places) & new.keys():
                here = [at for at, each in enumerate(places) if each == unit]
                there = [at for at, each in enumerate(places) if each == new[unit]]
                moved = old.index_select(carrier.axis, torch.tensor(there))
                state[carrier.name].index_copy_(carrier.axis, torch.tensor(here), moved)
    return made


def check(model: nn.Module, x: Tensor) -> list[int]:
    """The sizes of the movable sets, after it is checked that they are."""
    model = model.double().eval()
    x = x.double() if x.is_floating_point() else x
    found = coupling(model, x)
    made = reordered(model, found)
    assert torch.allclose(made(x), model(x), rtol=1e-10, atol=1e-12)
    if found.movable:
        assert any(not torch.equal(a, b) for a, b in zip(made.parameters(), model.parameters(), strict=True))
    return sorted(map(len, found.movable))


def pictures(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 6, 6)


# What each network does, and the sizes of the sets that can change places.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "a residual stream is one set for all that write and read it": (
        lambda: Net(
            lambda m, x: m.c((h := F.relu(m.n(m.a(x)))) + m.b2(F.relu(m.b1(h)))),
            a=conv(3, 8), n=norm(8), b1=conv(8, 4), b2=conv(4, 8), c=conv(8, 2),
        ), [4, 8],
    ),
    "depthwise convolutions and squeeze and excite pass a set on": (
        lambda: Net(
            lambda m, x: m.c((h := F.relu(m.d(m.a(x)))) * torch.sigmoid(m.s(h.mean((2, 3), keepdim=True)))),
            a=conv(3, 8), d=conv(8, 8, groups=8), s=conv(8, 8, 1), c=conv(8, 2),
        ), [8],
    ),
    "parts of a concatenation are sets of their own, also behind a pool": (
        lambda: Net(
            lambda m, x: m.c(F.max_pool2d(torch.cat([m.a(x), x, m.b(x)], 1), 2)),
            a=conv(3, 4), b=conv(3, 8), c=conv(15, 2),
        ), [4, 8],
    ),
    "after flatten a unit has a column for each place": (
        lambda: Net(lambda m, x: m.c(m.a(x).flatten(1)), a=conv(3, 4), c=nn.Linear(4 * 36, 3)), [4],
    ),
    "channels of zeros split a stream into those that meet them and those that do not": (
        lambda: Net(
            lambda m, x: m.c(F.pad(h := m.a(x), (0, 0, 0, 0, 2, 2)) + m.b(h)),
            a=conv(3, 4), b=conv(4, 8), c=conv(8, 2),
        ), [4, 4],
    ),
    "halves of a gated unit move together": (
        lambda: Net(
            lambda m, x: m.c((h := m.a(x))[:, :4] * torch.sigmoid(h[:, 4:])), a=conv(3, 8), c=conv(4, 2)
        ), [4],
    ),
    "a layer that runs twice couples its two inputs": (
        lambda: Net(
            lambda m, x: m.c(torch.cat([m.s(m.a(x)), m.s(m.b(x))], 1)),
            a=conv(3, 4), b=conv(3, 4), s=conv(4, 6), c=conv(12, 2),
        ), [4, 6],
    ),
    "embeddings and layer norms carry a stream; heads of attention stay": (
        lambda: Net(
            lambda m, x: m.o(
                (h := m.n(m.e(x))) + m.p(F.scaled_dot_product_attention(m.q(h), m.q(h), m.q(h))) + m.w(F.gelu(m.v(h)))
            ).mean(1),
            e=nn.Embedding(9, 8), n=nn.LayerNorm(8), q=nn.Linear(8, 4), p=nn.Linear(4, 8), v=nn.Linear(8, 6),
            w=nn.Linear(6, 8), o=nn.Linear(8, 2),
        ), [6, 8],
    ),
    "one weight for each pixel leaves the channels free": (
        lambda: Net(
            lambda m, x: m.c((h := m.a(x)) * torch.sigmoid(m.s(h))), a=conv(3, 8), s=conv(8, 1), c=conv(8, 2)
        ), [8],
    ),
    "groups, softmax over channels and a sum with the input fix what they read": (
        lambda: Net(
            lambda m, x: m.c(m.g(m.a(x))) + m.f(F.softmax(m.b(x), 1)) + m.f(m.i(x) + x.repeat(1, 2, 1, 1)),
            a=conv(3, 4), g=conv(4, 4, groups=2), b=conv(3, 6), i=conv(3, 6), c=conv(4, 2), f=conv(6, 2),
        ), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_movable_units_change_places_without_a_change_of_the_answers(name: str) -> None:
    make, sizes = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randint(9, (2, 5)) if "embeddings" in name else pictures()
    assert check(make(), x) == sizes


def test_fixed_units_are_named_with_what_fixes_them() -> None:
    model = Net(lambda m, x: m.c(F.softmax(m.a(x), 1)), a=conv(3, 4), c=conv(4, 2))
    found = coupling(model.eval(), pictures())
    assert set(found.fixed.values()) == {"aten.softmax.int reads them too", "they are outputs of the network"}
    assert [each.name for each in found.carriers if each.reads] == ["a.weight", "c.weight"]


def test_a_tensor_that_the_network_computes_fixes_its_units() -> None:
    a = nn.utils.parametrizations.weight_norm(conv(3, 4))
    found = coupling(Net(lambda m, x: m.c(m.a(x)), a=a, c=conv(4, 2)).eval(), pictures())
    assert not found.movable
    assert "a tensor of theirs is no plain parameter" in found.fixed.values()
