"""Networks of every operation through chips: each multiplication is in a figure, or named with its share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zeroskip import measure, report
from zeroskip.simulate import CHIPS, chips, estimate, estimate_trace, whole_network
from zeroskip.simulate.operations import FIRST_INPUT_ONLY


class Recurrent(nn.Module):
    """A convolution over a sequence, an LSTM, a head on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.conv(x)).transpose(1, 2)
        return self.head(self.lstm(steps)[0][:, -1])


class Attending(nn.Module):
    """Tokens from a table, attention, a mask; the output is read through the table's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.unused = nn.Linear(3, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids) + self.places
        x, _ = self.attention(x, x, x, need_weights=True, attn_mask=mask[0])
        return x @ self.table.weight.T


class Volumes(nn.Module):
    """A volume down and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(2, 6, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose3d(6, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(x)))


class Pictures(nn.Module):
    """One layer over two pictures, and a transposed one of several groups behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2)
        self.together = nn.Bilinear(6, 6, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = torch.cat([torch.relu(self.cell(left)), torch.relu(self.cell(right))], 1)
        sums = torch.relu(self.up(both)).sum((2, 3))
        return self.together(sums, sums)


NETWORKS = {
    "recurrent": (Recurrent, (torch.randn(2, 4, 7),)),
    "attention": (Attending, (torch.arange(12).reshape(2, 6) % 11, torch.zeros(2, 6, 6))),
    "volumes": (Volumes, (torch.randn(1, 2, 6, 8, 8),)),
    "pictures": (Pictures, (torch.randn(2, 3, 9, 9), torch.randn(2, 3, 9, 9))),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, inputs = NETWORKS[request.param]
    return make().eval(), inputs


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_figures_and_what_is_left_out_are_all_multiplications_of_the_network(chip, network):
    model, inputs = network
    works, left_out, _ = whole_network(model, inputs)
    if not any(work.runs_as in chip.ops or chip.fallback for work in works):
        return
    found, costs = estimate(works, chip, left_out=left_out), measure.cost(model, inputs)
    examples = len(inputs[0])
    assert found.examples == examples
    assert found.network_macs == examples * (costs.macs + costs.activation_macs)
    assert found.simulated + sum(found.share(each.macs) for each in found.left_out) == pytest.approx(1)
    named = {layer.name for layer in (*found.layers, *found.left_out)} - {"products of activations"}
    assert named == set(costs.layers)
    for layer in found.layers:
        cost = costs.layers[layer.name]
        if layer.name not in found.refused:
            assert (layer.macs, layer.runs) == (examples * cost.macs, cost.runs)


def test_all_of_them_are_what_torch_counts(network):
    model, inputs = network
    if any(isinstance(module, nn.LSTM | nn.Bilinear) for module in model.modules()):
        return  # of which torch counts nothing, see the counts by hand
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    works, left_out, _ = whole_network(model, inputs)
    assert estimate(works, chips.DENSE, left_out=left_out).network_macs == counter.get_total_flops() // 2


def test_a_recurrent_network_by_hand():
    model, x = Recurrent().eval(), torch.randn(2, 4, 7)
    for chip in (chips.DENSE, chips.SPARTEN):
        found = estimate_trace(measure.trace(model, x), chip)
        assert [(layer.name, layer.op, layer.runs, layer.macs) for layer in found.layers] == [
            ("conv", "conv1d", 1, 2 * 7 * 8 * 4 * 3),
            ("lstm.weight_ih_l0", "linear", 1, 2 * 7 * 64 * 8),
            ("lstm.weight_hh_l0", "linear", 7, 2 * 7 * 64 * 16),
            ("head", "linear", 1, 2 * 5 * 16),
        ]
    eie = estimate_trace(measure.trace(model, x), chips.EIE)
    assert eie.refused == {"conv": 'EIE has no way to run "conv", a conv1d'}
    assert eie.left_out[0].macs == 2 * 7 * 96
    assert eie.simulated == 1 - 7 * 96 / (7 * (96 + 512 + 1024) + 80)


def test_products_of_activations_tables_and_what_does_not_run_are_named():
    torch.manual_seed(0)
    model, inputs = Attending().eval(), NETWORKS["attention"][1]
    works, left_out, _ = whole_network(model, inputs)
    assert [work.name for work in works] == ["attention.in_proj_weight", "attention.out_proj", "table"]
    about = {each.name: (each.macs, each.reason) for each in left_out}
    scores = 2 * 2 * 6 * 6 * 4 * 2  # examples, heads, queries, keys, features; scores and sums by them
    assert about["products of activations"] == (
        scores,
        "both factors change with every input, and chips are described for products with weights",
    )
    assert about["unused"] == (0, "nothing is multiplied with it")
    assert about["places"][0] == 0


def test_a_weight_that_met_no_tokens_is_named_too():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.asked(x), self.idle(x[:, :0])], 1)

    works, left_out, _ = whole_network(Experts(), torch.randn(2, 3, 4))
    assert [work.name for work in works] == ["asked"]
    assert [(each.name, each.macs) for each in left_out] == [("idle", 0)]


def test_of_a_bilinear_layer_whose_second_input_is_unknown_the_estimate_and_its_table_say_so():
    torch.manual_seed(0)
    model, inputs = Pictures().eval(), NETWORKS["pictures"][1]
    found = estimate(whole_network(model, inputs).works, chips.SPARTEN)
    assert {layer.name: layer.note for layer in found.layers} == {
        "cell": "", "up": "", "together": FIRST_INPUT_ONLY,
    }  # fmt: skip
    assert report.layer_cost_table(found).note == f"Of together: {FIRST_INPUT_ONLY}."


def test_a_weight_of_the_left_factor_s_form_is_the_same_layer():
    """GPT-2 stores (in, out) and multiplies x by it."""

    class Turned(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(torch.zeros(self.weight.shape[1]), x, self.weight)

    torch.manual_seed(0)
    plain, x = nn.Linear(6, 9, bias=False), torch.randn(4, 6).relu()
    with torch.no_grad():
        plain.weight[plain.weight.abs() < 0.2] = 0
    turned = Turned(plain.weight.detach().T.contiguous())
    for chip in (chips.EIE, chips.SPARTEN, chips.CAMBRICON_S):
        ours, theirs = (estimate(whole_network(each, x).works, chip) for each in (turned, plain))
        assert ours == theirs


def test_both_pictures_of_a_shared_cell_come_from_outside():
    torch.manual_seed(0)
    model, inputs = Pictures().eval(), NETWORKS["pictures"][1]
    works, _, _ = whole_network(model, inputs)
    assert [(work.name, work.outside) for work in works] == [
        ("cell", "A"),
        ("cell", "A"),
        ("up", ""),
        ("together", ""),
    ]
