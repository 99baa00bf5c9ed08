"""Dead neurons: the network without them answers as before, for every kind of network that can be followed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip import prune
from zeroskip.errors import ModelError, RecipeError
from zeroskip.models import LeNet5, LeNet5Sizes, LeNet300100
from zeroskip.prune import neuron_removal, same_answers


def pruned(model: nn.Module, seed: int, sparsity: float = 0.6) -> nn.Module:
    """`model` in float64 with zeros scattered, whole rows and columns among them, and batch norms that have seen
    something."""
    draw = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=draw, dtype=torch.float64) - 0.3
            module.running_var = torch.ones_like(module.running_mean) + module.running_mean.abs()
    for weight in prune.weights(model).values():
        weight[torch.rand(weight.shape, generator=draw) < sparsity] = 0
        weight[torch.rand(len(weight), generator=draw) < 0.3] = 0
        weight[:, torch.rand(weight.shape[1], generator=draw) < 0.3] = 0
    return model


def difference(small: nn.Module, model: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest difference of the two networks' answers to fresh inputs, as a share of the largest answer."""
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = small.eval()(x), model(x)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300))


def check(
    fresh: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Compact what `fresh` makes, and all that must hold of it: same answers, loads into a rebuilt fresh network,
    nothing left to take out, the network given is as it was."""
    model = pruned(fresh(), seed)
    before = copy.deepcopy(model.state_dict())
    example = torch.randn(2, *shape, dtype=torch.float64)
    small, edits = prune.compact(model, example)
    assert difference(small, model, shape) < 1e-12
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    again = prune.rebuild(fresh().double(), json.loads(json.dumps(edits)))
    again.load_state_dict(small.state_dict())
    assert difference(again, small, shape) == 0
    assert prune.dead_neurons(small, example) == []
    return small, {edit["layer"]: edit for edit in edits}


ACTIVATIONS = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.LeakyReLU, nn.Hardswish, nn.Identity]


class Drawn(nn.Module):
    """A random network: convolutions of all kinds, side by side or one after another, then linear layers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rng = torch.Generator().manual_seed(seed)
        self.branch = self.coin()
        self.ending = self.pick(["flatten", "view", "reshape", "mean", "last", "written"])
        self.trunk = nn.Sequential(*self.block(2, 6), *self.block(6, 5))
        self.left, self.right = nn.Sequential(*self.block(5, 4, True)), nn.Sequential(*self.block(5, 4, True))
        with torch.no_grad():
            size = self.flat(self.body(torch.zeros(2, 2, 12, 12))).shape[1]
        hidden = [nn.Linear(size, 7), self.activation(), nn.Dropout(), nn.Linear(7, 6)]
        norm = [nn.BatchNorm1d(6)] if self.coin() else []
        self.head = nn.Sequential(*hidden, *norm, self.activation(), nn.Linear(6, 4, bias=self.coin()))

    def pick(self, options: list[Any]) -> Any:
        return options[int(torch.randint(len(options), (1,), generator=self.rng))]

    def coin(self) -> bool:
        return self.pick([True, False])

    def activation(self) -> nn.Module:
        return nn.ReLU() if self.coin() else self.pick(ACTIVATIONS)()

    def block(self, into: int, out: int, same: bool = False) -> list[nn.Module]:
        """Convolution, perhaps batch norm, activation, perhaps a pool; `same` keeps height and width."""
        padding = "same" if same else self.pick([0, 0, 1, (0, 1), "valid"])
        stride = 1 if same else self.pick([1, 1, 2])
        conv = nn.Conv2d(into, out, 3, stride, padding, bias=self.coin())
        norm = [nn.BatchNorm2d(out, affine=self.coin())] if self.coin() else []
        pools = [
            nn.MaxPool2d(2),
            nn.MaxPool2d(3, 1, 1),
            nn.AvgPool2d(2),
            nn.AvgPool2d(3, 1, 1),
            nn.Dropout2d(),
        ]
        pool = [] if same or self.coin() else [self.pick(pools)]
        return [conv, *norm, self.activation(), *pool]

    def body(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return torch.cat([self.left(x), self.right(x)], 1) if self.branch else self.left(x)

    def flat(self, x: Tensor) -> Tensor:
        ways = {
            "flatten": lambda: x.flatten(1),
            "view": lambda: x.reshape(x.size(0), -1),
            "reshape": lambda: F.adaptive_avg_pool2d(x, 2).reshape(len(x), -1),
            "mean": lambda: x.mean((2, 3)),
            "last": lambda: x.permute(0, 2, 3, 1).flatten(1),
            "written": lambda: x.reshape(-1, math.prod(x.shape[1:])),
        }
        return ways[self.ending]()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.body(x)))


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_answer_the_same_without_their_dead_neurons(seed: int) -> None:
    check(lambda: Drawn(seed), (2, 12, 12), seed)


def test_the_two_lenets_shrink_and_answer_the_same() -> None:
    small, edits = check(LeNet300100, (784,))
    assert small.fc1.in_features == 784
    assert small.fc1.out_features == small.fc2.in_features == 300 - len(edits["fc1"]["outputs"]) < 230
    small, edits = check(LeNet5, (1, 28, 28))
    # A channel of conv2 is 4 x 4 columns of fc1.
    gone = edits["conv2"]["outputs"]
    assert edits["fc1"]["inputs"] == [16 * channel + place for channel in gone for place in range(16)] != []


def test_what_goes_from_a_perceptron_is_all_that_no_path_joins_to_inputs_and_outputs() -> None:
    sizes = [6, 9, 9, 9, 3]
    layers = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())]
    for seed in range(5):
        model = pruned(nn.Sequential(*copy.deepcopy(layers[:-1])), seed)
        joined = [(weight != 0).double() for weight in prune.weights(model).values()]
        counts = prune.dead_counts(model, torch.zeros(1, 6, dtype=torch.float64))
        for depth, name in enumerate(["0", "2", "4"]):
            fed, read = torch.ones(6).double(), torch.ones(3).double()
            for matrix in joined[: depth + 1]:
                fed = (matrix @ fed > 0).double()
            for matrix in reversed(joined[depth + 1 :]):
                read = (read @ matrix > 0).double()
            assert counts[name].without_inputs == int((fed == 0).sum())
            assert counts[name].without_outputs == int(((fed > 0) & (read == 0)).sum())


def chain(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().eval()


def test_a_constant_goes_into_the_next_bias_and_what_it_leaves_dead_goes_too() -> None:
    model = chain(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 1))
    w1, w2, w3 = prune.weights(model).values()
    w1[0] = 0  # neuron 0 gives sigmoid(bias) ...
    w2[1, 1:] = 0  # ... which is all that neuron 1 of the next layer sees
    with torch.no_grad():
        first = torch.sigmoid(model[0].bias[0])
        second = torch.sigmoid(model[2].bias[1] + w2[1, 0] * first)
        expected = model[4].bias + w3[0, 1] * second
    small, edits = prune.compact(model, torch.zeros(1, 2, dtype=torch.float64))
    assert [(edit["inputs"], edit["outputs"]) for edit in edits] == [([], [0]), ([0], [1]), ([1], [])]
    assert torch.allclose(small[2].bias, model[2].bias[:1] + w2[0, 0] * first, rtol=1e-14)
    assert torch.allclose(small[4].bias, expected, rtol=1e-14)
    counts = prune.dead_counts(model, torch.zeros(1, 2, dtype=torch.float64))
    assert counts["0"] == prune.DeadCount(1, 0, weights=2, connections=0)
    assert counts["2"] == prune.DeadCount(1, 0, weights=4, connections=2)
    assert counts["4"] == prune.DeadCount(0, 0, weights=1, connections=1)
    assert prune.dead_neurons(model, torch.zeros(1, 2, dtype=torch.float64)) == edits


@pytest.mark.parametrize(
    ("padding", "bias", "goes"),
    [(0, 1.0, True), ("valid", 1.0, True), (1, 1.0, False), ("same", 1.0, False), (1, -1.0, True)],
)
def test_a_constant_channel_meets_zero_padding_only_if_relu_makes_it_zero(
    padding: Any, bias: float, goes: bool
) -> None:
    model = chain(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=padding))
    model[0].weight.data[1], model[0].bias.data[1] = 0, bias
    small, edits = prune.compact(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert bool(edits) is goes
    assert small[0].out_channels == 3 - goes
    assert difference(small, model, (1, 8, 8)) < 1e-12


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize("size", [1, 4, 5, 8])
@pytest.mark.parametrize("middle", [nn.Conv2d(3, 3, 3, padding=1), nn.AvgPool2d(3, 1, 1)])
def test_a_constant_at_a_zero_padding_stays_since_its_mean_is_another_at_other_sizes(
    middle: nn.Module, size: int
) -> None:
    model = chain(nn.Conv2d(1, 3, 1), copy.deepcopy(middle), nn.ReLU(), Mean(), nn.Linear(3, 2))
    model[0].weight.data[1], model[0].bias.data[1] = 0, 1.0
    if isinstance(middle, nn.Conv2d):
        model[1].weight.data[1], model[1].bias.data[1] = 0, 0.1
        model[1].weight.data[1, 1] = 1.0  # channel 1 of the second map sees the constant alone
    small, edits = prune.compact(model, torch.zeros(1, 1, size, size, dtype=torch.float64))
    assert edits == []
    for other in (1, 3, 8, 13):
        assert difference(small, model, (1, other, other)) < 1e-12


@pytest.mark.parametrize("size", [3, 8])
def test_a_constant_without_padding_goes_and_the_answers_are_the_same_at_4_other_sizes(size: int) -> None:
    pools = [nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.MaxPool2d(3, 1, 1)]
    model = chain(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1), *pools, nn.ReLU(), Mean(), nn.Linear(3, 2))
    model[0].weight.data[1], model[0].bias.data[1] = 0, 1.0
    model[1].weight.data[1, [0, 2]] = 0
    small, edits = prune.compact(model, torch.zeros(1, 1, size, size, dtype=torch.float64))
    assert [edit["outputs"] for edit in edits] == [[1], [1], []]
    for other in (1, 3, 8, 13):
        assert difference(small, model, (1, other, other)) < 1e-12


def test_a_zero_channel_goes_through_every_padding() -> None:
    layers = [nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(3, 3, 3, padding=1), Mean()]
    model = chain(*layers, nn.Linear(3, 2))
    model[0].weight.data[1], model[0].bias.data[1] = 0, -1.0
    small, edits = prune.compact(model, torch.zeros(1, 1, 6, 6, dtype=torch.float64))
    assert [(edit["inputs"], edit["outputs"]) for edit in edits] == [([], [1]), ([1], [])]
    assert difference(small, model, (1, 9, 9)) < 1e-12


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


def test_answers_that_are_bools_are_compared_and_a_network_without_any_tensor_is_refused() -> None:
    class Above(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) > 0

    model = Above(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    model[0].weight.data[1] = 0
    small, edits = prune.compact(model, torch.zeros(8, 4))
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    assert edits[0]["outputs"] == [1]
    assert torch.equal(small(x), model(x))
    assert not same_answers._differ(torch.tensor([True, False]), torch.tensor([True, False]))
    assert same_answers._differ(torch.tensor([True, False]), torch.tensor([True, True]))
    with pytest.raises(ModelError, match="holds no tensor"):
        neuron_removal._check_same(nn.Identity(), Nothing(), torch.zeros(1, 4))


def test_batch_norm_makes_a_constant_of_a_dead_channel_and_is_cut_with_it() -> None:
    model = pruned(nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)), 0, 0)
    model[0].weight.data[:] = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    model[2].weight.data[:] = 1.0
    small, edits = prune.compact(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert edits[1] == {"edit": "remove", "layer": "1", "inputs": [1], "outputs": []}
    norm = model[1]
    shift = norm.bias[1] - norm.weight[1] * norm.running_mean[1] / (norm.running_var[1] + norm.eps).sqrt()
    assert torch.allclose(small[2].bias, model[2].bias + 9 * shift)
    assert small[1].num_features == len(small[1].running_var) == 2
    assert difference(small, model, (1, 8, 8)) < 1e-12


def test_a_constant_that_reaches_a_layer_without_bias_stays_unless_it_is_zero() -> None:
    for activation, goes in ((nn.Sigmoid(), False), (nn.ReLU(), True)):
        model = chain(nn.Linear(2, 3, bias=False), activation, nn.Linear(3, 2, bias=False))
        model[0].weight.data[1] = 0
        assert bool(prune.dead_neurons(model, torch.zeros(1, 2, dtype=torch.float64))) is goes


def test_a_dead_network_keeps_one_neuron_in_each_layer(mlp: nn.Sequential) -> None:
    for weight in prune.weights(mlp).values():
        weight.zero_()
    small, _ = prune.compact(mlp, torch.zeros(1, 6))
    assert [small[index].out_features for index in (0, 2, 4)] == [1, 1, 4]
    assert torch.allclose(small(torch.ones(2, 6)), mlp(torch.ones(2, 6)))


def test_a_network_without_dead_neurons_stays_as_it_is(mlp: nn.Sequential) -> None:
    small, edits = prune.compact(mlp, torch.zeros(1, 6))
    assert edits == []
    assert all(torch.equal(small.state_dict()[key], value) for key, value in mlp.state_dict().items())


def test_a_masked_network_is_refused_and_keeps_working(mlp: nn.Sequential) -> None:
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[3] = False
    prune.hold_(mlp, {"0": mask})
    for function in (prune.compact, prune.dead_neurons, prune.dead_counts, prune.left_alone):
        with pytest.raises(ModelError, match=r"still holds masks.*prune.release_\(model\)"):
            function(mlp, torch.zeros(1, 6))
    with pytest.raises(ModelError, match="still holds masks"):
        prune.rebuild(mlp, [])
    expected = mlp(torch.ones(2, 6))
    small, edits = prune.compact(prune.release_(mlp).train(), torch.zeros(1, 6))
    assert edits[0]["outputs"] == [3]
    assert mlp.training
    assert small.training
    assert torch.allclose(small(torch.ones(2, 6)), expected)


def test_a_batch_size_written_into_the_network_is_no_obstacle() -> None:
    class Fixed(LeNet5):
        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
            return self.fc2(F.relu(self.fc1(x.reshape(3, -1))))

    model = pruned(Fixed(LeNet5Sizes(side=14, kernel=3, channels=(4, 5, 6))), 0)
    model.fc1 = nn.Linear(5 * 25, 6).double()
    model.conv2.weight.data[2] = 0
    small, edits = prune.compact(model, torch.zeros(3, 1, 14, 14, dtype=torch.float64))
    assert 2 in next(edit for edit in edits if edit["layer"] == "conv2")["outputs"]
    assert difference(small, model, (1, 14, 14)) < 1e-12


def test_a_constant_that_is_overwritten_in_place_is_not_taken_for_one() -> None:
    class Overwriting(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = self[0](x)
            same = y.unsqueeze(1)
            y.copy_(x)
            return self[2](torch.relu(self[1](same)))

    model = Overwriting(nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].weight.data.zero_()
    assert prune.dead_neurons(model, torch.ones(1, 4)) == []


def test_a_network_that_uses_a_weight_beside_its_layer_is_refused_not_answered_wrongly() -> None:
    class Odd(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self[0].weight.sum()

    model = Odd(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model[2].weight.data[:, 1] = 0
    with pytest.raises(ModelError, match="answers otherwise. It uses a weight"):
        prune.compact(model, torch.zeros(1, 4))

    class Sized(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[1](self[0](x))
            if x.shape[1] != 3:
                raise ValueError("three channels, please")
            return self[2](x)

    model = Sized(*model)
    with pytest.raises(ModelError, match="no longer runs.*three channels, please"):
        prune.compact(model, torch.zeros(1, 4))


def remove(layer: Any = "fc1", inputs: Any = (), outputs: Any = ()) -> dict[str, Any]:
    as_list = [list(each) if isinstance(each, tuple) else each for each in (inputs, outputs)]
    return {"edit": "remove", "layer": layer, "inputs": as_list[0], "outputs": as_list[1]}


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ("remove", "edits are a list, as `prune.compact` returns them, not str"),
        ([remove(), 7], "edit 1 is '7'"),
        ([{"edit": "add", "layer": "fc1"}], 'Edits are dicts with "edit": "remove"'),
        ([{"edit": "remove", "layer": "fc1"}], 'edit 0 must have "edit", "layer"'),
        ([{**remove(), "code": "1"}], "and no more"),
        ([remove(3)], "edit 0 must have"),
        ([remove("fc9", (1,))], 'edit 0: the network has no linear, convolution or batch norm layer "fc9"'),
        ([remove("")], 'no linear, convolution or batch norm layer ""'),
        ([remove(outputs=(0, 300))], 'outputs of "fc1" are numbered 0 to 299; 300'),
        ([remove(inputs=(-1,))], 'inputs of "fc1" are numbered 0 to 783; -1'),
        ([remove(outputs=(True,))], 'outputs of "fc1" to remove are no list of integers'),
        ([remove(outputs=(1.0,))], "no list of integers"),
        ([remove(outputs="12")], "no list of integers"),
        ([remove(outputs=(5, 4, 5))], 'outputs of "fc1": 5 is to be removed twice'),
        ([remove(outputs=tuple(range(300)))], 'outputs of "fc1" would all go. Leave one'),
        ([remove(outputs=(0,)), remove(outputs=(299,))], "edit 1: the outputs .* 0 to 298; 299"),
    ],
)
def test_edits_that_do_not_fit_are_refused_with_layer_and_index(edits: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        prune.rebuild(LeNet300100(), edits)


def test_edits_never_cut_groups_or_the_outputs_of_a_batch_norm() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4))
    with pytest.raises(RecipeError, match='layer "0" has 2 groups'):
        prune.rebuild(model, [remove("0", outputs=(1,))])
    with pytest.raises(RecipeError, match='the outputs of "1" are numbered'):
        prune.rebuild(model, [remove("1", outputs=(1,))])


def test_rebuild_keeps_the_values_of_what_stays_and_which_parameters_learn() -> None:
    model = LeNet5()
    model.conv2.weight.requires_grad_(False)
    made = prune.rebuild(model, [remove("conv2", (1, 3), (0,))])
    assert torch.equal(made.conv2.weight, model.conv2.weight[1:][:, [0, 2, *range(4, 20)]])
    assert torch.equal(made.conv2.bias, model.conv2.bias[1:])
    assert (made.conv2.in_channels, made.conv2.out_channels) == (18, 49)
    assert (made.conv2.weight.requires_grad, made.conv2.bias.requires_grad) == (False, True)


class Mixed(nn.Module):
    """Two inputs, and layers of kinds that are not cut between those that are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)
        self.lstm, self.conv = nn.LSTM(4, 5, batch_first=True), nn.Conv1d(5, 6, 1)
        self.up, self.twice = nn.ConvTranspose1d(6, 6, 1), nn.Linear(6, 6)
        self.third, self.last = nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.second(torch.relu(self.first(x)))  # (batch, steps, 4)
        y = self.up(torch.relu(self.conv(self.lstm(y)[0].transpose(1, 2)))).mean(2)
        y = torch.relu(self.twice(torch.relu(self.twice(y))))
        return {"scores": self.last(torch.relu(self.third(y))) * scale}


def test_only_plain_layers_are_cut_and_what_others_read_or_give_stays() -> None:
    torch.manual_seed(0)
    model, example = Mixed().eval(), {"x": torch.randn(3, 5, 6), "scale": torch.rand(3, 1)}
    with torch.no_grad():
        for name in ("first", "second", "conv", "up", "twice", "third"):  # a unit of each gives nothing
            module = model.get_submodule(name)
            (module.weight[:, 1] if name == "up" else module.weight[1]).zero_()
            module.bias[1] = 0.0
        model.lstm.weight_ih_l0[[1, 6, 11, 16]] = 0.0
    small, edits = prune.compact(model, example)
    assert {edit["layer"] for edit in edits} == {"first", "second", "third", "last"}
    assert [tuple(small.get_submodule(name).weight.shape) for name in ("first", "second", "third", "last")] == [
        (7, 6), (4, 7), (6, 6), (3, 6)
    ]  # fmt: skip
    for name in ("lstm", "conv", "up", "twice"):
        assert all(
            torch.equal(small.get_submodule(name).state_dict()[key], tensor)
            for key, tensor in model.get_submodule(name).state_dict().items()
        )
    torch.testing.assert_close(small(**example)["scores"], model(**example)["scores"])
    reasons = prune.left_alone(model, example)
    assert "lstm" in reasons["second"]
    assert reasons["twice"] == "it runs more than once, or shares its parameters"
    assert reasons["conv"] == reasons["up"] == "it is not a plain nn.Linear or nn.Conv2d"
    assert set(prune.dead_counts(model, example)) == {"first", "second", "third", "last"}
