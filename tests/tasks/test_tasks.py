"""Built-in tasks, the training loop behind them, and tasks from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TRAIN, Tiny
from torch import nn

from zeroskip import tasks
from zeroskip.concepts import TrainState
from zeroskip.errors import DataError, TaskError
from zeroskip.models import LeNet300100
from zeroskip.tasks import training


def trained(seed: int = 0, **keywords: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = Tiny().model()
    Tiny().train(model, **keywords)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_learns() -> None:
    assert Tiny().evaluate(trained(epochs=20)) < 0.1 < Tiny().evaluate(Tiny().model())


def test_training_repeats_exactly_with_the_same_seed_and_only_then() -> None:
    assert same(trained(7), trained(7))
    assert not same(trained(7), trained(8))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_training_resumed_after_any_epoch_equals_training_without_a_stop(stop: int) -> None:
    states: list[TrainState] = []
    whole = trained(on_epoch=lambda done, total, state: states.append(state))
    torch.manual_seed(99)  # the state brings its own random numbers
    resumed = Tiny().model()
    Tiny().train(resumed, resume=states[stop - 1])
    assert same(whole, resumed)


def test_the_learning_rate_is_a_cosine_or_whatever_function_is_given() -> None:
    seen: list[float] = []

    def watch(step: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
        assert steps == 16
        seen.append(optimizer.param_groups[0]["lr"])

    trained(learning_rate=0.2, on_step=watch)
    assert seen[0] == 0.2
    assert seen[8] == pytest.approx(0.1)
    assert seen == sorted(seen, reverse=True)
    seen.clear()
    trained(learning_rate=lambda step: step / 100, on_step=watch)
    assert seen == [step / 100 for step in range(16)]


def test_on_step_sees_gradients_before_the_update() -> None:
    model = Tiny().model()

    def stop_learning(*_: object) -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Tiny().train(model, on_step=stop_learning, weight_decay=0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_label_smoothing_is_torch_s() -> None:
    model = Tiny().model()
    ours = training.cross_entropy(label_smoothing=0.1)(model, TRAIN.inputs, TRAIN.targets)
    theirs = nn.CrossEntropyLoss(label_smoothing=0.1)(model(TRAIN.inputs), TRAIN.targets)
    torch.testing.assert_close(ours, theirs)


def test_input_noise_moves_the_inputs_by_its_standard_deviation() -> None:
    seen = training.jittered(TRAIN.inputs, noise=0.5)
    assert float((seen - TRAIN.inputs).std()) == pytest.approx(0.5, rel=0.1)  # 1,600 values


def test_a_shift_moves_whole_images_by_at_most_1_pixel_and_lets_zeros_in() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    seen = training.jittered(image.repeat(500, 1, 1, 1), shift=1)
    places = seen.sum(dim=(0, 1))
    assert (seen.sum(dim=(1, 2, 3)) == 1).all()
    assert (places[1:4, 1:4] > 30).all(), "nine places, 55 images each on average"
    assert places.sum() == places[1:4, 1:4].sum()
    corner = torch.ones(200, 1, 5, 5)
    assert training.jittered(corner, shift=1).sum(dim=(1, 2, 3)).unique().tolist() == [16, 20, 25]


def test_bfloat16_training_ends_near_float32_and_leaves_float32_weights() -> None:
    def trained(precision: training.TrainingPrecision) -> nn.Module:
        torch.manual_seed(0)
        model = Tiny().model()
        Tiny().train(model, epochs=10, precision=precision)
        return model

    full, mixed = trained("32-true"), trained("bf16-mixed")
    assert all(tensor.dtype == torch.float32 for tensor in mixed.state_dict().values())
    assert not torch.equal(full[0].weight, mixed[0].weight)  # type: ignore[index]
    assert training.classification_error(mixed, TRAIN) <= training.classification_error(full, TRAIN) + 0.05


def test_the_error_counts_wrong_answers_over_odd_sized_batches() -> None:
    model = Tiny().model()
    wrong = (model(TRAIN.inputs).argmax(1) != TRAIN.targets).float().mean().item()
    assert training.classification_error(model, TRAIN) == pytest.approx(wrong)
    assert sum(len(inputs) for inputs, _ in training.batches(TRAIN, 33)) == 200


def test_digits_has_the_four_functions_and_the_optional_ones() -> None:
    task = tasks.load("digits")
    assert isinstance(task.model(), LeNet300100)
    assert task.model().fc1.weight.shape == (300, 64)
    assert task.batch().shape == (64, 1, 8, 8)
    assert tasks.digits.split_sizes() == {"train": 1077, "validation": 360, "test": 360}
    assert sum(len(targets) for _, targets in tasks.digits.batches()) == 360


def test_digits_conv_is_a_small_lenet_5_that_runs_on_8x8() -> None:
    model = tasks.digits_conv.model()
    assert [tuple(p.shape) for n, p in model.named_parameters() if n.endswith("weight")] == [
        (20, 1, 3, 3), (50, 20, 3, 3), (120, 200), (10, 120),
    ]  # fmt: skip
    assert model(tasks.digits_conv.batch()).shape == (64, 10)


def test_digits_trained_briefly_beats_guessing_by_far() -> None:
    torch.manual_seed(0)
    model = tasks.digits.model()
    tasks.digits.train(model, epochs=5)
    assert tasks.digits.evaluate(model) < 0.15


@pytest.mark.real_data
def test_mnist_trained_for_one_epoch_is_below_six_percent(mnist_folder: Path) -> None:
    torch.manual_seed(0)
    model = tasks.mnist.model()
    tasks.mnist.train(model, epochs=1)
    assert tasks.mnist.evaluate(model) < 0.06


def test_mnist_without_its_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(DataError, match="mnist"):
        tasks.load("mnist-conv").batch()


GOOD = """
import neighbour
def model(): return 1
def train(model): pass
def evaluate(model): return neighbour.ERROR
def batch(): return 2
"""


def test_a_file_with_the_four_functions_is_a_task_and_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("ERROR = 0.25")
    (tmp_path / "mine.py").write_text(GOOD)
    assert tasks.load(str(tmp_path / "mine.py")).evaluate(None) == 0.25


LATE = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Options:
    rate: float = 0.5
def model():
    import later_neighbour
    return later_neighbour.WIDTH
def train(model): pass
def evaluate(model): return Options().rate
def batch(): return 2
"""


def test_a_file_may_hold_dataclasses_and_import_its_neighbours_late(tmp_path: Path) -> None:
    (tmp_path / "later_neighbour.py").write_text("WIDTH = 7")
    (tmp_path / "late.py").write_text(LATE)
    task = tasks.load(str(tmp_path / "late.py"))
    assert (task.model(), task.evaluate(None)) == (7, 0.5)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def model(): pass", r"has no train\(\) and no evaluate\(\) and no batch\(\). A task needs"),
        ("import math\nx = math.sqrt(-1)", r"fails when it is run: ValueError: math domain error \(line 2\)"),
        ("raise SystemExit(0)", "fails when it is run: SystemExit"),
        ("def model(:", "fails when it is run: SyntaxError"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(TaskError, match=words):
        tasks.load(str(tmp_path / "mine.py"))


def test_an_unknown_word_lists_the_tasks_there_are() -> None:
    with pytest.raises(
        TaskError, match='there is no task "digit". Use one of digits, digits-conv, mnist, mnist-conv'
    ):
        tasks.load("digit")


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0")
    with pytest.raises(TaskError, match="is not a Python file"):
        tasks.load(str(tmp_path / "weights.bin"))
