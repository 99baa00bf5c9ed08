"""Networks with LSTM, GRU and RNN as programs: compiled, printed, saved, called with other sizes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from run.drawn import HERE
from run.recurrent.operations import assert_close, sparse
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Kernel, Precision
from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.run.dense import pytorch
from zeroskip.run.recurrent.kernels import KERNELS, SPMM, SPMV
from zeroskip.run.select.recurrent_timing import time_recurrent


class Classifier(nn.Module):
    """Two layers, both ways, and a head on the last step."""

    def __init__(self, layers: int = 2, bidirectional: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 17, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(34 if bidirectional else 17, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Decoder(nn.Module):
    """A GRU cell that runs three times on what it said itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 9), nn.Linear(9, 5)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(3):
            h = self.cell(x, h)
            x = self.head(h).softmax(1)
        return x, h


X = torch.randn(2, 3, 6)


@cache
def classifier() -> run.Program:
    return run.compile(sparse(Classifier()), X, kernels=[SPMV[0]])


def test_each_matrix_has_a_row_with_its_kernel_and_none_is_left_out() -> None:
    program = classifier()
    names = [choice.layer for choice in program.choices]
    assert names[:2] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert len(names) == 8 + 1
    assert program.unreached == ()
    assert all(set(choice.seconds) == {"dense", "spmv_fp32"} for choice in program.choices[:8])
    assert "lstm.weight_hh_l1_reverse  68x17" in str(program)
    shares = {choice.layer: choice.seconds["dense"] for choice in program.choices}
    assert shares["lstm.weight_hh_l0"] / shares["lstm.weight_ih_l0"] == pytest.approx(17 / 6)


@pytest.mark.parametrize("kernel", [SPMV[0], SPMM], ids=lambda kernel: kernel.name)
def test_a_program_answers_as_the_network_for_any_batch_and_another_number_of_steps(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = sparse(Classifier())
    only(kernel, monkeypatch)
    program = run.compile(model, X, examples=[torch.randn(1, 5, 6)], kernels=[kernel])
    assert {choice.kernel for choice in program.choices[:8]} == {kernel.name}
    loaded = run.load(run.save(program, tmp_path / "lstm.program"))
    for shape in ((1, 3, 6), (19, 3, 6), (0, 3, 6), (4, 5, 6)):
        x = torch.randn(shape)
        assert_close(program(x), model(x))
        assert torch.equal(loaded(x), program(x))
    first, other = (
        next(f for name, f in network.functions.items() if name.startswith("lstm"))
        for network in program.networks
    )
    assert first is other, "code and weights of all numbers of steps are the same"


def only(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let recurrent operations choose this kernel, and whole networks what was chosen."""
    from zeroskip.run.select import network_selection, recurrent_timing

    monkeypatch.setattr(
        recurrent_timing, "raced", lambda calls, *_: {name: float(name != kernel.name) for name in calls}
    )
    monkeypatch.setattr(
        network_selection, "raced", lambda calls, *_: {name: float(name == "dense") for name in calls}
    )


def test_a_decoder_that_unrolls_a_cell_names_its_matrices_once_for_each_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, given = sparse(Decoder()), (torch.randn(2, 5), torch.randn(2, 9))
    only(SPMV[0], monkeypatch)
    program = run.compile(model, given, kernels=[SPMV[0]])
    assert [choice.layer for choice in program.choices] == 3 * ["cell.weight_ih", "cell.weight_hh", "head"]
    assert_close(program(*given), model(*given))
    loaded = run.load(run.save(program, tmp_path / "decoder.program"))
    assert all(map(torch.equal, loaded(*given), program(*given)))
    explanation = program.explanation
    assert explanation is not None
    assert explanation.pieces == 6


def test_what_eager_refuses_is_refused_in_a_sentence() -> None:
    with pytest.raises(EngineError, match="one is empty"):
        classifier()(torch.zeros(2, 0, 6))
    decoder = run.compile(sparse(Decoder()), (torch.randn(2, 5), torch.randn(2, 9)), kernels=[SPMV[0]])
    with pytest.raises(EngineError, match="network itself refuses"):
        decoder(torch.zeros(2, 5), torch.zeros(2, 8))


def test_torch_compile_hands_over_an_lstm_where_it_follows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo  # when it is used: its import takes a second

    from zeroskip.run import torch_compile as backend

    seen: list[str] = []

    def compiled(*given: Any, **options: Any) -> run.Program:
        program = run.compile(*given, **options)
        seen.extend(choice.layer for choice in program.choices)
        return program

    monkeypatch.setattr(backend, "compile", compiled)
    model = sparse(Classifier())
    fast = torch.compile(model, backend=backend.zeroskip, options={"kernels": [SPMV[0]]})
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        assert_close(fast(X), model(X))
    assert "lstm_weight_hh_l1_reverse" in seen


def test_strict_and_fewer_bits_are_said_of_each_matrix() -> None:
    model = sparse(Classifier(1, bidirectional=False))
    strict = run.compile(model, X, strict=True)
    assert {choice.kernel for choice in strict.choices} == {"dense"}
    assert "strict was asked for" in strict.choices[0].refused["spmv_fp32"]
    few = run.compile(model, X, weights="int8", kernels=[SPMV[2]])
    assert few.choices[0].refused == {}
    assert {choice.error > 0 for choice in few.choices[:2]} == {few.choices[0].kernel == "spmv_int8"}


def test_a_kernel_that_differs_is_refused_and_the_others_race() -> None:
    from run.recurrent.operations import operation

    def wrong(*_: object) -> object:
        return lambda x: (torch.ones(3, 2, 4), torch.ones(1, 2, 4))

    odd = Kernel("odd", "odd", lambda *_: None, wrong, SPMM.reference, layout="steps")
    recurrent = operation(sparse(nn.GRU(5, 4)))
    asked = {"machine": HERE, "precision": Precision(), "kernels": [pytorch.KERNEL, odd, *KERNELS]}
    timing = time_recurrent(recurrent, torch.randn(3, 2, 5), **asked)
    assert "rounding grows" in timing.choice.refused["odd"]
    assert set(timing.choice.seconds) == {"dense", "spmv_fp32", "spmm_steps"}


def test_a_file_names_steps_for_recurrent_operations_only(tmp_path: Path) -> None:
    from zeroskip.run.kernels import BY_NAME

    assert {kernel.name for kernel in KERNELS} <= set(BY_NAME)
    layer = run.compile(nn.Linear(4, 3), torch.randn(2, 4), kernels=[]).origin.graph.nodes[0].layer
    for kernel in KERNELS:
        assert kernel.accepts(layer, detect(), Precision()) == "computes LSTM, GRU and RNN, not linear"
