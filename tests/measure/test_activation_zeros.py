"""Zeros of activations against counts by hand and by brute force, batch by batch, resumed, and after failures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import NETWORKS
from torch import Tensor, nn

from zeroskip import graph, measure, run_folder, thresholds
from zeroskip.errors import DataError, ModelError
from zeroskip.measure import activation_zeros
from zeroskip.measure.tensor_zeros import CountMemory, count_zeros


class Branching(nn.Module):
    """conv -> ReLU -> pool -> (conv + shortcut) -> ReLU -> flatten -> linear, with functional operations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.first(x)), 2)
        self.pooled = x
        self.joined = torch.relu(self.second(x) + x)
        return self.last(self.joined.flatten(1))


def test_zeros_leave_a_layer_after_its_relu_and_pooling_and_not_after_a_join() -> None:
    torch.manual_seed(1)
    model, x = Branching(), torch.randn(5, 1, 8, 8)
    zeros = measure.activations(model, [x])
    model(x)
    assert zeros["first"].output == pytest.approx((model.pooled == 0).float().mean().item())
    assert zeros["second"].input == zeros["first"].output
    # The sum that "second" goes into is made of two tensors; what its ReLU makes of it belongs to no layer.
    assert zeros["second"].output is None
    assert zeros["last"].input == pytest.approx((model.joined == 0).float().mean().item())


def test_zeros_are_counted_over_all_batches_and_by_channel() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    batches = [torch.randn(4, 2, 2, 2), torch.randn(7, 2, 2, 2)]
    batches[0][:, 1] = 0
    maps = torch.relu(model[0](torch.cat(batches)))
    zeros = measure.activations(model, batches)["0"]
    assert zeros.output == pytest.approx((maps == 0).float().mean().item())
    assert zeros.after.by_channel == pytest.approx((maps == 0).float().mean((0, 2, 3)).tolist())
    assert zeros.before.by_channel == pytest.approx([0, 4 / 11])


def test_a_layer_that_runs_twice_counts_both_times() -> None:
    shared = nn.Linear(2, 2, bias=False)
    shared.weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    model = nn.Sequential(shared, nn.ReLU(), shared)
    zeros = measure.activations(model, [torch.tensor([[1.0, 1.0]])])["0"]
    assert zeros.input == 0.25  # (1, 1) and then (1, 0)
    assert zeros.output == 0.5  # (1, 0) after the ReLU and then (1, -0)


def test_looking_at_activations_changes_nothing_in_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    before = copy.deepcopy(model.state_dict())
    measure.activations(model, [torch.randn(8, 4)])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_called_by_keyword_is_counted() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(input=x)

    assert measure.activations(Keyword(), [torch.tensor([[0.0, 1.0]])])["fc"].input == 0.5


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ModelError, match="no zeros could be counted"):
        measure.activations(nn.Linear(2, 2), [])


def share(tensor: Tensor) -> float:
    return (tensor == 0).double().mean().item()


def conv_net() -> nn.Sequential:
    """Two convolutions, one of them grouped, and a linear layer, on (n, 2, 6, 5)."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def loader(*sizes: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches of (images, classes); a third of the pixels are zero."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 2, 6, 5, generator=generator).where(
                torch.rand(size, 2, 6, 5, generator=generator) > 0.3, 0.0
            ),
            torch.randint(4, (size,), generator=generator),
        )
        for size in sizes
    ]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    kind=st.sampled_from(
        [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
    ),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 1000),
)
def test_a_count_is_a_brute_force_count_in_every_type_and_memory_order(shape, kind, layout, seed) -> None:
    torch.manual_seed(seed)
    maps = torch.randint(-1, 2, shape).to(kind).contiguous(memory_format=layout)
    found = count_zeros(maps, CountMemory(), maps=True, positions=True)
    assert np.array_equal(found.by_channel, (maps == 0).sum((0, 2, 3)))
    assert np.array_equal(found.by_example, (maps == 0).sum((1, 2, 3)))
    assert np.array_equal(found.by_position, (maps == 0).sum((0, 1)))
    assert (found.elements, found.nonfinite) == (maps.numel(), 0)
    rows = count_zeros(maps, CountMemory(), maps=False, positions=True)  # the last axis as the channels
    assert np.array_equal(rows.by_channel, (maps == 0).sum((0, 1, 2)))
    assert np.array_equal(rows.by_example, (maps == 0).sum((1, 2, 3)))
    assert np.array_equal(rows.by_position, (maps == 0).sum((0, 3)))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_minus_zero_is_a_zero_and_nan_inf_and_the_smallest_number_are_none(kind: torch.dtype) -> None:
    tiny = torch.finfo(kind).smallest_normal * torch.finfo(kind).eps  # the smallest above 0
    values = torch.tensor([[0.0, -0.0, math.nan, math.inf, -math.inf, tiny, 1.0]], dtype=kind)
    found = count_zeros(values, CountMemory(), maps=False)
    assert found.by_channel.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert found.nonfinite == 3


def test_the_room_for_counts_is_used_again_and_grows_to_what_the_last_batch_needed() -> None:
    memory = CountMemory()
    first, second = memory.zeros(40_000), memory.zeros(40_000)  # the second does not fit
    first += 1
    second += 2
    assert (first.sum(), second.sum()) == (40_000, 80_000)
    memory.clear()
    again = [memory.zeros(40_000), memory.zeros(40_000)]
    assert not np.concatenate(again).any()
    assert np.shares_memory(again[0].base, again[1].base)


def test_counts_of_batches_of_5_1_and_7_are_those_of_all_13_examples_together() -> None:
    model, batches = conv_net().eval(), loader(5, 1, 7)
    x, classes = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    with torch.no_grad():
        sides = {"0.before": x, "4.before": model[:4](x), "4.after": model[:6](x), "7.before": model[:7](x)}
    zeros = measure.activations(model, batches, by=("position", "class", "example"))
    for key, values in sides.items():
        name, side = key.split(".")
        found = getattr(zeros[name], side)
        zero = values == 0
        assert (found.zeros, found.elements, found.nonfinite) == (int(zero.sum()), zero.numel(), 0)
        axes = [axis for axis in range(values.ndim) if axis != 1]
        assert found.by_channel == pytest.approx(zero.double().mean(axes).tolist())
        if values.ndim == 4:
            assert torch.tensor(found.by_position).allclose(zero.float().mean((0, 1)))
        for label, value in found.by_class.items():
            assert value == pytest.approx(share(values[classes == label]))
        assert set(found.by_class) == set(classes.tolist())
        each = zero.flatten(1).double().mean(1)
        spread = found.by_example
        assert (spread.lowest, spread.highest) == (each.min().item(), each.max().item())
        assert spread.mean == pytest.approx(each.mean().item())
        bins = [sum(min(int(20 * one + 1e-9), 19) == b for one in each.tolist()) for b in range(20)]
        assert list(spread.histogram.counts) == bins
        assert len(spread.histogram.edges) == 21


def test_an_output_is_counted_before_a_sum_in_place_overwrites_it() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.conv(x))
            y += x
            return y

    x = torch.tensor([[-1.0, 2.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    assert measure.activations(Joined(), [x])["conv"].output == 0.5


def test_a_tensor_overwritten_through_a_view_is_counted_anew_for_its_next_reader() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            x.view(-1)[:2] = 0
            return y + self.second(x)

    zeros = measure.activations(Twice(), [torch.ones(1, 4)])
    assert (zeros["first"].input, zeros["second"].input) == (0.0, 0.5)


class Rms(nn.Module):
    """x / sqrt(mean x^2), of several operations that read x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + 0.1


class LastAxisNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(
    "between",
    [
        nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm((4, 6, 6)), nn.BatchNorm2d(4), nn.Identity(), Rms(),
        LastAxisNorm(), Affine(), Call(lambda x: x.clamp_min(-0.1)), Call(lambda x: x * torch.sigmoid(x)),
        Call(lambda x: x.sub_(0.2)), Call(lambda x: (x / 2).abs().neg() + x.detach()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pool", [nn.Identity(), nn.AvgPool2d((1, 2)), nn.AdaptiveMaxPool2d((6, 3))])
def test_what_leaves_a_layer_is_what_the_next_one_reads_whatever_lies_between(
    between: nn.Module, pool: nn.Module
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), between, nn.ReLU(), pool, nn.Conv2d(4, 2, 1)).eval()
    zeros = measure.activations(model, [torch.randn(3, 2, 8, 8)])
    assert zeros["0"].after == zeros["4"].before
    assert zeros["0"].output > 0
    assert zeros["4"].output == 0.0


class Unfollowed(nn.Module):
    """conv, an operation, ReLU, linear."""

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.operation, self.fc = nn.Conv2d(1, 4, 3), operation, nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.operation(self.conv(x), x)).flatten(1))


@pytest.mark.parametrize(
    "operation",
    [lambda y, x: y + x[:, :, 1:-1, 1:-1], lambda y, x: y.add_(x[:, :, 1:-1, 1:-1]),
     lambda y, x: (y.view(-1).sub_(x.mean()), y)[1], lambda y, x: torch.cat([y, x[:, :, 1:-1, 1:-1]], 1),
     lambda y, x: y.flatten(1), lambda y, x: F.pad(y, (1, 1)), lambda y, x: y[:, :2], lambda y, x: y.mean(1)],
    ids=["sum", "sum in place", "difference through a view", "cat", "flatten", "pad", "slice", "mean"],
)  # fmt: skip
def test_what_is_lost_before_its_relu_is_unknown_and_never_0_percent(operation) -> None:
    x, model = torch.randn(3, 1, 8, 8), Unfollowed(operation)
    model(x)
    zeros = measure.activations(model, [x])
    assert (zeros["conv"].output, zeros["conv"].after) == (None, None)
    assert zeros["fc"].input > 0
    model.operation = lambda y, x: operation(torch.relu(y), x)
    assert measure.activations(model, [x])["conv"].output > 0  # known: they were there before
    model.operation = lambda y, x: operation(y.where(y > 0.5, 0.0), x)
    assert measure.activations(model, [x])["conv"].output is None  # a few zeros by chance are not all


def test_an_output_that_only_moves_before_the_next_layer_is_known() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2), nn.Unflatten(1, (2, 1)))
    zeros = measure.activations(model, [torch.randn(3, 1, 8, 8)])
    assert (zeros["0"].output, zeros["2"].output) == (0.0, 0.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_that_is_multiplied_is_counted_on_what_it_meets(name: str) -> None:
    model, batch = NETWORKS[name].build(), NETWORKS[name].batch
    zeros = measure.activations(model, [graph.inputs.of(batch)])
    met: dict[str, list[Tensor]] = {}
    for layer, x, _ in graph.record(model, batch):
        met.setdefault(layer.name, []).append(x)
    assert list(zeros) == [weight for weight in graph.weights(model) if weight in met]
    for weight, each in met.items():
        before = zeros[weight].before
        assert (before.zeros, before.elements) == (
            sum(int((x == 0).sum()) for x in each),
            sum(map(Tensor.numel, each)),
        )


def test_an_lstm_s_hidden_weights_read_a_state_that_begins_with_zeros() -> None:
    zeros = measure.activations(nn.LSTM(3, 4, batch_first=True), [torch.ones(2, 5, 3)], by=("example",))
    assert (zeros["weight_hh_l0"].before.zeros, zeros["weight_hh_l0"].before.elements) == (2 * 4, 5 * 2 * 4)
    assert zeros["weight_ih_l0"].before.by_example.highest == 0.0
    assert zeros["weight_ih_l0"].after == zeros["weight_hh_l0"].after


@pytest.mark.parametrize(("build", "shape"), [(nn.Conv1d, (2, 3, 7)), (nn.Conv3d, (2, 3, 4, 5, 3))])
def test_maps_with_any_number_of_axes_are_counted_by_channel_and_place(build, shape) -> None:
    x = torch.randn(shape).relu()
    before = measure.activations(build(3, 4, 1), [x], by=("position",))[""].before
    zero = (x == 0).float()
    assert before.by_channel == pytest.approx(zero.transpose(0, 1).flatten(1).mean(1).tolist())
    assert torch.tensor(before.by_position).flatten().allclose(zero.mean((0, 1)).flatten())


def test_batches_are_given_as_the_network_takes_them_with_classes_or_without() -> None:
    model, (left, right) = NETWORKS["siamese"].build(), torch.randn(2, 3, 6)
    both = {"left": left, "right": right}
    found = measure.activations(model, [both])
    assert found["tower"].before.elements == 36
    assert measure.activations(model, [(both, torch.arange(3))], by=["class"])[
        "tower"
    ].before.by_class.keys() == {0, 1, 2}
    assert measure.activations(model, [((left, right), torch.arange(3))]) == found
    with pytest.raises(DataError, match=r"in such a pair: \(\(first, second\), classes\)"):
        measure.activations(model, [(left, right, left)])
    with pytest.raises(ModelError, match="missing 1 required positional argument: 'right'"):
        measure.activations(model, [(left, right)])


@pytest.mark.parametrize("build", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_layer_is_counted_by_feature_and_step(
    build: Callable[..., nn.Module], batch_first: bool
) -> None:
    x = torch.ones(3, 4, 5)  # 3 examples of 4 steps with 5 features
    x[:, 1, :], x[2, :, 0] = 0, 0
    given = x if batch_first else x.transpose(0, 1)
    rnn = build(5, 2, batch_first=batch_first)
    found = measure.activations(rnn, [given], by=("position",))["weight_ih_l0"]
    assert found.before.by_channel == pytest.approx((x == 0).double().mean((0, 1)).tolist())
    assert found.before.by_position == (tuple((x == 0).double().mean((0, 2)).tolist()),)
    assert found.after.elements == 3 * 4 * 2
    assert found.output == 0.0


def test_packed_sequences_are_counted_whole_and_not_by_example() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.zeros(1, 2)])

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(packed)[1][0]

    assert measure.activations(Packed(), [torch.ones(2, 1)])["rnn.weight_ih_l0"].before.zeros == 2
    with pytest.raises(ModelError, match="does not divide"):
        measure.activations(Packed(), [torch.ones(2, 1)], by=("example",))


def test_nan_and_inf_are_counted_as_non_zero_and_reported() -> None:
    zeros = measure.activations(nn.Linear(3, 2), [torch.tensor([[0.0, math.nan, math.inf]])])[""]
    assert (zeros.before.zeros, zeros.before.nonfinite) == (1, 2)
    assert (zeros.after.zeros, zeros.after.nonfinite) == (0, 2)


def test_an_empty_last_batch_changes_nothing() -> None:
    model, batches = conv_net(), loader(4, 3)
    by = ("position", "class", "example")
    whole = measure.activations(model, batches, by=by)
    assert (
        measure.activations(model, [*batches, (torch.zeros(0, 2, 6, 5), torch.zeros(0).long())], by=by)
        == whole
    )


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 2, 6, 5)]])
def test_a_loader_without_an_example_is_an_error(batches: list[Tensor]) -> None:
    with pytest.raises(ModelError, match="no zeros could be counted"):
        measure.activations(conv_net(), batches)


def test_a_count_stopped_after_each_batch_and_stored_continues_to_identical_figures(tmp_path: Path) -> None:
    model, batches, by = conv_net(), loader(3, 2, 4, 1), ("position", "class", "example")
    whole = measure.activations(model, batches, by=by)

    class StoppedError(Exception):
        pass

    def stop(done: int, sums: dict[str, Tensor]) -> None:
        run_folder.save_tensors(tmp_path / "sums.safetensors", sums)
        raise StoppedError

    sums = None
    for _ in batches:
        with pytest.raises(StoppedError):
            measure.activations(model, batches, by=by, resume=sums, on_batch=stop)
        sums = run_folder.load_tensors(tmp_path / "sums.safetensors")
    assert measure.activations(model, iter(batches), by=by, resume=sums) == whole
    assert measure.results(model, sums) == whole


def test_sums_of_another_network_or_another_count_are_not_continued() -> None:
    kept: list[dict[str, Tensor]] = []
    measure.activations(conv_net(), loader(2), by=("class",), on_batch=lambda _, sums: kept.append(sums))
    with pytest.raises(ModelError, match=r"counted by \['class'\]"):
        measure.activations(conv_net(), loader(2), resume=kept[0])
    with pytest.raises(ModelError, match="not of this network"):
        measure.activations(nn.Linear(2, 2), [torch.ones(1, 2)], by=("class",), resume=kept[0])


def test_an_exception_in_the_network_leaves_no_hook_and_no_mode_behind() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.first(x))
            if len(x) == 3:
                raise KeyboardInterrupt
            return y

    model, before = Failing().train(), len(torch.overrides._get_current_function_mode_stack())
    kept: list[dict[str, Tensor]] = []
    with pytest.raises(KeyboardInterrupt):
        measure.activations(model, [torch.ones(2, 2), torch.ones(3, 2)], on_batch=lambda _, s: kept.append(s))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
    assert len(torch.overrides._get_current_function_mode_stack()) == before
    assert len(kept) == 1
    assert kept[0]["first.input.elements"] == 4


def test_progress_and_sums_come_after_each_of_three_batches() -> None:
    steps: list[tuple[str, int, int]] = []
    done: list[int] = []
    measure.activations(
        conv_net(),
        loader(1, 2, 3),
        on_batch=lambda number, sums: done.append(number),
        progress=lambda *step: steps.append(step),
    )
    assert steps == [("activations", 1, 3), ("activations", 2, 3), ("activations", 3, 3)]
    assert done == [1, 2, 3]


def test_the_sums_are_as_large_after_nine_batches_as_after_one() -> None:
    sizes: list[int] = []
    by = ("position", "class", "example")
    size = lambda _, sums: sizes.append(sum(one.nbytes for one in sums.values()))
    batches = loader(4)
    measure.activations(conv_net(), [(batches[0][0], torch.arange(4))] * 9, by=by, on_batch=size)
    assert len(set(sizes)) == 1


def test_no_output_is_kept_alive_once_it_was_read() -> None:
    alive: list[int] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(5)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.relu(layer(x))
                made.append(torch.multiprocessing.reductions.StorageWeakRef(x.untyped_storage()))
                alive.append(sum(not one.expired() for one in made))
            return x

    made: list[torch.multiprocessing.reductions.StorageWeakRef] = []
    measure.activations(Watching(), [torch.randn(2, 8)])
    assert max(alive) <= 2


def test_what_cannot_be_counted_is_refused() -> None:
    images, classes = loader(4)[0]
    with pytest.raises(ModelError, match="cannot be counted by colour"):
        measure.activations(conv_net(), [images], by=("colour",))
    with pytest.raises(DataError, match="need batches of"):
        measure.activations(conv_net(), [images], by=("class",))
    for wrong in (classes[:3], classes.float(), classes - 5):
        with pytest.raises(DataError, match="need one class number"):
            measure.activations(conv_net(), [(images, wrong)], by=("class",))
    with pytest.raises(ModelError, match="maps are \\(6, 5\\) first and \\(8, 8\\) later"):
        measure.activations(nn.Conv2d(2, 1, 1), [images, torch.ones(1, 2, 8, 8)], by=("position",))


def test_a_threshold_shows_in_the_input_of_its_layer_and_not_in_the_output_before() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(20, 8)
    thresholds.hold_(model, {"2": 0.5})
    hidden = model[:2](x).detach()
    zeros = measure.activations(model, [x])
    assert zeros["0"].output == share(hidden)
    assert zeros["2"].input == share(hidden.where(hidden >= 0.5, 0.0)) > zeros["0"].output


def test_each_map_is_read_once_though_two_layers_and_a_shortcut_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = (nn.Conv2d(1, 1, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x))
            return self.left(y) + self.right(y) + y

    read: list[Tensor] = []
    monkeypatch.setattr(
        activation_zeros,
        "count_zeros",
        lambda x, *rest, **how: (read.append(x), count_zeros(x, *rest, **how))[1],
    )
    measure.activations(Shared(), [torch.randn(2, 1, 3, 3)])
    assert len(read) == 4  # the input, what leaves the stem, and the two that are added


def test_the_table_has_the_shapes_that_the_layers_see() -> None:
    model, (images, _) = conv_net(), loader(3)[0]
    zeros = measure.activations(model, [images])
    first, second, last = measure.table(model, images, zeros)
    assert (first.channels, first.height, first.width, first.filters) == (2, 6, 5, 4)
    assert (first.kernel, first.padding, first.stride, first.groups) == ((3, 3), (1, 1), (1, 1), 1)
    assert (second.channels, second.height, second.width, second.groups) == (4, 3, 2, 2)
    assert (last.channels, last.height, last.width, last.filters, last.kernel) == (36, 1, 1, 3, (1, 1))
    assert (second.before, second.after) == (zeros["4"].input, zeros["4"].output)


def test_a_linear_layer_on_rows_has_them_as_places() -> None:
    rows = torch.ones(2, 7, 5)
    (row,) = measure.table(nn.Linear(5, 3), rows, measure.activations(nn.Linear(5, 3), [rows]))
    assert (row.channels, row.height, row.width, row.filters) == (5, 1, 7, 3)


def test_channels_of_a_linear_layer_on_a_channels_last_image_are_its_features() -> None:
    x = torch.ones(2, 3, 3, 4)
    x[..., 1] = 0
    assert measure.activations(nn.Linear(4, 2), [x])[""].before.by_channel == (0, 1, 0, 0)
