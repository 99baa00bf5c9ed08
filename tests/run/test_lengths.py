"""Sentences of any length: filled up where the network ignores that, else exact; results do not depend on padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from zeroskip import run
from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.graph import Input, capture
from zeroskip.graph.inputs import of
from zeroskip.graph.lengths import capture_lengths
from zeroskip.run import program as programs
from zeroskip.run.call_checks import converted
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import STREAMED
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.padding import TokenPadding, from_json, next_length, to_json
from zeroskip.run.padding_search import found_padding
from zeroskip.run.program import Program
from zeroskip.run.select import layer_timing, network_selection

WORDS, LONGEST, WIDTH = 20, 40, 16
KERNELS = [sell.KERNEL, STREAMED]


class Attending(nn.Module):
    """One layer of an encoder; `mask` is added to scores, or says which keys are seen."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        q, k, v = (each(x).unflatten(2, (2, 8)).transpose(1, 2) for each in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        x = self.norm(x + self.out(y.transpose(1, 2).flatten(2)))
        return x + self.down(F.gelu(self.up(x)))


class Sentences(nn.Module):
    """As the encoders that people download: ids, a mask (1 for tokens that are seen), and kinds of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.kinds, self.body, self.pooler = nn.Embedding(2, WIDTH), Attending(), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> dict[str, Tensor]:
        kinds = torch.zeros_like(ids) if kinds is None else kinds
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])) + self.kinds(kinds)
        hidden = (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
        x = self.body(x, hidden)
        return {"tokens": x, "sentence": self.pooler(x[:, 0]).tanh()}


def sparse(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter.mul_(torch.rand_like(parameter) < 0.5 if parameter.ndim > 1 else 1)
    return model


def sentences(count: int, length: int) -> dict[str, Tensor]:
    return {"ids": torch.randint(WORDS, (count, length)), "mask": torch.ones(count, length).long()}


def prefer_(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def raced(calls: Any, *_: Any, **__: Any) -> dict[str, float]:
        return {name: names.index(name) if name in names else 99.0 for name in calls}

    monkeypatch.setattr(layer_timing, "raced", raced)
    monkeypatch.setattr(network_selection, "raced", raced)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return sparse(Sentences())


@pytest.fixture(scope="module")
def program(model: nn.Module) -> Program:
    """On tiles, as networks whose zeros pay are."""
    with pytest.MonkeyPatch.context() as patched:
        prefer_(patched, "tiles")
        return run.compile(model, sentences(2, 8), kernels=KERNELS)


def lengths(program: Program) -> list[int]:
    return [network.origin.graph.inputs[0].shape[0] for network in program.networks]


def near(ours: Any, theirs: Any, share: float = 1e-6) -> None:
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=share * float(expected.abs().max()))


def test_any_length_is_computed_as_the_network_computes_it_by_few_compiled_lengths(
    model: nn.Module, program: Program
) -> None:
    assert program.origin.tiles
    for length in (1, 3, 8, 9, 16, 17, 31, LONGEST):
        near(program(**(batch := sentences(2, length))), model(**batch), share=3e-6)
    assert lengths(program) == [8, 16, 32, LONGEST]  # 48 is beyond the network's positions


def test_answers_depend_neither_on_padding_nor_on_other_sentences(program: Program) -> None:
    lone = sentences(1, 5)
    alone = program(**lone)
    for length in (8, 9, 16, 30):
        batch = sentences(3, length)
        batch["ids"][1, :5], batch["mask"][1, 5:] = lone["ids"][0], 0
        answer = program(**batch)
        near({"tokens": answer["tokens"][1:2, :5], "sentence": answer["sentence"][1:2]}, alone)


@pytest.mark.parametrize("length", [8, 11])
def test_padding_on_the_left_is_computed_as_the_network_computes_it(
    model: nn.Module, program: Program, length: int
) -> None:
    batch = sentences(2, length)
    batch["mask"][0, : length // 2] = 0
    near(program(**batch), model(**batch), share=3e-6)


@pytest.mark.parametrize("length", [8, 11])
def test_sentences_of_which_all_tokens_are_hidden_are_computed_as_the_network_does(
    model: nn.Module, length: int, program: Program
) -> None:
    batch = sentences(2, length)
    batch["mask"][1] = 0
    near(program(**batch), model(**batch), share=3e-6)


MEANT = {
    "bool": lambda mask: mask.bool(),
    "int32": lambda mask: mask.int(),
    "uint8": lambda mask: mask.byte(),
    "float32": lambda mask: mask.float(),
    "float64": lambda mask: mask.double(),
}
REFUSED = {
    "added to scores": (
        lambda mask: torch.where(mask == 1, 0.0, -torch.inf),
        r"added to scores.*\(x == 0\)\.to",
    ),
    "the least number": (lambda mask: (1 - mask) * torch.finfo(torch.float32).min, "added to scores"),
    "halves": (lambda mask: mask * 0.5, "not whole"),
}


@pytest.mark.parametrize("kind", MEANT)
def test_a_mask_of_another_type_that_means_the_same_is_converted(program: Program, kind: str) -> None:
    batch = sentences(2, 9)
    batch["mask"][0, 5:] = 0
    expected = program(**batch)
    near(program(batch["ids"].int(), MEANT[kind](batch["mask"])), expected, share=0)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_mask_that_means_something_else_is_refused(program: Program, kind: str) -> None:
    batch = sentences(2, 9)
    batch["mask"][0, 5:] = 0
    convert, reason = REFUSED[kind]
    with pytest.raises(EngineError, match=f"as mask.*{reason}"):
        program(batch["ids"], convert(batch["mask"]))


def test_a_mask_that_is_true_for_hidden_tokens_may_be_one_that_is_added() -> None:
    wanted, hides = Input("hidden", (3,), torch.bool), torch.tensor([[False, True, False]])
    added = torch.where(hides, -torch.inf, 0.0)
    assert torch.equal(converted(wanted, added, True), hides)  # type: ignore[arg-type]
    for other in (added.clamp(min=-9), added + 1):
        assert converted(wanted, other, True) is other
    assert converted(wanted, added, False) is added  # True would stand for tokens that are seen


WRONG: dict[str, tuple[Callable[[], tuple[Tensor, ...]], str]] = {
    "longer than the positions": (lambda: (*sentences(1, LONGEST + 1).values(),), r"itself refuses ids \(batch, 41\)"),
    "no token": (lambda: (*sentences(1, 0).values(),), "0 tokens.*at least one"),
    "ids beyond the words": (lambda: (torch.full((1, 9), WORDS), torch.ones(1, 9).long()), r"fails on \(1, 9\).*index"),
    "negative ids": (lambda: (torch.full((1, 9), -1), torch.ones(1, 9).long()), r"fails on \(1, 9\).*index"),
    "ids that are floats": (lambda: (torch.ones(1, 9), torch.ones(1, 9).long()), r"as ids.*x\.to\(torch.int64\)"),
    "ids of 64 bits": (lambda: (torch.ones(1, 9).double(), torch.ones(1, 9).long()), "float64.*as ids|as ids.*float64"),
    "a longer mask": (lambda: (torch.ones(1, 9).long(), torch.ones(1, 10).long()), "itself refuses"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_sentences_are_refused_in_a_sentence(program: Program, what: str) -> None:
    make, reason = WRONG[what]
    with pytest.raises(EngineError, match=reason):
        program(*make())


def test_no_sentence_at_all_gives_no_answer(program: Program) -> None:
    answer = program(**{name: each[:0] for name, each in sentences(1, 9).items()})
    assert [tuple(each.shape) for each in answer.values()] == [(0, 9, WIDTH), (0, WIDTH)]


class Words(nn.Module):
    """An encoder of features without a mask."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.body, self.causal = Attending(), causal

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, causal=self.causal)


def test_without_a_mask_each_length_runs_by_itself_and_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefer_(monkeypatch, "tiles")
    monkeypatch.setattr(programs, "MOST_LENGTHS", 3)
    model = sparse(Words())
    program = run.compile(model, torch.randn(2, 8, WIDTH), kernels=KERNELS, sizes=1)
    assert program.padding is None
    with pytest.warns(UserWarning, match=r"and now also for \(batch, 1, 16\).*at most 3 lengths are kept"):
        program(torch.randn(2, 1, WIDTH))
    for length in (5, 17, 33, 2):
        near({"": program(x := torch.randn(2, length, WIDTH))}, {"": model(x)}, share=3e-6)
    assert lengths(program) == [8, 17, 33, 2]
    with pytest.raises(EngineError, match="float64.*torch.float32"):
        program(torch.randn(2, 9, WIDTH).double())


class Pooled(nn.Module):
    """Features of tokens to one vector, by an operation."""

    def __init__(self, pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.pool = Attending(), pool

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        return self.pool(self.body(x, ~hidden[:, None, None]), hidden)


FOUND: dict[str, tuple[nn.Module, tuple[Tensor, ...], tuple[Any, ...] | None]] = {
    "a mask of ones": (Sentences(), (*sentences(2, 8).values(),), (((1,), ()), 1, 0)),
    "its tokens are few": (Sentences(), (*sentences(1, 1).values(),), (((1,), ()), 1, 0)),
    "a mask that says what is hidden, and a mean": (
        Pooled(lambda y, hidden: (y * ~hidden[..., None]).sum(1) / (~hidden).sum(1, keepdim=True)),
        (torch.randn(2, 8, WIDTH), torch.zeros(2, 8, dtype=torch.bool)),
        (((),), 1, True),
    ),
    "a mask that is added": (
        Attending(),
        (torch.zeros(2, 8, WIDTH), torch.zeros(2, 1, 1, 8)),
        None,  # of four axes
    ),
    "a mean over all": (
        Pooled(lambda y, hidden: y.mean(1)),
        (torch.randn(2, 8, WIDTH), torch.zeros(2, 8, dtype=torch.bool)),
        None,
    ),
    "the largest of all": (
        Pooled(lambda y, hidden: y.amax(1)),
        (torch.zeros(2, 8, WIDTH), torch.zeros(2, 8, dtype=torch.bool)),
        None,
    ),
    "no mask": (Words(), (torch.randn(2, 8, WIDTH),), None),
    "each sees those before": (Words(causal=True), (torch.zeros(2, 8, WIDTH),), (((1,),), None, 0)),
    "as many features as tokens": (Words(causal=True), (torch.randn(2, WIDTH, WIDTH),), (((1,),), None, 0)),
    "no tokens": (nn.Linear(8, 4), (torch.randn(2, 8),), None),
    "channels": (nn.Conv1d(8, 4, 3), (torch.randn(2, 8, 12),), None),
    "an LSTM that reads both ways": (
        nn.Sequential(nn.LSTM(WIDTH, 4, batch_first=True, bidirectional=True)),
        (torch.randn(2, 8, WIDTH),),
        None,
    ),
}


RARE = ("a mask that is added", "as many features as tokens", "channels", "an LSTM that reads both ways")


@pytest.mark.parametrize(
    "what", [pytest.param(each, marks=[pytest.mark.slow] * (each in RARE)) for each in FOUND]
)
def test_sentences_are_filled_up_where_the_network_ignores_what_is_filled_in(what: str) -> None:
    model, tensors, expected = FOUND[what]
    found = found_padding(sparse(model), capture(model, tensors), tensors)
    assert (found and (found.outputs, found.mask, found.hidden)) == expected


@pytest.mark.slow
def test_filled_up_answers_of_rows_that_see_nothing_are_not_trusted() -> None:
    class Backwards(nn.Module):
        """Hidden first tokens see nothing, and their answers are means over all that follows."""

        def __init__(self) -> None:
            super().__init__()
            self.body = Attending()

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            least = torch.finfo(torch.float32).min
            seen = torch.ones(x.shape[1], x.shape[1]).tril().bool() & mask[:, None, None].bool()
            return self.body(x, torch.where(seen, 0.0, least))

    model = sparse(Backwards())
    batch = torch.randn(2, 8, WIDTH), torch.ones(2, 8).long()
    program = run.compile(model, batch, kernels=KERNELS)
    assert program.padding is not None
    assert not program.padding.leading
    x, mask = torch.randn(2, 11, WIDTH), torch.ones(2, 11).long()
    near({"": program(x, mask)}, {"": model(x, mask)}, share=3e-6)
    mask[0, :3] = 0
    near({"": program(x, mask)}, {"": model(x, mask)}, share=3e-6)
    assert lengths(program) == [8, 16, 11]


def test_all_lengths_have_the_code_and_weights_of_layers_in_memory_once(program: Program) -> None:
    program(**sentences(1, 13))
    program(**sentences(1, 29))
    held = []
    for network in program.networks:
        segments = [node.function for node in network.graph.nodes if isinstance(node.function, Segment)]
        steps = [step for each in segments for step in each.code.chain.steps if step.weights is not None]
        held.append({step.node: step.weights for step in steps})
    assert len(held[0]) == 6
    assert all(each[node] is weights for each in held[1:] for node, weights in held[0].items())


@pytest.mark.slow
def test_the_network_is_exported_once_for_all_lengths(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = run.compile(model, sentences(2, 8), kernels=[sell.KERNEL])
    calls, true = [], torch.export.export
    monkeypatch.setattr(
        torch.export, "export", lambda *given, **named: calls.append(1) or true(*given, **named)
    )
    for length in (12, 20, 37):
        program(**sentences(1, length))
    assert (len(program.networks), len(calls)) == (4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 7, 33])
def test_a_network_exported_for_all_lengths_is_at_each_what_an_export_for_it_is(
    model: nn.Module, length: int
) -> None:
    at = capture_lengths(model, sentences(2, 8), [[1], [1]])
    assert at is not None
    made, exact = at(batch := sentences(3, length)), capture(model, batch)
    assert made is not None
    named = [[(node.op, node.shape, node.dtype) for node in each.nodes] for each in (made, exact)]
    assert named[0] == named[1]
    values = dict(zip(made.names, batch.values(), strict=True))
    for node in made.nodes:
        values[node.name] = node.function(*(values[name] for name in node.inputs))
    near(made.rebuild([values[name] for name in made.outputs]), model(**batch))


@pytest.mark.slow
def test_lengths_that_the_export_rules_out_are_not_captured(model: nn.Module) -> None:
    at = capture_lengths(model, sentences(2, 8), [[1], [1]])
    assert at is not None
    assert at(of({"ids": torch.zeros(1, 9).long(), "mask": torch.zeros(1, 8).long()})) is None
    assert capture_lengths(nn.Linear(8, 4), torch.zeros(2, 8), [[1]]) is None


def test_a_saved_program_serves_all_lengths_up_to_its_longest(model: nn.Module, tmp_path: Path) -> None:
    examples = [sentences(1, 16), sentences(1, 24)]
    program = run.compile(model, sentences(2, 8), kernels=KERNELS, examples=examples)
    loaded = run.load(run.save(program, tmp_path / "program"))
    assert loaded.padding == program.padding
    for length in (1, 8, 12, 20, 24):
        near(loaded(**(batch := sentences(2, length))), model(**batch), share=3e-6)
        assert loaded.refusal(**batch) is None
    with pytest.raises(EngineError, match=r"up to 24 tokens, and was given 25.*Cut them off") as refused:
        loaded(**(batch := sentences(1, 25)))
    assert loaded.refusal(**batch) == str(refused.value)
    hidden = sentences(1, 9)
    hidden["mask"][:] = 0
    with pytest.raises(EngineError, match="a mask hides all of one"):
        loaded(**hidden)
    assert "0 tokens" in str(loaded.refusal(**sentences(1, 0)))


@pytest.mark.parametrize(
    "padding", [TokenPadding(((1,), (1,)), ((1,), ()), 1, hidden) for hidden in (0, True, -torch.inf)]
)
def test_how_sentences_are_filled_up_comes_back_from_a_file(padding: TokenPadding) -> None:
    stored = json.loads(json.dumps(to_json(replace(padding, leading=False))))
    assert from_json(stored, 2) == replace(padding, leading=False)


@pytest.mark.parametrize("wrong", [{"mask": 2}, {"mask": "x"}, {"inputs": [[1]]}, {"outputs": [[0]]}])
def test_what_a_file_says_of_lengths_has_to_make_sense(wrong: dict[str, Any]) -> None:
    stored = to_json(TokenPadding(((1,), (1,)), ((1,),), 1, 0))
    with pytest.raises(EngineError, match="makes no sense"):
        from_json({**stored, **wrong}, 2)


@pytest.mark.slow
def test_8_threads_may_ask_for_different_lengths_at_once(model: nn.Module) -> None:
    program = run.compile(model, sentences(2, 8), kernels=[sell.KERNEL])
    batches = [sentences(1 + number % 2, 1 + 5 * (number % 4)) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda batch: program(**batch), batches))
    for batch, answer in zip(batches, answers, strict=True):
        near(answer, model(**batch), share=3e-6)
    assert lengths(program).count(16) == 1


@pytest.mark.slow
def test_eight_bits_give_the_same_bits_whatever_the_padding(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_(monkeypatch, "tiles in int8")
    quantisation = run.calibrate(model, [sentences(8, 16)], method="min-max")
    program = run.compile(model, sentences(2, 16), precision="int8", quantisation=quantisation)
    assert any(kernel.element == "int8" for kernel in program.origin.tiles.values())
    lone = sentences(1, 9)
    alone = program(**lone)
    for length in (12, 16, 30):
        batch = sentences(2, length)
        batch["ids"][1, :9], batch["mask"][1, 9:] = lone["ids"][0], 0
        answer = program(**batch)
        assert torch.equal(answer["tokens"][1, :9], alone["tokens"][0])
        assert torch.equal(answer["sentence"][1], alone["sentence"][0])


@pytest.mark.slow
@pytest.mark.skipif(detect().vector_bytes < 64, reason="baked code needs AVX-512")
def test_a_much_shorter_sentence_may_have_another_kernel_and_the_weights_of_both_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zeroskip.run import further_sizes
    from zeroskip.run.convolution.tiles.kernels import BAKED

    prefer_(monkeypatch, "tiles")
    model = sparse(Words(causal=True))
    program = run.compile(model, torch.randn(1, 64, WIDTH), kernels=[BAKED])
    ticks = iter(range(10**6))
    monkeypatch.setattr(
        further_sizes, "stop_watch", lambda: lambda: (next(ticks) % 4) * 2.0
    )  # the second is faster
    for length in (30, 10):
        near({"": program(x := torch.randn(1, length, WIDTH))}, {"": model(x)}, share=3e-6)
    assert {kernel.method for kernel in program.origin.tiles.values()} == {"baked"}


@given(st.integers(1, 4096))
def test_lengths_are_rounded_up_by_at_most_15_tokens_or_a_quarter(length: int) -> None:
    new = next_length(length)
    assert length <= new <= max(length + 15, 1.25 * length)
    assert next_length(new) == new
    assert new % 16 == 0


class Far(nn.Module):
    """Each token reads one that follows so many tokens later, which few tokens do not show, or flags a word 0."""

    def __init__(self, ahead: int | None) -> None:
        super().__init__()
        self.ahead, self.words, self.out = ahead, nn.Embedding(3000, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.out(self.words(ids))
        if self.ahead is None:
            return x + (ids == 0).any(1).float()[:, None, None]
        return x + F.pad(x, (0, 0, 0, self.ahead))[:, self.ahead :]


@pytest.mark.parametrize("ahead", [16, 20, 40, None])
def test_a_network_that_looks_far_ahead_or_for_what_is_filled_in_is_not_filled_up(ahead: int | None) -> None:
    model, batch = (
        sparse(Far(ahead)),
        {"ids": torch.randint(1, 3000, (2, 47)), "mask": torch.ones(2, 47).long()},
    )
    assert found_padding(model, capture(model, of(batch)), [*batch.values()]) is None


def test_a_network_that_looks_further_than_its_example_is_long_is_filled_up_to_no_longer_one() -> None:
    model = sparse(Far(40))
    program = run.compile(
        model, {"ids": torch.ones(2, 20).long(), "mask": torch.ones(2, 20).long()}, kernels=[]
    )
    for length in (17, 31, 33, 47):
        batch = {"ids": torch.randint(1, 3000, (2, length)), "mask": torch.ones(2, length).long()}
        with pytest.warns(UserWarning, match="now also for") if length == 33 else nullcontext():
            answer = program(**batch)
        torch.testing.assert_close(answer, model(**batch), rtol=0, atol=1e-5)
    assert program.padding is None


class Slicing(nn.Module):
    """Adds the tenth token to all, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Attending()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y + y[:, 9:10].sum(1, keepdim=True)


def test_a_slice_of_no_token_is_no_work_for_tiles() -> None:
    model, x = sparse(Slicing()), torch.randn(2, 8, WIDTH)
    graph = capture(model, x)
    assert "attention" in [each.kind for each in operations_of(graph)]


@pytest.mark.parametrize("value", [-1, 2])
def test_a_mask_of_other_numbers_is_not_filled_up(model: nn.Module, program: Program, value: int) -> None:
    batch = sentences(2, 11)
    batch["mask"][:] = value
    padding = program.padding
    assert padding is not None
    assert not padding.allows([*batch.values()])


def test_floats_are_no_truth_values_as_attention_adds_them_to_scores() -> None:
    floats = torch.tensor([[1.0, 0.0]])
    wanted = Input("mask", (2,), torch.bool)
    assert converted(wanted, floats, False) is floats
    assert converted(wanted, floats, True) is floats
