"""torch.compile(model, backend="zeroskip"): the same answers as eager, from a program where one can give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from drawn import sparse_
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from zeroskip import run
from zeroskip.models import LeNet5, resnet20
from zeroskip.run import Program, torch_compile
from zeroskip.run.convolution.tiles.kernels import STREAMED
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.zero_weights import sell

Programs = list[Program]


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """The programs that the backend makes, in the order in which it makes them."""
    made: Programs = []
    true = torch_compile.compile

    def compile(*given: Any, **options: Any) -> Program:
        made.append(true(*given, **options))
        return made[-1]

    monkeypatch.setattr(torch_compile, "compile", compile)
    return made


def fast(model: Callable[..., Any], **keywords: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="zeroskip", **keywords)


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def small() -> nn.Module:
    return sparse_(
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(216, 5)
        )
    )


IMAGES = (1, 8, 8)


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


class Broken(nn.Module):
    """Python decides between two halves: a graph each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.relu() if float(y.sum()) > 0 else y.tanh())


class Layered(nn.Module):
    """One layer, and what a function makes of input and output."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.finish = nn.Linear(8, 8), finish

    def forward(self, x: Tensor) -> Any:
        return self.finish(x, self.layer(x))


FEW = {"kernels": (pytorch.KERNEL, sell.KERNEL, STREAMED)}  # to be quick


@pytest.mark.parametrize(("make", "shape"), [(LeNet5, (1, 28, 28)), (small, IMAGES)])
def test_networks_answer_as_eager_for_batches_of_1_2_5_and_0_with_two_programs(
    make: Callable[[], nn.Module], shape: tuple[int, ...], programs: Programs
) -> None:
    model = sparse_(make())
    ours = fast(model, options=FEW)
    with torch.no_grad():
        for batch in (1, 2, 5, 0):
            x = torch.randn(batch, *shape)
            same(ours(x), model(x))
    # torch.compile makes one graph for the first batch, and one for all the others; and one for none.
    assert [program.batch for program in programs] == [1, 2]


def test_resnet20_answers_as_eager(programs: Programs) -> None:
    model, x = sparse_(resnet20()), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        same(fast(model, options=FEW)(x), model(x))
    assert len(programs[0].choices) == 22


def plain() -> nn.Module:
    """Without batch norm and dropout, whose numbers dynamic=True makes inputs of."""
    return sparse_(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)))


def test_with_a_dynamic_batch_one_program_serves_all_sizes(programs: Programs) -> None:
    model = plain()
    ours = fast(model, dynamic=True)
    with torch.no_grad():
        for batch in (3, 2, 9):
            x = torch.randn(batch, *IMAGES)
            same(ours(x), model(x))
    assert [program.batch for program in programs] == [3]


def step(model: Any) -> None:
    with torch.enable_grad():
        model(torch.randn(2, *IMAGES)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def trained() -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in small().state_dict().items()}


def another_weight(model: Any) -> None:
    model[5].weight = nn.Parameter(torch.randn(5, 216))


def swapped(model: Any) -> None:
    for value in (3.0, 4.0):  # the second may come to lie where the first weight was
        model[5].weight.data = torch.full((5, 216), value)


CHANGES: dict[str, Callable[[Any], object]] = {
    "optimizer": step,
    "copy_": lambda model: model[0].weight.copy_(torch.randn(6, 1, 3, 3)),
    "load_state_dict": lambda model: model.load_state_dict(trained()),
    "another parameter": another_weight,
    "another .data": swapped,
    "statistics": lambda model: model[1].running_mean.add_(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_compiled_again_once_and_answers_are_never_old(
    change: str, programs: Programs
) -> None:
    model, x = small(), torch.randn(2, *IMAGES)
    ours = fast(model)
    with torch.no_grad():
        before = ours(x)
        CHANGES[change](model)
        same(ours(x), model(x))
        assert not torch.allclose(before, ours(x))
    assert len(programs) == 2


class Remembering(nn.Module):
    """Replaces a tensor of its own at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.before = nn.Linear(8, 8), torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) + self.before
        self.before = y[0].clone()
        return y


def test_weights_that_change_at_every_call_are_left_to_pytorch_after_3_programs(programs: Programs) -> None:
    ours, theirs = sparse_(Remembering()), sparse_(Remembering())
    theirs.load_state_dict(ours.state_dict())
    compiled, x = fast(ours), torch.randn(2, 8)
    with torch.no_grad():
        for number in range(6):
            with pytest.warns(UserWarning, match="change at every call") if number == 3 else nullcontext():
                same(compiled(x), theirs(x))
    assert len(programs) == 3


def test_pruned_networks_with_masks_as_parametrizations_are_compiled(programs: Programs) -> None:
    model, x = Layered(lambda x, y: y.relu()), torch.randn(2, 8)
    parametrize.register_parametrization(model.layer, "weight", Masked())
    with torch.no_grad():
        ours = fast(model)
        same(ours(x), model(x))
        assert programs[0].choices[0].sparsity == 0.5
        model.layer.parametrizations["weight"][0].mask.logical_not_()
        same(ours(x), model(x))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(8) % 2 == 0)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_a_graph_break_makes_two_programs(programs: Programs) -> None:
    model = sparse_(Broken())
    ours = fast(model)
    with torch.no_grad():
        x = torch.randn(3, 8)
        same(ours(x), model(x))
    assert [program.choices[0].weight_shape for program in programs] == [(8, 8), (4, 8)]


def test_several_outputs_of_any_form_are_given_back(programs: Programs) -> None:
    model = sparse_(Layered(lambda x, y: {"y": y.exp(), "more": (y + x, 3, len(x)), "none": None}))
    with torch.no_grad():
        x = torch.randn(4, 8)
        ours, theirs = fast(model)(x), model(x)
    same(ours, theirs)
    assert ours["more"][1:] == (3, 4)
    assert len(programs) == 1


def test_layers_are_named_after_their_modules(programs: Programs) -> None:
    layer = nn.Linear(8, 8)
    model = nn.Sequential(layer, nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)), layer)
    with torch.no_grad():
        fast(sparse_(model))(torch.randn(2, 8))
    assert [choice.layer for choice in programs[0].choices] == [
        "0_weight",
        "1_0_weight",
        "1_1_weight",
        "0_weight",
    ]


def test_options_go_to_run_compile(programs: Programs) -> None:
    model, x = small(), torch.randn(2, *IMAGES)
    with torch.inference_mode():
        same(fast(model, options={"strict": True, "threads": 2})(x), model(x))
    assert (programs[0].precision, programs[0].threads) == ("fp32, strict", 2)


def test_eight_bits_are_left_to_pytorch_with_what_to_do_instead(programs: Programs) -> None:
    model, x = small(), torch.randn(2, *IMAGES)
    ours = fast(
        model, options={"precision": "int8", "quantisation": run.calibrate(model, [x], method="min-max")}
    )
    with (
        torch.inference_mode(),
        pytest.warns(UserWarning, match=r"eight bits need .* run.compile\(model, example"),
    ):
        assert torch.equal(ours(x), model(x))
    assert not programs


def test_4_threads_share_one_program_and_compile_a_changed_one_once(programs: Programs) -> None:
    model = plain()
    ours = fast(model, dynamic=True)
    inputs = [torch.randn(2 + number % 4, *IMAGES) for number in range(24)]

    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            return ours(x)

    call(inputs[0])
    with torch.no_grad():
        model[3].weight.mul_(2)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, inputs))
    for x, y in zip(inputs, answers, strict=True):
        same(y, model(x).detach())
    assert len(programs) == 2


def test_pixelwise_inputs_give_outputs_in_the_layout_that_eager_has(programs: Programs) -> None:
    model = sparse_(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        ours, theirs = fast(model)(x), model(x)
    same(ours, theirs)
    assert ours.stride() == theirs.stride()
    assert len(programs) == 1


def test_a_graph_without_weights_stays_with_pytorch_in_silence(programs: Programs) -> None:
    x = torch.randn(3)
    assert torch.equal(fast(lambda x: x * 2)(x), x * 2)
    assert programs == []


def norm_in_training() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).train()


LEFT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "statistics": (norm_in_training, "overwrites its inputs, or its statistics"),
    "random": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout()).train(), "draws random numbers"),
    "input overwritten": (lambda: Layered(lambda x, y: y + x.relu_()), "overwrites its inputs"),
    "view of the input": (lambda: Layered(lambda x, y: (y, x.view(-1))), "share memory"),
    "views of each other": (lambda: Layered(lambda x, y: (y, y.view(-1))), "share memory"),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_program_could_not_repeat_runs_in_eager_and_leaves_the_same_traces(
    what: str, programs: Programs
) -> None:
    make, reason = LEFT[what]
    model, x = make(), torch.randn(4, 8)
    ours, mine = fast(model), x.clone()
    twin, theirs = make(), x.clone()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match=f"leaves a graph to PyTorch.*{reason}"):
            answer = ours(mine)
        second = ours(mine)  # without a word
        torch.manual_seed(0)
        same((answer, second), (twin(theirs), twin(theirs)))
    same((mine, model.state_dict()), (theirs, twin.state_dict()))
    assert programs == []


def test_training_is_left_to_pytorch_and_gets_its_gradients(programs: Programs) -> None:
    model, x = small().train(), torch.randn(2, *IMAGES)
    with pytest.warns(UserWarning, match=r"its answers carry gradients.*torch\.no_grad\(\)"):
        fast(model)(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert programs == []


def test_gradients_asked_for_later_are_not_lost(programs: Programs) -> None:
    model, x = small().requires_grad_(False), torch.randn(2, *IMAGES)
    ours = fast(model)
    same(ours(x), model(x))
    assert len(programs) == 1
    model.requires_grad_(True)
    with pytest.warns(UserWarning, match="carry gradients"):
        ours(x).sum().backward()
    assert model[0].weight.grad is not None
    with pytest.warns(UserWarning, match="carry gradients"):
        assert ours(x.clone().requires_grad_()).requires_grad


def test_two_inputs_and_other_numbers_of_examples_are_one_program(programs: Programs) -> None:
    model = Two()
    ours = fast(model, dynamic=True)
    with torch.no_grad():
        for count in (3, 5):
            x, y = torch.randn(count, 8), torch.randn(count, 6)
            same(ours(x, y), model(x, y))
    assert len(programs) == 1


class Sentences(nn.Module):
    """A network of tokens and a mask, both of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return (self.layer(self.table(tokens)) * mask[:, :, None]).sum(1)


def test_integers_and_masks_of_several_lengths_are_programs_too(programs: Programs) -> None:
    model = sparse_(Sentences())
    ours = fast(model, dynamic=True)
    with torch.no_grad():
        for length in (5, 7, 5):
            tokens, mask = torch.randint(9, (3, length)), torch.rand(3, length) < 0.7
            same(ours(tokens, mask), model(tokens, mask))
    assert [len(program.networks) for program in programs] == [2]


def test_an_answer_without_an_entry_for_each_example_is_computed_for_each_number_of_them(
    programs: Programs,
) -> None:
    ours, x = fast(model := Layered(lambda x, y: y.view(4, 8).sum())), torch.randn(4, 8)
    with torch.no_grad():
        same(ours(x), model(x))
    assert len(programs) == 1


def test_numbers_of_examples_that_a_network_refuses_are_tried_in_silence(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = fast(model := Layered(lambda x, y: torch.cat([y, torch.zeros(len(y), 8)], 1)))
    x = torch.randn(4, 8)
    with torch.no_grad():
        same(ours(x), model(x))
    assert len(programs) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_numbers_that_vary_besides_the_input_are_left_to_pytorch(programs: Programs) -> None:
    layer, x = nn.Linear(8, 4).requires_grad_(False), torch.randn(3, 8)
    ours = fast(lambda x, number: layer(x) * number, dynamic=True)
    with pytest.warns(UserWarning, match="If that is due to dynamic=True"):
        same(ours(x, 4), layer(x) * 4)
    same(ours(x, 5), layer(x) * 5)
    assert programs == []


def test_sizes_among_the_answers_are_left_to_pytorch(programs: Programs) -> None:
    ours = fast(Layered(lambda x, y: (y, x.shape[0] * 2)), dynamic=True)
    with torch.no_grad():
        with pytest.warns(UserWarning, match="something besides tensors"):
            assert ours(torch.randn(3, 8))[1] == 6
        assert ours(torch.randn(5, 8))[1] == 10


def test_autocast_is_left_to_pytorch(programs: Programs) -> None:
    model, x = small(), torch.randn(2, *IMAGES)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with pytest.warns(UserWarning, match="torch.autocast"):
            ours = fast(model)(x)
        assert ours.dtype is model(x).dtype is torch.bfloat16


def test_images_of_more_sizes_than_allowed_are_left_to_pytorch_and_the_others_are_not(
    programs: Programs,
) -> None:
    model = sparse_(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    ours = fast(model, dynamic=True, options={"sizes": 2})
    first, second, third = (torch.randn(2, 3, size, size + 1) for size in (8, 9, 10))
    with torch.no_grad():
        same(ours(first), model(first))
        same(ours(second), model(second))
        with pytest.warns(UserWarning, match="an input is not like the first one.*compiled for 2 sizes"):
            same(ours(third), model(third))
        same(ours(first), model(first))
    assert [len(program.networks) for program in programs] == [2]


def test_functional_networks_work_as_modules_do(programs: Programs) -> None:
    layer = nn.Linear(8, 4).requires_grad_(False)
    layer.weight[0].zero_()
    x = torch.randn(3, 8)
    same(fast(lambda x: functional.relu(layer(x)))(x), functional.relu(layer(x)))
    assert len(programs) == 1
