"""The ImageNet tasks: found by name, streamed from a folder, trained as the papers did, resumable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from zeroskip import task_api, tasks
from zeroskip.concepts import TrainState
from zeroskip.data import imagenet
from zeroskip.data.imagenet import Preprocess
from zeroskip.errors import DataError
from zeroskip.models import VGG16, AlexNet, AlexNetCaffe, SqueezeNet10
from zeroskip.tasks.imagenet import linear, staircase, top_errors

SMALL = Preprocess(crop=8, order="RGB", mean=(127.5,) * 3, std=(127.5,) * 3, resize=9)
COLOURS = np.array([(230, 40, 40), (40, 230, 40), (40, 40, 230)])


def network() -> nn.Module:
    """Classes are colours: a mean over the picture and one linear layer suffice."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4, 6)
    )


TASK = tasks.ImageNet(
    "tiny", network, SMALL, epochs=3, batch_size=8, learning_rate=0.1, weight_decay=1e-4, schedule=linear
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three classes of noisy colours, 12 training and 5 validation pictures each, as ZEROSKIP_DATA/imagenet."""
    noise, root = np.random.default_rng(0), tmp_path / "imagenet"
    for part, count in (("train", 12), ("val", 5)):
        for wnid, colour in zip(("n1", "n2", "n3"), COLOURS, strict=True):
            (root / part / wnid).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + noise.normal(0, 30, (10, 12, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / wnid / f"{index}.JPEG")
    (root / "classes.csv").write_text("class_index,wnid\n0,n1\n1,n2\n2,n3\n")
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    imagenet._load.cache_clear()
    yield tmp_path
    imagenet._load.cache_clear()


def trained(**keywords: Any) -> nn.Module:
    torch.manual_seed(0)
    model = TASK.model()
    TASK.train(model, **keywords)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("word", "kind", "crop"),
    [
        ("alexnet-caffe", AlexNetCaffe, 227),
        ("alexnet", AlexNet, 224),
        ("vgg16", VGG16, 224),
        ("squeezenet", SqueezeNet10, 227),
    ],
)
def test_the_four_networks_are_tasks_by_name(word: str, kind: type[nn.Module], crop: int) -> None:
    task = tasks.load(word)
    assert isinstance(task, tasks.ImageNet)
    assert task.preprocess.crop == crop
    with torch.device("meta"):
        assert isinstance(task.model(), kind)


def test_a_task_has_the_four_functions_and_the_optional_ones(folder: Path) -> None:
    assert task_api.has_splits(TASK)
    assert task_api.split_sizes(TASK) == {"train": 33, "validation": 3, "test": 15}
    assert task_api.one_example(TASK) == pytest.approx(1 / 3)
    assert task_api.batch(TASK).shapes == ((3, 3, 8, 8),)
    assert sum(inputs.size for inputs in task_api.batches(TASK)) == 3
    assert task_api.model(TASK, TASK.model().state_dict())


def test_the_batch_is_spread_over_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty pictures in order of brightness, 16 in the batch: every second one."""
    for index in range(40):
        Image.new("RGB", (9, 9), (index, index, index)).save(tmp_path / f"{index}.png")
    every = imagenet.Pictures(tmp_path, tuple(f"{index}.png" for index in range(40)), torch.arange(40))
    monkeypatch.setattr(imagenet, "load", lambda: {"validation": every})
    levels = replace(TASK, preprocess=replace(SMALL, mean=(0.0,) * 3, std=(1.0,) * 3)).batch().amax((1, 2, 3))
    assert levels.tolist() == list(range(0, 32, 2))


def test_training_learns_colours_and_repeats_exactly(folder: Path) -> None:
    untrained = TASK.model()
    assert TASK.evaluate(untrained, "test") > 0.3
    assert TASK.evaluate(trained(epochs=20), "test") < 0.1
    assert same(trained(), trained())


@pytest.mark.parametrize("stop", [1, 2])
def test_training_resumed_after_any_epoch_equals_training_without_a_stop(folder: Path, stop: int) -> None:
    states: list[TrainState] = []
    whole = trained(on_epoch=lambda done, total, state: states.append(state))
    assert len(states) == 3
    torch.manual_seed(99)  # the state brings its own random numbers
    resumed = TASK.model()
    TASK.train(resumed, resume=states[stop - 1])
    assert same(whole, resumed)


def test_one_step_is_gradient_descent_with_momentum_and_decay_as_torch_has_it(folder: Path) -> None:
    torch.manual_seed(0)
    model = TASK.model()
    weight = model.get_parameter("4.weight")
    before = weight.detach().clone()
    gradients: list[torch.Tensor] = []

    def watch(step: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
        assert steps == 2
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
        if step == 0:
            assert torch.equal(weight, before)  # called before the update

    TASK.train(
        model, epochs=1, batch_size=17, learning_rate=lambda step: 0.1, weight_decay=0.5, on_step=watch
    )
    first = gradients[0] + 0.5 * before
    middle = before - 0.1 * first
    after = middle - 0.1 * (0.9 * first + gradients[1] + 0.5 * middle)
    torch.testing.assert_close(weight.detach(), after)


def test_the_loss_may_be_replaced(folder: Path) -> None:
    seen = []

    def loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return TASK.loss(model, inputs, targets)

    assert same(trained(epochs=1, loss=loss), trained(epochs=1))
    assert seen == [8, 8, 8, 8, 1]


def test_the_staircase_has_four_steps_and_the_line_ends_at_0() -> None:
    rates = [staircase(1.0, 8)(step) for step in range(8)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert [linear(0.04, 4)(step) for step in range(5)] == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.0])


def test_a_number_as_learning_rate_follows_the_task_s_schedule(folder: Path) -> None:
    seen: list[float] = []
    trained(
        epochs=2,
        learning_rate=0.5,
        on_step=lambda s, n, optimizer: seen.append(optimizer.param_groups[0]["lr"]),
    )
    assert seen == pytest.approx([0.5 * (1 - step / 10) for step in range(10)])


def test_top_errors_are_those_of_sorted_scores_over_odd_sized_batches() -> None:
    torch.manual_seed(0)
    scores, targets = torch.randn(50, 10), torch.randint(10, (50,))
    batches = zip(scores.split(7), targets.split(7), strict=True)
    ranks = (scores > scores.gather(1, targets[:, None])).sum(1)  # how many classes score higher
    wanted = tuple(float((ranks >= k).double().mean()) for k in (1, 3, 5))
    assert top_errors(nn.Identity(), batches, tops=(1, 3, 5)) == pytest.approx(wanted)


def test_without_a_folder_the_task_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(DataError, match="ImageNet is not part of the package"):
        tasks.alexnet.batch()


@pytest.mark.real_data
@pytest.mark.slow
def test_the_published_squeezenet_is_right_on_130_of_200_pictures_and_on_168_in_five_guesses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = Path(os.environ.get("ZEROSKIP_DATA", "absent"))
    file = parent / "weights" / "squeezenet_v10_deep_compression.safetensors"
    if not file.is_file() or not (parent / "imagenet_sample" / "labels.csv").is_file():
        pytest.skip("the 200 pictures or the weights are absent: set ZEROSKIP_DATA to their parent")
    model = task_api.model(tasks.squeezenet, load_file(file))
    imagenet._load.cache_clear()
    with pytest.warns(UserWarning, match="one set of 200 pictures"):
        errors = tasks.squeezenet.errors(model, "test")
    assert errors == (70 / 200, 32 / 200)
