"""run.compare: every engine on the same batch, the slow one and the broken one, and the network as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from drawn import HERE, sparse_
from torch import nn

from zeroskip import run
from zeroskip.errors import EngineError
from zeroskip.graph import Inputs
from zeroskip.run.comparison import ENGINES, all_dense, channels_last, eager


def convolutional() -> nn.Sequential:
    return sparse_(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)))


def broken(model: nn.Module, batch: Inputs) -> Callable[[], Any]:
    raise RuntimeError("no working C++ compiler\nand a page of details")


def wrong(model: nn.Module, batch: Inputs) -> Callable[[], Any]:
    return lambda: model(*batch.args) + 1


QUICK = {"torch eager": eager, "torch channels_last": channels_last}
BATCH = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return convolutional()


@pytest.fixture(scope="module")
def program(model: nn.Sequential) -> run.Program:
    return run.compile(model, BATCH)


def test_every_engine_is_measured_and_agrees_with_the_network(
    program: run.Program, model: nn.Sequential
) -> None:
    timing = run.compare(program, model, BATCH, runs=3, rounds=2, engines=QUICK)
    assert set(timing.seconds) == {"torch eager", "torch channels_last", "zeroskip"}
    for name, seconds in timing.seconds.items():
        low, high = timing.spread[name]
        assert 0 < low <= seconds <= high
        assert timing.max_difference[name] < 1e-5
    assert (timing.batch, timing.threads, timing.precision, timing.machine) == (4, 1, "fp32", HERE.title)
    assert (timing.runs, timing.rounds, timing.skipped) == (3, 2, {})
    assert timing.speedup == min(timing.seconds[name] for name in QUICK) / timing.seconds["zeroskip"]


def test_an_engine_that_fails_or_computes_something_else_is_skipped_with_the_reason(
    program: run.Program, model: nn.Sequential
) -> None:
    engines = {"torch eager": eager, "broken": broken, "wrong": wrong}
    timing = run.compare(program, model, BATCH, runs=1, rounds=1, engines=engines)
    assert set(timing.seconds) == {"torch eager", "zeroskip"}
    assert timing.skipped["broken"] == "no working C++ compiler"
    assert "differs from the network's by 1," in timing.skipped["wrong"]


def test_channels_last_has_nothing_to_lay_out_without_convolutions() -> None:
    model = sparse_(nn.Linear(6, 4))
    batch = torch.randn(2, 6)
    timing = run.compare(run.compile(model, batch), model, batch, runs=1, rounds=1, engines=QUICK)
    assert "no 2-d convolution" in timing.skipped["torch channels_last"]


def test_a_program_of_another_network_is_an_error(program: run.Program) -> None:
    torch.manual_seed(3)
    with pytest.raises(EngineError, match="differs from the network's"):
        run.compare(program, convolutional(), BATCH, runs=1, rounds=1, engines=QUICK)


def test_a_program_that_cannot_run_the_batch_is_an_error(program: run.Program) -> None:
    other = sparse_(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()))
    with pytest.raises(EngineError, match=r"the network itself refuses \(batch, 1, 9, 9\)"):
        run.compare(program, other, torch.randn(4, 1, 9, 9), engines=QUICK)


@pytest.mark.parametrize("keywords", [{"runs": 0}, {"rounds": 0}, {"threads": 0}])
def test_measuring_nothing_is_refused(
    keywords: dict[str, int], program: run.Program, model: nn.Sequential
) -> None:
    with pytest.raises(EngineError, match="least one|threads"):
        run.compare(program, model, BATCH, engines=QUICK, **keywords)


def test_the_network_its_layout_its_flags_and_the_threads_come_back_as_they_were() -> None:
    model = convolutional()
    program = run.compile(model, BATCH)
    model.train()
    model[2].eval()
    state, threads = copy.deepcopy(model.state_dict()), torch.get_num_threads()
    run.compare(program, model, BATCH, threads=threads + 1, runs=1, rounds=1, engines=QUICK)
    assert [module.training for module in model] == [True, True, False, True]
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not model[0].weight.is_inference()
    assert model[0].weight.stride() == state["0.weight"].stride()


def test_progress_names_each_engine_and_ends_with_all_runs_done(
    program: run.Program, model: nn.Sequential
) -> None:
    steps: list[tuple[str, int, int]] = []
    run.compare(
        program,
        model,
        BATCH,
        runs=2,
        rounds=1,
        engines=QUICK,
        progress=lambda what, done, total: steps.append((what, done, total)),
    )
    assert steps == [
        ("preparing torch eager", 0, 3),
        ("preparing torch channels_last", 1, 3),
        ("preparing zeroskip", 2, 3),
        ("timing", 0, 2),
        ("timing", 1, 2),
        ("timing", 2, 2),
    ]


def test_torch_compile_is_given_a_copy_of_the_network_and_this_batch_size(
    program: run.Program, model: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[nn.Module, dict[str, Any]]] = []
    monkeypatch.setattr(torch, "compile", lambda copied, **options: given.append((copied, options)) or copied)
    timing = run.compare(program, model, BATCH, runs=1, rounds=1)
    assert set(timing.seconds) == {*ENGINES, "zeroskip"}
    ((copied, options),) = given
    assert copied is not model
    assert options == {"dynamic": False}


@pytest.mark.slow  # the first compilation in a fresh cache takes 15 s
def test_torch_compile_takes_part_or_is_skipped_for_a_reason_and_says_nothing(
    program: run.Program, model: nn.Sequential, capfd: pytest.CaptureFixture[str]
) -> None:
    timing = run.compare(program, model, BATCH, runs=1, rounds=1)
    assert {*timing.seconds, *timing.skipped} == {*ENGINES, "zeroskip"}
    assert timing.skipped.get("torch.compile", "ran") != ""
    assert capfd.readouterr() == ("", "")


def test_a_program_that_skips_nothing_is_no_peer_but_shows_what_zeros_gain() -> None:
    model = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0.0
    batch = torch.randn(4, 64)
    call = all_dense(model, Inputs((batch,), {}))
    assert {choice.kernel for choice in call.func.choices} == {"dense"}
    timing = run.compare(
        run.compile(model, batch),
        model,
        batch,
        runs=1,
        rounds=1,
        engines={"torch eager": eager, "zeroskip, all dense": all_dense},
    )
    assert timing.dense_engine == "torch eager"
    assert timing.seconds["zeroskip, all dense"] > 0
