"""Networks of several tensors, numbers and constants: called as they are, answered as they answer."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.errors import EngineError, ModelError
from zeroskip.run import Program
from zeroskip.run.convolution.tiles.kernels import STREAMED
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.select import network_selection

TOKENS = 20


class Encoder(nn.Module):
    """A transformer of one layer that reads tokens and a mask, as a tokenizer hands them over."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(TOKENS, 16), nn.Linear(16, 3)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        hidden = self.layer(self.table(input_ids), src_key_padding_mask=attention_mask == 0)
        return {"logits": self.head(hidden[:, 0]), "hidden": hidden}


def batch(count: int, length: int) -> dict[str, Tensor]:
    """Sentences of up to `length` tokens; the first is the shortest."""
    mask = torch.ones(count, length).long()
    mask[0, length // 2 :] = 0
    return {"input_ids": torch.randint(TOKENS, (count, length)), "attention_mask": mask}


def quick(model: nn.Module, example: Any, **options: Any) -> Program:
    """Compiled with two kernels, which takes no time."""
    return run.compile(model, example, kernels=[sell.KERNEL], **options)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    model = Encoder().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(torch.rand_like(parameter) < 0.5)
    return model


@pytest.fixture(scope="module")
def program(encoder: Encoder) -> Program:
    return quick(encoder, batch(2, 7), examples=[batch(1, 5)], sizes=3)


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [7, 5])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_tokens_and_a_mask_are_answered_as_by_the_network_at_any_number_and_at_two_lengths(
    encoder: Encoder, program: Program, count: int, length: int
) -> None:
    given = batch(count, length)
    expected = encoder(**given)
    same(program(**given), expected)
    same(program(given["input_ids"], given["attention_mask"]), expected)
    same(program(given["input_ids"], attention_mask=given["attention_mask"], labels=None), expected)
    assert len(program.networks) == 2


def test_a_mask_of_one_row_serves_all_examples(encoder: Encoder, program: Program) -> None:
    given = batch(3, 7)
    row = given["attention_mask"][:1]
    same(program(given["input_ids"], row), encoder(given["input_ids"], row.expand(3, 7)))


class Shift(nn.Module):
    """Adds one row to all examples, and counts what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x) + row, row.sum()


def test_one_row_of_which_the_network_computes_something_else_than_of_equal_rows_is_refused() -> None:
    model, x, row = Shift().eval(), torch.randn(3, 4), torch.randn(1, 4)
    single, several = quick(model, (x[:1], row)), quick(model, (x, row))
    same(single(x[:1], row), model(x[:1], row))
    with pytest.raises(EngineError, match=r"row has one row for 3 examples.*one in row"):
        single(x, row)
    same(single(x, row.expand(3, 4)), model(x, row.expand(3, 4)))
    same(several(x[:2], row), model(x[:2], row))  # as the error advises


def test_every_layer_of_attention_has_its_weights_name_and_the_table_of_tokens_is_named_apart(
    program: Program,
) -> None:
    assert [choice.layer for choice in program.choices] == [
        "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj", "layer.linear1", "layer.linear2", "head"
    ]  # fmt: skip
    (table,) = program.unreached
    assert (table.name, table.weights) == ("table", TOKENS * 16)
    assert table.why == "its rows are looked up, not multiplied"


IDS, MASK = batch(2, 7).values()
WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "a missing mask": ((IDS,), {}, "takes input_ids, attention_mask; attention_mask is missing"),
    "a tuple": (((IDS, MASK),), {}, r"attention_mask is missing\. Call it .*program\(\*batch\)"),
    "a dict": ((batch(2, 7),), {}, r"attention_mask is missing\. Call it .*program\(\*\*batch\)"),
    "a keyword too many": ((IDS, MASK), {"labels": IDS}, "labels is unexpected"),
    "an unknown keyword": ((), {"input_ids": IDS, "attention_mask": MASK, "cache": 1}, "cache is unexpected"),
    "too many": ((IDS, MASK, None, IDS), {}, "a 4th positional argument is unexpected"),
    "twice": ((IDS, MASK), {"input_ids": IDS}, "input_ids is given twice"),
    "a list": ((IDS.tolist(), MASK), {}, "input_ids is a tensor, and was given a list.*as_tensor"),
    "another type": (
        (IDS.float(), MASK),
        {},
        r"torch.int64 on the cpu as input_ids.*x\.to\(torch.int64\)",
    ),
    "unlike numbers": ((IDS, MASK[:1].repeat(3, 1)), {}, "input_ids has 2, attention_mask has 3"),
    "no axis of examples": ((IDS[0], MASK), {}, r"as input_ids.*axis of examples is missing: give x\[None\]"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_call_unlike_the_example_is_refused_with_the_name_of_what_is_wrong(
    what: str, program: Program
) -> None:
    args, kwargs, reason = WRONG[what]
    with pytest.raises(EngineError, match=reason):
        program(*args, **kwargs)
    assert program.refusal(*args, **kwargs)
    assert program.refusal(IDS, MASK) is None


def test_numbers_that_an_operation_of_torch_refuses_are_an_error_with_what_went_in(
    encoder: Encoder, program: Program
) -> None:
    given = batch(3, 7)
    given["input_ids"][1, 2] = TOKENS
    with pytest.raises(
        EngineError, match=r"fails on \(3, 7\) of torch.int64, .* IndexError: index out of range"
    ):
        program(**given)
    lookup = quick(nn.Sequential(encoder.table, nn.Linear(16, 2)).eval(), torch.zeros(2, 4).long())
    with pytest.raises(EngineError, match=r"fails on \(1, 4\) of torch.int64: IndexError"):
        lookup(torch.full((1, 4), -1))


def test_zero_tokens_are_refused_by_name(encoder: Encoder, program: Program) -> None:
    for refused in (lambda given: program(**given), lambda given: quick(encoder, given)):
        with pytest.raises(EngineError, match=r"\(1, 0\) of torch.int64, one is empty"):
            refused(batch(1, 0))


class Scaled(nn.Module):
    """x W, scaled by a mask of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.layer(x) * scale


def test_nan_in_a_mask_is_answered_as_by_the_network() -> None:
    model, x, scale = (
        Scaled().eval(),
        torch.randn(2, 4),
        torch.tensor([1.0, torch.nan, 0.0, torch.inf]).repeat(2, 1),
    )
    with torch.no_grad():
        torch.testing.assert_close(quick(model, (x, scale))(x, scale), model(x, scale), equal_nan=True)


def test_a_number_is_an_input_that_is_the_same_for_all_examples() -> None:
    model = Scaled().eval()
    ours = quick(model, (torch.randn(2, 4), torch.tensor(2.0)))
    with torch.no_grad():
        for count, scale in ((2, 2.0), (5, 3.0)):
            x = torch.randn(count, 4)
            same(ours(x, torch.tensor(scale)), model(x, scale))
    assert [each.has_batch for each in ours.inputs] == [True, False]


class Nested(nn.Module):
    """What a network may take besides tensors: lists, dicts, numbers, flags, and any further ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, *more: Tensor, parts: Any = None, scale: float = 1.0, **rest: Any) -> Tensor:
        y = self.layer(x) * scale + sum(more)
        for part in [] if parts is None else parts["list"]:
            y = y + part
        return y if rest.get("square") is None else y.square()


def test_tensors_in_lists_and_dicts_and_constants_beside_them_are_as_in_the_example() -> None:
    torch.manual_seed(0)
    model, x = Nested().eval().requires_grad_(False), torch.randn(2, 4)
    program = quick(model, {"x": x, "parts": {"list": [x, x + 1]}, "scale": 2.0, "square": True})
    y = torch.randn(3, 4)
    call: dict[str, Any] = {"parts": {"list": [y, y * 2]}, "square": True}
    same(program(y, scale=2.0, **call), model(y, scale=2.0, **call))
    for changed, reason in (
        ({"scale": 3.0}, r"compiled for scale=2\.0, and was given 3\.0.*scale=torch\.tensor\(2\.0\)"),
        ({"scale": 1.0}, r"compiled for scale=2\.0, and was called with 1\.0, the default"),
        ({"scale": 2.0, "square": False}, "compiled for square=True, and was given False"),
        (
            {"scale": 2.0, "parts": {"list": [y]}},
            r"parts\['list'\] is a list of 0, 1, and was given a list of 0",
        ),
    ):
        with pytest.raises(EngineError, match=reason):
            program(y, **{**call, **changed})


def test_further_tensors_by_position_are_counted() -> None:
    model, x = Nested().eval().requires_grad_(False), torch.randn(2, 4)
    program = quick(model, (x, x, x))
    same(program(x, x, x + 1), model(x, x, x + 1))
    with pytest.raises(EngineError, match=r"takes x, more\[0\], more\[1\]; more\[1\] is missing"):
        program(x, x)


Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Result:
    """As transformers returns one, but for its name."""

    logits: Tensor
    loss: Tensor | None = None
    steps: int = 3


class Returning(nn.Module):
    """A layer whose output is returned in a form of one's own."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(4, 4), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.layer(x))


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda y: (y, y + 1),
    "named tuple": lambda y: Pair(y, [y, None]),
    "dataclass": lambda y: Result(y),
    "dataclass in a dict": lambda y: {"a": Result(y, y.sum()), "b": "text"},
    "constant tensor": lambda y: (y, torch.arange(3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_the_form_that_the_network_gives_them(form: str) -> None:
    model, x = Returning(FORMS[form]).eval().requires_grad_(False), torch.randn(3, 4)
    ours, theirs = quick(model, x[:2])(x), model(x)
    assert type(ours) is type(theirs)
    assert str(ours).split("(")[0] == str(theirs).split("(")[0]
    if not isinstance(theirs, Result):
        ours, theirs = (([*each.values()] if isinstance(each, dict) else [*each]) for each in (ours, theirs))
    for mine, yours in zip(_tensors(ours), _tensors(theirs), strict=True):
        same(mine, yours)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = (
        vars(value).values()
        if isinstance(value, Result)
        else value
        if isinstance(value, (list, tuple))
        else []
    )
    return [tensor for part in parts for tensor in _tensors(part)]


class TokenCache:
    """As a decoder's cache looks: a class of its own, whose name says what it is."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "a cache": (
        Returning(lambda y: (y, TokenCache(y))),
        "returns a TokenCache.*use_cache=False.*model.config.use_cache",
    ),
    "a set": (Returning(lambda y: {y}), "returns a set, which a program cannot give back"),
    "no tensor": (Returning(lambda y: None), "returns no tensor"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_program_cannot_return_is_refused_with_the_word_that_helps(what: str) -> None:
    model, reason = REFUSED[what]
    with pytest.raises(EngineError, match=reason):
        run.check(model.eval(), torch.randn(2, 4))


class Generating(nn.Linear):
    """A network with a loop around its forward."""

    def generate(self, x: Tensor) -> Tensor:
        return self(x)


def test_generating_is_refused_of_a_network_and_of_a_program() -> None:
    model = Generating(3, 3)
    with pytest.raises(EngineError, match=r"given a method, generate.*calls forward again and again"):
        run.compile(model.generate, torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="one call of forward"):
        quick(model, torch.zeros(1, 3)).generate(torch.zeros(1, 3))


def test_an_example_that_lacks_what_forward_takes_is_an_error_in_the_networks_words(encoder: Encoder) -> None:
    with pytest.raises(ModelError, match="missing 1 required positional argument: 'attention_mask'"):
        run.check(encoder, IDS)


class Graph(nn.Module):
    """A graph network: sums of neighbours, then a layer, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        def summed(x: Tensor) -> Tensor:
            return torch.zeros_like(x).index_add_(0, edges[1], x[edges[0]])

        return self.second(summed(torch.relu(self.first(summed(features)))))


def graph(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, 6), torch.randint(nodes, (2, edges))


def test_a_graph_network_is_compiled_for_its_graph_and_for_others() -> None:
    torch.manual_seed(0)
    model = Graph().eval().requires_grad_(False)
    program = quick(model, graph(9, 20), batch_axis=None, examples=[graph(5, 8)])
    for given in (graph(9, 20), graph(5, 8)):
        same(program(*given), model(*given))
    assert len(program.networks) == 2


def test_a_graph_network_taken_for_one_of_examples_is_told_apart_from_them() -> None:
    with pytest.raises(EngineError, match="give batch_axis=None"):
        quick(Graph().eval(), graph(9, 20))


class Stack(nn.Module):
    """PyTorch's own encoder, which takes another way through its layers when it is not being exported."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=hidden)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_pytorchs_encoder_that_answers_zeros_for_hidden_tokens_is_refused_with_the_line_that_helps() -> None:
    torch.manual_seed(0)
    model, x = Stack().eval().requires_grad_(False), torch.randn(2, 5, 16)
    hidden = torch.tensor([[False] * 3 + [True] * 2, [False] * 5])
    with pytest.raises(EngineError, match=r"Set model\.encoder\.use_nested_tensor = False"):
        quick(model, (x, hidden))
    model.encoder.use_nested_tensor = False
    same(quick(model, (x, hidden))(x, hidden), model(x, hidden))


def test_what_is_no_plain_network_or_no_plain_tensor_is_refused_with_what_to_do() -> None:
    x = torch.randn(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        traced = torch.jit.trace(nn.Linear(3, 3), x)
    for model, example, options, reason in (
        (traced, x, {}, "is a ScriptModule.*module it was made from"),
        (nn.Linear(3, 3), x.to_sparse(), {}, r"stored as torch.sparse_coo.*x\.to_dense\(\)"),
        (nn.Linear(3, 3), x, {"examples": x}, r"examples is a Tensor.*examples=\[\.\.\.\]"),
        (nn.Linear(3, 3), x, {"sizes": 0}, "sizes=0 leaves none for the example"),
        (nn.Linear(3, 3), x, {"sizes": "8"}, "sizes='8' is no whole number"),
        (nn.Linear(3, 3), x, {"kernels": "sell"}, r"'sell' is no list of kernels.*BY_NAME\[\"sell\"\]"),
        (nn.Linear(3, 3), x, {"kernels": ["sell"]}, "is no list of kernels"),
        (nn.Linear(3, 3), x, {"machine": "avx2"}, "machine='avx2' is no Machine"),
        (nn.Linear(3, 3), x, {"threads": 1.5}, r"1\.5 threads cannot compute anything\. Give threads=1"),
        (nn.Linear(3, 3), x, {"precision": ["fp32"]}, "is unknown. Known are fp32"),
    ):
        with pytest.raises(EngineError, match=reason):
            run.compile(model, example, **{"kernels": [sell.KERNEL], **options})


class TwoPictures(nn.Module):
    """Two pictures and the places of one: each is read by convolutions, and the integers lie between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(9, 4, 3),
        )

    def forward(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        y = torch.relu(self.first(left)) + self.second(right)
        return self.last(torch.cat([y, places.float()], 1)) + right.mean((2, 3), keepdim=True).sum(
            1, keepdim=True
        )


def test_segments_on_tiles_read_any_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        network_selection, "raced", lambda calls, *_: {name: name != "tiles" for name in calls}
    )
    torch.manual_seed(0)
    model = TwoPictures().eval().requires_grad_(False)

    def pictures(count: int) -> tuple[Tensor, ...]:
        places = torch.randint(9, (count, 1, 8, 8))
        return torch.randn(count, 2, 8, 8), torch.randn(count, 3, 8, 8), places

    program = run.compile(model, pictures(1), kernels=[STREAMED])
    read = {name for node in program.compiled.graph.nodes if node.op == "tiles" for name in node.inputs}
    assert {"left", "right"} <= read
    assert "places" not in read
    for count in (1, 3):
        given = pictures(count)
        same(program(*given), model(*given))
