"""Inputs of other sizes than the example's: compiled for once, by known kernels, within a bound, and saved."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.run import further_sizes
from zeroskip.run.convolution.tiles.kernels import STREAMED, STREAMED_FP16
from zeroskip.run.element import FP16
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.select import layer_timing, network_selection

KERNELS = [sell.KERNEL, STREAMED]


class Pictures(nn.Module):
    """Convolutions with batch norms, a mean over places, and a linear layer: pictures of any size go in."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = Pictures().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.mul_(torch.rand_like(parameter) < 0.4)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.weight.uniform_(0.5, 1.5)
    return made


def pictures(count: int, size: int) -> Tensor:
    return torch.randn(count, 1, size, size + 1)


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def prefer_(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Ways and kernels of these names are the fastest."""

    def raced(calls: Any, *_: Any, **__: Any) -> dict[str, float]:
        return {name: names.index(name) if name in names else 99.0 for name in calls}

    monkeypatch.setattr(layer_timing, "raced", raced)
    monkeypatch.setattr(network_selection, "raced", raced)


@pytest.mark.parametrize("way", ["tiles", "dense", "fastest"])
def test_a_picture_of_another_size_is_computed_by_the_same_kernels_and_nothing_is_timed(
    model: nn.Module, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_(monkeypatch, way, "sell")
    program = run.compile(model, pictures(2, 8), kernels=KERNELS)
    for module in (layer_timing, network_selection):
        monkeypatch.setattr(module, "raced", lambda *_: pytest.fail("it was timed again"))
    with pytest.warns(
        UserWarning,
        match=r"compiled for \(batch, 1, 8, 9\), and now also for \(batch, 1, 12, 13\).*examples=",
    ):
        same(program(x := pictures(3, 12)), model(x))
    first, second = (network.origin for network in program.networks)
    assert second.kernels == first.kernels
    assert second.tiles == first.tiles
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (8, 12, 9):
            same(program(x := pictures(2, size)), model(x))


def test_weights_and_functions_that_do_not_depend_on_the_size_are_in_memory_once(model: nn.Module) -> None:
    program = run.compile(model, pictures(1, 8), kernels=KERNELS, examples=[pictures(1, 12)])
    first, second = program.networks
    weights = [
        [node.layer.weight.data_ptr() for node in network.origin.graph.nodes if node.layer is not None]
        for network in program.networks
    ]
    assert weights[0] == weights[1]
    assert second.functions["linear"] is first.functions["linear"]


def test_more_sizes_than_the_bound_are_refused_and_the_sizes_there_are_named(model: nn.Module) -> None:
    program = run.compile(model, pictures(1, 8), kernels=KERNELS, examples=[pictures(1, 9)], sizes=2)
    reason = r"2 sizes, which is its bound.*\(batch, 1, 10, 11\).*\(batch, 1, 8, 9\) and \(batch, 1, 9, 10\)"
    with pytest.raises(EngineError, match=reason):
        program(pictures(1, 10))
    with pytest.raises(EngineError, match="which is its bound"):
        run.compile(
            model, pictures(1, 8), kernels=KERNELS, examples=[pictures(1, 9), pictures(1, 10)], sizes=2
        )
    same(program(x := pictures(4, 9)), model(x))


def test_a_size_that_the_network_refuses_is_refused_in_its_words() -> None:
    program = run.compile(nn.Linear(6, 3), torch.zeros(2, 6), kernels=[])
    with pytest.raises(
        EngineError, match=r"compiled for \(batch, 6\), and the network itself refuses \(batch, 7\): "
    ):
        program(torch.zeros(2, 7))
    assert len(program.networks) == 1


def test_a_network_that_was_changed_is_compiled_for_no_further_size(model: nn.Module) -> None:
    program = run.compile(model, pictures(1, 8), kernels=KERNELS)
    model.body[-1].weight.mul_(2)  # type: ignore[index, union-attr, operator]
    with pytest.raises(EngineError, match="was changed after it was compiled"):
        program(pictures(1, 9))


def test_8_threads_that_meet_a_new_size_at_once_compile_it_once(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = run.compile(model, pictures(1, 8), kernels=KERNELS)
    made: list[Any] = []
    true = further_sizes.resized
    monkeypatch.setattr(further_sizes, "resized", lambda *given: made.append(given) or true(*given))
    inputs = [pictures(1 + number % 3, 9) for number in range(16)]
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("ignore")
        answers = list(pool.map(program, inputs))
    for x, y in zip(inputs, answers, strict=True):
        same(y, model(x))
    assert len(made) == 1


def test_a_call_waits_while_another_thread_compiles_and_tensors_are_in_other_places(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, known = run.compile(model, pictures(1, 8), kernels=KERNELS), pictures(2, 8)
    true, layer = further_sizes.resized, model.body[-1]  # type: ignore[index, union-attr]
    weight = layer.weight
    calls = []

    def resized(*given: Any) -> Any:
        layer.weight = nn.Parameter(weight.detach().clone())  # as torch.export does
        calls.append(pool.submit(program, known))
        time.sleep(0.2)
        layer.weight = weight
        return true(*given)

    monkeypatch.setattr(further_sizes, "resized", resized)
    with ThreadPoolExecutor(1) as pool:
        program.add(pictures(1, 9))
        same(calls[0].result(), model(known))


class Large(nn.Module):
    """A sum over all places, which fp16 holds for small pictures only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) * x.shape[-1] ** 5
        return self.second(y)


def test_a_size_whose_numbers_fp16_cannot_hold_is_computed_in_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefer_(monkeypatch, "tiles in fp16")
    torch.manual_seed(0)
    model = Large().eval().requires_grad_(False)
    program = run.compile(model, torch.randn(1, 1, 4, 4), kernels=[STREAMED, STREAMED_FP16], precision="fp16")
    program.add(x := torch.randn(1, 1, 16, 16))
    on_tiles = [bool(network.origin.tiles) for network in program.networks]
    assert on_tiles == [FP16.is_readable(detect()), False]
    torch.testing.assert_close(program(x), model(x), rtol=0.02, atol=0.02 * float(model(x).abs().max()))


def test_all_sizes_are_saved_each_weight_once_and_others_are_refused(
    model: nn.Module, tmp_path: Path
) -> None:
    one = run.save(run.compile(model, pictures(1, 8), kernels=KERNELS), tmp_path / "one").stat().st_size
    program = run.compile(model, pictures(1, 8), kernels=KERNELS, examples=[pictures(1, 9), pictures(1, 12)])
    three = run.save(program, tmp_path / "three").stat().st_size
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    loaded = run.load(tmp_path / "three")
    for size in (8, 9, 12):
        x = pictures(2, size)
        assert torch.equal(loaded(x), program(x))
    assert three < 3 * (one - weights) + weights
    reason = r"was given \(batch, 1, 10, 11\).*from a file has no network.*examples=\[\.\.\.\]"
    with pytest.raises(EngineError, match=reason):
        loaded(pictures(1, 10))
    assert loaded.refusal(pictures(1, 10))


def test_an_object_of_a_class_comes_back_from_a_file_as_its_fields(tmp_path: Path) -> None:
    from run.test_several_inputs import FORMS, Returning

    model, x = Returning(FORMS["dataclass in a dict"]).eval().requires_grad_(False), torch.randn(2, 4)
    program = run.compile(model, x, kernels=[])
    loaded = run.load(run.save(program, tmp_path / "program"))
    result = loaded(x)["a"]
    assert torch.equal(result.logits, model(x)["a"].logits)
    assert (result.steps, result["steps"], loaded(x)["b"]) == (3, 3, "text")
