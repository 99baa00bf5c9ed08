"""Networks that pack sequences of given lengths as programs: other lengths and batches, saved, and lengths refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from run.recurrent.operations import assert_close, sparse
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zeroskip import run
from zeroskip.errors import EngineError, ModelError
from zeroskip.run.recurrent.kernels import SPMV


class Tagger(nn.Module):
    """Both ways through sequences in any order; scores of each step, and the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 17, batch_first=True, bidirectional=True)
        self.drop, self.head = nn.Dropout(), nn.Linear(34, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        steps, (h, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        steps = steps._replace(data=self.head(self.drop(steps.data)))
        return pad_packed_sequence(steps, batch_first=True, padding_value=-1.0)[0], h[-1]


class Sorted(nn.Module):
    """The last state of sequences, the longest first."""

    def __init__(self, lengths: list[int] | None = None) -> None:
        super().__init__()
        self.gru, self.lengths = nn.GRU(6, 5, batch_first=True), lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.gru(pack_padded_sequence(x, self.lengths or lengths, batch_first=True))[1][0]


def sentences(lengths: list[int], steps: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(len(lengths), steps, 6), torch.tensor(lengths, dtype=torch.int64)


@cache
def tagger() -> tuple[nn.Module, run.Program]:
    model = sparse(Tagger())
    return model, run.compile(model, sentences([2, 4, 1]), kernels=[SPMV[0]])


def test_a_program_answers_as_the_network_for_all_lengths_and_batches_also_from_a_file(
    tmp_path: Path,
) -> None:
    model, program = tagger()
    assert [choice.layer for choice in program.choices][:2] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert program.unreached == ()
    loaded = run.load(run.save(program, tmp_path / "tagger.program"))
    for lengths in ([3], [1, 2, 1], [4, 4, 4], [1, 2, 3, 4, 3, 2, 1] * 3):
        given = sentences(lengths)
        assert_close(program(*given), model(*given))
        assert all(map(torch.equal, loaded(*given), program(*given)))


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([2, 0, 1], "length 0 cannot be packed: lengths go from 1 to 4"),
        ([2, -1, 1], "length -1"),
        ([2, 5, 1], "length 5"),
        ([], "one sequence at least"),
    ],
)
def test_lengths_are_looked_at_in_every_call(lengths: list[int], words: str) -> None:
    model, program = tagger()
    given = sentences(lengths)
    with pytest.raises(EngineError, match=words):
        program(*given)
    with pytest.raises((RuntimeError, IndexError)):
        model(*given)


def test_an_example_with_an_empty_sequence_is_refused_in_the_words_of_pytorch() -> None:
    with pytest.raises(ModelError, match="greater than 0"):
        run.compile(tagger()[0], sentences([2, 0, 1]))


def test_sequences_that_must_descend_do_so_or_are_refused() -> None:
    model = sparse(Sorted())
    program = run.compile(model, sentences([4, 3, 1]), kernels=[SPMV[0]])
    given = sentences([4, 4, 2, 1])
    assert_close(program(*given), model(*given))
    with pytest.raises(EngineError, match="must descend, and are 1, 4, 2"):
        program(*sentences([1, 4, 2]))


def test_lengths_of_the_network_itself_are_those_of_one_batch() -> None:
    model, (x, _) = sparse(Sorted([4, 3, 1])), sentences([4, 3, 1])
    program = run.compile(model, x, kernels=[SPMV[0]])
    assert_close(program(x), model(x))
    with pytest.raises(EngineError, match="network itself refuses"):
        program(x[:2])
