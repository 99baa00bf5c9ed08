"""A recorded network: which outputs are stored after ReLU, what comes from outside, runs of one weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroskip.concepts import Layer, Trace
from zeroskip.simulate import CHIPS, chips, cost_on, estimate, estimate_trace, of_masks
from zeroskip.simulate.estimates import LeftOut
from zeroskip.simulate.recorded import in_network, of_trace
from zeroskip.simulate.simulation import distinct


def linear(name: str, weight: Tensor, x: Tensor, y: Tensor | None = None) -> tuple[Layer, Tensor, Tensor]:
    """A run of a linear layer on inputs with the examples first."""
    made = x @ weight.T if y is None else y
    return Layer(name, "linear", weight, None, tuple(x.shape[1:]), tuple(made.shape[1:])), x, made


def conv(name: str, weight: Tensor, x: Tensor, **place: int) -> tuple[Layer, Tensor, Tensor]:
    op = f"conv{weight.ndim - 2}d"
    y = getattr(F, op)(x, weight, None, **place)
    sizes = {key: (value,) * (weight.ndim - 2) for key, value in place.items()}
    layer = Layer(name, op, weight, None, tuple(x.shape[1:]), tuple(y.shape[1:]), **sizes)
    return layer, x, y


def recurrent_network(steps: int) -> Trace:
    """A convolution over 2 sequences of 4 features, 8 filters of 3; an LSTM of 16 units; a head of 5 classes."""
    torch.manual_seed(0)
    filters, head = torch.randn(8, 4, 3), torch.randn(5, 16)
    inputs, hidden = torch.randn(64, 8) / 8, torch.randn(64, 16) / 8
    inputs[:, 0] = 0
    trace = [conv("conv", filters, torch.randn(2, 4, steps + 2))]
    x = torch.relu(trace[0][2]).transpose(1, 2)  # (2, steps, 8)
    trace.append(linear("lstm.weight_ih_l0", inputs, x))
    state = memory = torch.zeros(2, 16)
    for step in range(steps):
        trace.append(linear("lstm.weight_hh_l0", hidden, state))
        i, f, g, o = (trace[1][2][:, step] + trace[-1][2]).chunk(4, 1)
        memory = memory * f.sigmoid() + i.sigmoid() * g.tanh()
        state = memory.tanh() * o.sigmoid()
    return [*trace, linear("head", head, state)]


# --- runs


@pytest.mark.parametrize("chip", [chips.DENSE, chips.SPARTEN], ids=lambda chip: chip.name)
def test_a_recurrent_network_has_all_its_macs(chip):
    found = estimate_trace(recurrent_network(steps=7), chip)
    assert [(layer.name, layer.op, layer.runs, layer.macs) for layer in found.layers] == [
        ("conv", "conv1d", 1, 2 * 7 * 8 * 4 * 3),
        ("lstm.weight_ih_l0", "linear", 1, 2 * 7 * 64 * 8),
        ("lstm.weight_hh_l0", "linear", 7, 2 * 7 * 64 * 16),
        ("head", "linear", 1, 2 * 5 * 16),
    ]
    assert found.network_macs == found.total.macs
    assert (found.simulated, found.left_out) == (1.0, ())


def test_the_first_step_of_a_recurrent_layer_has_a_state_of_zeros():
    found = estimate_trace(recurrent_network(steps=7), chips.EYERISS_V2_PE)
    assert found.layers[2].done == 2 * 6 * 64 * 16  # a cycle for each MAC without a zero
    assert found.layers[2].cycles == found.layers[2].done


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_runs_of_one_weight_are_the_sum_of_layers_with_names_of_their_own(chip):
    works = of_trace(recurrent_network(steps=5))
    apart = [replace(work, name=f"{work.name} {place}") for place, work in enumerate(works)]
    ours, theirs = estimate(works, chip), estimate(apart, chip)
    for name in ("macs", "done", "gated", "skipped", "cycles", "slots"):
        assert getattr(ours.total, name) == getattr(theirs.total, name)
    assert ours.total.bytes == theirs.total.bytes  # weights come for each run
    assert ours.total.idle == theirs.total.idle
    assert ours.joules == pytest.approx(theirs.joules)
    assert ours.network_macs == theirs.network_macs
    assert sum(layer.runs for layer in ours.layers) == len(theirs.layers)
    assert set(ours.refused) == {name.rsplit(" ", 1)[0] for name in theirs.refused}


def test_steps_whose_zeros_are_the_same_are_worked_out_once():
    runs = distinct(of_trace(recurrent_network(steps=50)))
    assert [(work.name, count) for work, count in runs] == [
        ("conv", 1),
        ("lstm.weight_ih_l0", 1),
        ("lstm.weight_hh_l0", 1),  # the first, of zeros
        ("lstm.weight_hh_l0", 49),
        ("head", 1),
    ]


def test_runs_that_differ_in_one_zero_or_in_their_place_are_not_the_same():
    x = torch.ones(1, 4) != 0
    work = of_masks("fc", torch.ones(4, 4) != 0, x)
    other = replace(work, input=work.input.clone())
    other.input[0, 0, 0] = False
    for changed in (other, replace(work, outside="A"), replace(work, weight=~work.weight)):
        assert [count for _, count in distinct([work, changed, work])] == [2, 1]


def test_a_weight_used_by_two_operations_is_one_layer_of_both():
    weight, x = torch.randn(6, 4), torch.randn(2, 4)
    runs = [linear("tied", weight, x), conv("tied", weight[:, :, None], torch.randn(2, 4, 5))]
    found = estimate_trace(runs, chips.DENSE)
    assert [(layer.op, layer.runs, layer.macs) for layer in found.layers] == [
        ("linear and conv1d", 2, 2 * 24 + 2 * 24 * 5)
    ]
    part = estimate_trace(runs, chips.EIE)
    assert (part.layers[0].macs, part.left_out[0].macs) == (2 * 24, 2 * 24 * 5)
    assert part.simulated == pytest.approx(1 / 6)


def test_a_sample_of_a_recurrent_network_takes_the_examples_of_every_run():
    trace = recurrent_network(steps=4)
    twice = [(layer, torch.cat([x, x]), torch.cat([y, y])) for layer, x, y in trace]
    sampled = estimate_trace(twice, chips.SPARTEN, sample=2)  # examples 0 and 2, which are equal
    whole = estimate_trace([(layer, x[:1].repeat(2, *[1] * (x.ndim - 1)), y[:1].repeat(2, *[1] * (y.ndim - 1)))
                            for layer, x, y in trace], chips.SPARTEN)  # fmt: skip
    assert (sampled.cycles, sampled.total.macs) == (whole.cycles, whole.total.macs)


def test_no_tokens_are_no_work():
    weight = torch.randn(5, 4)
    runs = [linear("fc", weight, torch.randn(2, 4)), linear("none", weight, torch.randn(2, 0, 4))]
    assert [layer.name for layer in estimate_trace(runs, chips.DENSE).layers] == ["fc"]


# --- the cost of a plan


@pytest.mark.parametrize("of", ["cycles", "joules"])
def test_a_plan_pays_for_every_run_of_a_weight(of):
    trace, name = recurrent_network(steps=6), "lstm.weight_hh_l0"
    cost = cost_on(chips.EYERISS_V2_PE, trace, of=of)
    assert cost({}) == pytest.approx(getattr(estimate_trace(trace, chips.EYERISS_V2_PE), of))
    kept = trace[2][0].weight.abs().flatten().sort().values[-256]  # a quarter of 64 x 16
    sparse = [
        (replace(layer, weight=layer.weight * (layer.weight.abs() >= kept)) if layer.name == name else layer, x, y)
        for layer, x, y in trace
    ]  # fmt: skip
    assert cost({name: 0.75}) == pytest.approx(getattr(estimate_trace(sparse, chips.EYERISS_V2_PE), of))


def test_a_transposed_convolution_is_pruned_as_its_weights_lie():
    weight, x = torch.randn(4, 3, 2, 2), torch.randn(1, 4, 5, 5)
    y = F.conv_transpose2d(x, weight, stride=2)
    layer = Layer("up", "conv_transpose2d", weight, None, (4, 5, 5), (3, 10, 10), (2, 2))
    cost = cost_on(chips.EYERISS_V2_PE, [(layer, x, y)])
    assert cost({"up": 0.75}) == 12 * 25  # a cycle for each MAC that is left


# --- what is left out


def test_what_is_not_simulated_is_part_of_the_network_and_in_no_figure():
    trace = recurrent_network(steps=3)
    others = [LeftOut("products of activations", 4000, "no chip"), LeftOut("table", 0, "looked up")]
    found, alone = estimate_trace(trace, chips.EIE, left_out=others), estimate_trace(trace, chips.EIE)
    assert [each.name for each in found.left_out] == ["conv", "products of activations", "table"]
    assert found.total == alone.total
    assert found.network_macs == sum(layer.macs * len(x) for layer, x, _ in trace) + 4000
    assert found.refused == {"conv": 'EIE has no way to run "conv", a conv1d'}
    assert found.simulated == pytest.approx(1 - (2 * 3 * 96 + 4000) / found.network_macs)
    written = found.to_json()
    assert written["network_macs"] == found.network_macs
    assert [part["share"] for part in written["left_out"]] == pytest.approx(
        [576 / found.network_macs, 4000 / found.network_macs, 0]
    )
    assert written["refused"] == found.refused


def test_a_sample_has_its_share_of_what_is_left_out():
    trace = [linear("fc", torch.randn(5, 4), torch.randn(6, 4))]
    found = estimate_trace(trace, chips.EIE, sample=2, left_out=[LeftOut("scores", 600, "no chip")])
    assert (found.left_out[0].macs, found.network_macs) == (200, 200 + 2 * 20)


# --- outputs as they are stored


def stored(first, second=None, x=None) -> tuple[Tensor, Tensor]:
    """What is stored of the first layer's output where the second one reads `x`, made of it by `second`."""
    read = second(first[2]) if x is None else x
    flat = read.flatten(1)
    reader = linear("reader", torch.randn(3, flat.shape[1]), flat)
    if read.ndim > 2:
        reader = conv("reader", torch.randn(3, read.shape[1], 1, 1), read)
    return of_trace([first, reader])[0].output, read


@pytest.fixture
def maps() -> tuple[Layer, Tensor, Tensor]:
    torch.manual_seed(3)
    return conv("conv", torch.randn(6, 3, 3, 3), torch.randn(2, 3, 11, 11), padding=1)


@pytest.fixture
def rows() -> tuple[Layer, Tensor, Tensor]:
    torch.manual_seed(3)
    return linear("fc", torch.randn(20, 8), torch.randn(9, 8))


SEEN = {
    "ReLU": torch.relu,
    "ReLU and largest of 2 x 2": lambda y: F.max_pool2d(torch.relu(y), 2, ceil_mode=True),
    "ReLU and largest of 3 x 3 that overlap": lambda y: F.max_pool2d(torch.relu(y), 3, 2, 1),
    "ReLU, flat": lambda y: torch.relu(y).flatten(1),
    "ReLU and a threshold": lambda y: F.hardshrink(torch.relu(y), 0.5),
}


@pytest.mark.parametrize("name", SEEN)
def test_zeros_of_relu_are_stored_where_a_later_layer_reads_them(maps, name):
    found, _ = stored(maps, SEEN[name])
    assert torch.equal(found.flatten(), (maps[2] > 0).flatten())


@pytest.mark.parametrize("bound", [F.relu, F.relu6])
def test_zeros_of_relu_after_a_batch_norm_are_stored_as_they_are_read(maps, bound):
    norm = nn.BatchNorm2d(6).eval()
    with torch.no_grad():
        norm.weight.uniform_(-2, 2), norm.bias.uniform_(-3, 3)
    with torch.no_grad():
        found, read = stored(maps, lambda y: bound(norm(y)))
    assert torch.equal(found.flatten(), (read != 0).flatten())
    assert 0 < read.count_nonzero() < read.numel()


def test_a_linear_layer_s_zeros_are_stored_alike(rows):
    norm = nn.BatchNorm1d(20).eval()
    with torch.no_grad():
        norm.bias.uniform_(-1, 1)
        for function in (torch.relu, lambda y: torch.relu(norm(y))):
            found, read = stored(rows, function)
            assert torch.equal(found.flatten(), (read != 0).flatten())


UNSEEN = {
    "sigmoid": torch.sigmoid,
    "absolute": torch.abs,
    "square": torch.square,
    "negated": lambda y: torch.relu(-torch.tanh(y)),
    "softmax": lambda y: y.softmax(1),
    "a sum with something else": lambda y: torch.relu(y + y.flip(0)),
    "zeros": torch.zeros_like,
    "with its sign": lambda y: y,
}


@pytest.mark.parametrize("name", UNSEEN)
def test_an_output_that_nobody_reads_after_relu_has_no_zeros(maps, rows, name):
    for first in (maps, rows):
        assert bool(stored(first, UNSEEN[name])[0].all())


def test_the_reader_may_be_a_layer_further_on(maps):
    """A branch: the next layer that runs reads something else, which has no negative number either."""
    branch = conv("branch", torch.randn(6, 3, 1, 1), torch.rand(2, 3, 11, 11))
    reader = conv("reader", torch.randn(3, 6, 1, 1), torch.relu(maps[2]))
    first, second, _ = of_trace([maps, branch, reader])
    assert torch.equal(first.output.flatten(), (maps[2] > 0).flatten())
    assert bool(second.output.all())


def test_a_residual_sum_is_no_output_of_its_layer(maps):
    """The layer's own output is added to another before ReLU: the zeros that are read are those of the sum."""
    reader = conv("reader", torch.randn(3, 6, 1, 1), torch.relu(maps[2] + torch.randn(maps[2].shape)))
    assert bool(of_trace([maps, reader])[0].output.all())


def test_not_a_number_is_stored():
    layer, x, _ = linear("fc", torch.randn(3, 2), torch.randn(2, 2))
    y = torch.tensor([[-1.0, float("nan"), 0.0], [1.0, -2.0, 3.0]])
    assert of_trace([(layer, x, y)])[0].output.flatten().tolist() == [True, True, False, True, True, True]


# --- from outside


def test_every_layer_that_reads_an_input_of_the_network_has_it_from_outside():
    first, second = torch.randn(2, 6), torch.randn(2, 4)
    trace = [
        linear("left", torch.randn(5, 6), first),
        linear("right", torch.randn(5, 4), second),
        linear("head", torch.randn(3, 10), torch.randn(2, 10)),
    ]
    assert [work.outside for work in in_network(of_trace(trace, [first, second]))] == ["A", "A", "O"]
    assert [work.outside for work in in_network(of_trace(trace))] == ["A", "", "O"]


def test_branches_that_read_the_first_layer_s_input_have_it_from_outside():
    x = torch.randn(2, 6)
    trace = [linear("left", torch.randn(5, 6), x), linear("right", torch.randn(4, 6), x.clone())]
    assert [work.outside for work in in_network(of_trace(trace))] == ["A", "AO"]


def test_a_shared_cell_has_each_picture_from_outside_and_its_weights_for_each():
    """Two pictures through one layer, on a chip that keeps maps between layers."""
    weight, pictures = torch.randn(6, 3, 3, 3), [torch.randn(1, 3, 8, 8) for _ in range(2)]
    trace = [conv("cell", weight, picture) for picture in pictures]
    trace.append(conv("head", torch.randn(2, 12, 1, 1), torch.cat([y for _, _, y in trace], 1)))
    found = estimate(of_trace(trace, pictures), chips.DCNN).layers[0]
    assert found.runs == 2
    assert found.bytes["DRAM", "W"] == 2 * 2 * weight.numel()
    assert found.bytes["DRAM", "A"] == 2 * 2 * pictures[0].numel()
    assert found.bytes["DRAM", "O"] == 0
