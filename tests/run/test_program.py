"""run.compile and Program: the same answers as the network, for any batch, from any thread, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import HERE, MACHINES, sparse_
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from zeroskip import run
from zeroskip.errors import EngineError, ModelError
from zeroskip.run import choose, race
from zeroskip.run.kernels import ALL, dense, sell

Prefer = Callable[..., None]


@pytest.fixture
def prefer(monkeypatch: pytest.MonkeyPatch) -> Prefer:
    """prefer("sell"): the stop-watch of run.compile finds that kernel (or plan) fastest, then the next named."""

    def prefer(*names: str) -> None:
        order = [*names, "fastest", "joined", "dense", "sell", "spmm", "channels_last", "pixelwise"]

        def stopped(calls: Mapping[str, Callable[[], object]], **_: Any) -> dict[str, list[float]]:
            for call in calls.values():
                call()
            return {name: [(1 + order.index(name)) / 1e6] for name in calls}

        for module in (choose, race):
            monkeypatch.setattr(module, "interleaved", stopped)

    return prefer


def lenet() -> nn.Module:
    return sparse_(
        nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10)), 0.8
    )


def convolutional() -> nn.Module:
    return sparse_(
        nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(54, 40),
            nn.ReLU(),
            nn.Linear(40, 10),
            nn.Softmax(dim=1),
        )
    )


class Residual(nn.Module):
    """Branches, tokens, and three results in a dict and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 40), nn.Linear(40, 12, bias=False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.down(functional.relu(self.up(self.norm(x)))) + x
        return {"tokens": y, "pooled": (y.mean(1), y.amax(dim=(1, 2)))}


class OnlyThree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(3, 8))


class Sized(OnlyThree):
    """Adds a number that depends on the size of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(x.shape[0]).sum()


class Unseen(OnlyThree):
    """The same with `len`, which torch.export takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(len(x)).sum()


class Summed(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(3, 8)).sum()


class Single(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (2 if x.shape[0] == 1 else 1)


class Noisy(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.layer(x), 0.5, training=True)


class Deciding(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


NETWORKS = {
    "lenet": (lenet, (64,)),
    "convolutional": (convolutional, (1, 8, 8)),
    "residual": (Residual, (5, 12)),
}


@pytest.mark.parametrize("kernel", ["dense", "sell", "spmm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_answers_as_the_network_for_batches_of_0_1_2_7_and_33(
    name: str, kernel: str, prefer: Prefer
) -> None:
    prefer(kernel)
    make, shape = NETWORKS[name]
    model = sparse_(make())
    program = run.compile(model, torch.randn(3, *shape))
    assert {choice.kernel for choice in program.choices} >= {kernel}
    for batch in (0, 1, 2, 7, 33):
        x = torch.randn(batch, *shape)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
def test_the_machine_is_an_argument_and_narrower_ones_compute_the_same(machine: Any) -> None:
    model, x = lenet(), torch.randn(5, 64)
    program = run.compile(model, x, machine=machine)
    assert program.machine == machine
    torch.testing.assert_close(program(x), model(x).detach())


def test_each_layer_gets_the_kernel_that_was_fastest_on_it(prefer: Prefer) -> None:
    prefer("spmm", "sell")
    model = lenet()
    model[4].weight.data.fill_(1.0)
    program = run.compile(model, torch.randn(4, 64))
    first, _, last = program.choices
    assert (first.layer, first.op, first.weight_shape, first.kernel) == ("0", "linear", (30, 64), "spmm")
    assert first.seconds == {"dense": 5e-6, "sell": 2e-6, "spmm": 1e-6}
    assert first.refused == {"channels_last": "a layout of images, and linear has none"}
    assert first.sparsity == pytest.approx(0.8, abs=0.05)
    assert (last.kernel, last.sparsity) == ("dense", 0.0)
    assert last.refused == {**first.refused, **dict.fromkeys(("sell", "spmm"), "0 % zeros: nothing to skip")}


def test_a_network_that_is_faster_as_a_whole_with_dense_layers_gets_those(prefer: Prefer) -> None:
    prefer("sell", "dense")
    program = run.compile(lenet(), torch.randn(1, 64))
    assert [choice.kernel for choice in program.choices] == ["dense"] * 3
    assert all("alone sell was fastest" in choice.reason for choice in program.choices)
    assert program.seconds == program.dense_seconds


def test_a_layer_that_is_faster_dense_alone_may_join_its_neighbours(prefer: Prefer) -> None:
    prefer("joined", "dense", "spmm")
    program = run.compile(lenet(), torch.randn(1, 64))
    assert [choice.kernel for choice in program.choices] == ["spmm"] * 3
    assert all("whole network was faster with it" in choice.reason for choice in program.choices)
    assert program.seconds < program.dense_seconds


def test_dense_is_a_candidate_even_where_only_others_were_named() -> None:
    program = run.compile(lenet(), torch.randn(1, 64), kernels=[sell.KERNEL])
    assert set(program.choices[0].seconds) == {"dense", "sell"}


def test_printing_a_program_names_every_kernel_its_time_and_every_reason(prefer: Prefer) -> None:
    prefer("sell")
    model = convolutional()
    text = str(run.compile(model, torch.randn(2, 1, 8, 8)))
    head, titles, convolution, middle, last = text.splitlines()
    assert HERE.title in head
    assert "fp32, batch 2, 1 thread: 2.0 us a call, 4.0 us with every layer dense" in head
    assert titles.split() == [
        "layer",
        "weight",
        "zeros",
        "kernel",
        "us",
        "dense",
        "us",
        "why,",
        "and",
        "the",
        "others",
    ]
    assert convolution.split()[:7] == ["0", "6", "x", "1", "x", "3", "x"]
    assert (
        "fastest; channels_last 7.0 us; sell: computes linear layers, not conv2d; spmm: comp" in convolution
    )
    assert "40 x 54" in middle
    assert " sell " in middle
    assert "fastest; spmm 6.0 us" in middle
    assert "(itself)" in str(run.compile(sparse_(nn.Linear(9, 4)), torch.randn(1, 9)))
    assert last.startswith("8 ")
    assert last.index("fastest") == titles.index("why")


def test_a_network_for_3_examples_only_runs_any_number_by_cutting_and_filling_up() -> None:
    model = sparse_(OnlyThree())
    program = run.compile(model, torch.randn(3, 8))
    for batch in (0, 1, 3, 4, 8):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(program(x), model.layer(x).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Single(), "on 1 examples the compiled program differs"),
        (Unseen(), r"on 1 examples .* where x\.shape\[0\] would do"),
        (Noisy(), "random in evaluation mode"),
        (Summed(), "one entry for each example"),
        (Deciding(), "torch.export cannot follow the network"),
    ],
    ids=["special-case", "length", "random", "summed", "data-dependent"],
)
def test_what_a_program_could_not_repeat_is_refused_when_compiling(model: nn.Module, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        run.compile(model, torch.randn(3, 8))


def test_a_network_that_uses_the_size_of_the_batch_is_followed() -> None:
    model = Sized().eval()
    program = run.compile(model, torch.randn(3, 8))
    x = torch.randn(6, 8)
    torch.testing.assert_close(program(x), model(x).detach())


def test_a_network_that_cannot_run_on_the_example_says_so_in_its_own_words() -> None:
    with pytest.raises(ModelError, match=r"\(2, 9\).*shapes cannot be multiplied"):
        run.compile(lenet(), torch.randn(2, 9))


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [({"precision": "bf16"}, 'what can be run is precision="fp32"'), ({"threads": 0}, "0 threads")],
)
def test_a_precision_or_number_of_threads_that_cannot_be_is_refused(keywords: Any, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        run.compile(lenet(), torch.randn(1, 64), **keywords)


def test_a_network_that_is_not_on_the_cpu_is_refused() -> None:
    with pytest.raises(EngineError, match=r"on meta.*\.cpu\(\)"):
        run.compile(lenet().to("meta"), torch.randn(1, 64))


def test_a_kernel_that_computes_wrongly_is_caught_before_it_is_used() -> None:
    def build(layer: Any, machine: Any, precision: str, relu: bool) -> Callable[[Tensor], Tensor]:
        return lambda x: dense.reference(layer, x, relu) + 1e-2

    wrong = replace(dense.KERNEL, name="wrong", build=build)
    with pytest.raises(EngineError, match=r'kernel "wrong" computes layer "0" \(30, 64\) wrongly'):
        run.compile(lenet(), torch.randn(2, 64), kernels=[*ALL, wrong])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (torch.zeros(2, 63), r"\(batch, 64\) of torch.float32.*\(2, 63\) of torch.float32"),
        (torch.zeros(2, 64).double(), "torch.float64"),
        (torch.zeros(64), r"given \(64,\)"),
        (torch.zeros(()), r"given \(\)"),
        (torch.zeros(2, 64, device="meta"), "on meta"),
        (torch.zeros(2, 64).to_sparse(), "dense tensor"),
        ([[0.0] * 64], "given list"),
    ],
    ids=["shape", "type", "one-example", "number", "device", "sparse", "list"],
)
def test_another_input_is_refused_and_both_are_named(given: Any, named: str) -> None:
    program = run.compile(lenet(), torch.randn(1, 64))
    with pytest.raises(EngineError, match=named):
        program(given)


def test_strides_and_gradients_of_the_input_do_not_matter() -> None:
    model = convolutional()
    program = run.compile(model, torch.randn(2, 1, 8, 8))
    x = torch.randn(8, 8, 1, 3).permute(3, 2, 1, 0).requires_grad_()
    y = program(x)
    assert not y.requires_grad
    torch.testing.assert_close(y, model(x).detach(), rtol=1e-4, atol=1e-6)


def test_a_program_of_doubles_stays_dense() -> None:
    model = lenet().double()
    program = run.compile(model, torch.randn(2, 64).double())
    assert "not float64" in program.choices[0].refused["sell"]
    x = torch.randn(3, 64).double()
    torch.testing.assert_close(program(x), model(x).detach())


def test_a_network_whose_weights_are_nan_or_all_zero_works_as_in_pytorch(prefer: Prefer) -> None:
    prefer("sell")
    model = lenet()
    model[2].weight.data.zero_()
    model[4].weight.data[3, 3] = float("nan")
    program = run.compile(model, torch.randn(2, 64))
    x = torch.randn(4, 64)
    torch.testing.assert_close(program(x), model(x).detach(), equal_nan=True)
    assert bool(program(x)[:, 3].isnan().all())


def test_a_parametrized_network_is_compiled_with_its_effective_weights() -> None:
    model = lenet()
    parametrize.register_parametrization(model[0], "weight", Halved())
    program, x = run.compile(model, torch.randn(1, 64)), torch.randn(3, 64)
    assert program.choices[0].layer == "0"
    assert program.choices[0].sparsity > 0.7
    torch.testing.assert_close(program(x), model(x).detach())


def zero_a_weight(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight[0, 0] = 7.0


def step(model: nn.Module) -> None:
    model(torch.randn(2, 1, 8, 8)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


CHANGES: dict[str, Callable[[Any], object]] = {
    "written to": zero_a_weight,
    "trained": step,
    "loaded": lambda model: model.load_state_dict(model.state_dict()),
    "data replaced": lambda model: setattr(model[0].weight, "data", model[0].weight.data.clone()),
    "parameter replaced": lambda model: setattr(model[6], "bias", nn.Parameter(torch.zeros(40))),
    "module replaced": lambda model: model.__setitem__(8, nn.Linear(40, 10)),
    "another precision": lambda model: model.double(),
    "statistics updated": lambda model: model.train()(torch.randn(2, 1, 8, 8)),
    "parametrized": lambda model: parametrize.register_parametrization(model[6], "weight", Halved()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_changed_after_compiling_is_noticed_at_the_next_call(change: str) -> None:
    model = convolutional()
    program, x = run.compile(model, torch.randn(1, 1, 8, 8)), torch.randn(2, 1, 8, 8)
    program(x)
    CHANGES[change](model)
    with pytest.raises(EngineError, match="Compile again"):
        program(x)


def test_evaluating_and_moving_between_training_and_evaluation_is_no_change() -> None:
    model = convolutional()
    program, x = run.compile(model, torch.randn(1, 1, 8, 8)), torch.randn(2, 1, 8, 8)
    model.train().eval()(x)
    program(x)


def test_4_threads_may_call_one_program() -> None:
    model = convolutional()
    program = run.compile(model, torch.randn(4, 1, 8, 8))
    inputs = [torch.randn(1 + i % 5, 1, 8, 8) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(program, inputs))
    for x, y in zip(inputs, answers, strict=True):
        torch.testing.assert_close(y, model(x).detach(), rtol=1e-4, atol=1e-6)


def test_compiling_leaves_the_example_the_flags_the_weights_and_the_threads_as_they_were() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 4), nn.Dropout(), nn.BatchNorm1d(4).eval())
    x = torch.randn(3, 8)
    before, threads, state = (
        x.clone(),
        torch.get_num_threads(),
        [p.clone() for p in model.state_dict().values()],
    )
    run.compile(model, x, threads=2)
    assert torch.equal(x, before)
    assert torch.get_num_threads() == threads
    assert [module.training for module in model] == [True, True, True, False]
    assert all(map(torch.equal, model.state_dict().values(), state))
