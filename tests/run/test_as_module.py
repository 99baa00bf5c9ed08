"""A program where a library holds a network: it is called as the network, and has what the network has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run


class Encoder(nn.Module):
    """Returns what transformers return: a mapping, where that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=8)
        self.words, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool | None = None
    ) -> dict[str, Tensor] | tuple[Tensor]:
        y = self.layer(self.words(input_ids)) * attention_mask[..., None]
        return {"last_hidden_state": y} if return_dict else (y,)


class Library(nn.Module):
    """Holds a network as sentence-transformers does, and calls it or its forward, as versions do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **features: Tensor) -> Tensor:
        called = self.inner(**features, return_dict=True)["last_hidden_state"]
        straight = self.inner.forward(**features, return_dict=True)["last_hidden_state"]
        assert torch.equal(called, straight)
        return called.mean(1)


def test_a_library_calls_the_program_in_place_of_its_network() -> None:
    inner = Encoder().eval()
    features = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "attention_mask": torch.ones(2, 3)}
    library = Library(inner)
    with torch.no_grad():
        expected = library(**features)
    program = run.compile(inner, dict(features, return_dict=True))
    library.inner = run.as_module(program, inner)
    torch.testing.assert_close(library(**features), expected)
    assert library.inner.config is inner.config
    assert library.inner is not inner
    assert [name for name, _ in library.inner.named_parameters()] == [
        name for name, _ in inner.named_parameters()
    ]


def test_what_hangs_on_the_network_is_done_once() -> None:
    inner = nn.Linear(4, 3).eval()
    inner.register_forward_hook(lambda _module, _given, y: y + 1)
    x = torch.randn(2, 4)
    with torch.no_grad():
        expected = inner(x)
    torch.testing.assert_close(run.as_module(run.compile(inner, x), inner)(x), expected)


def test_a_sentence_transformer(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[import-not-found]

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
    )
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    BertModel(config).save_pretrained(tmp_path)
    sentences = library.SentenceTransformer(str(tmp_path), device="cpu")
    expected = sentences.encode(["the cat sat", "on a mat"])
    inner, place = (
        sentences[0].auto_model,
        "model" if "model" in dict(sentences[0].named_children()) else "auto_model",
    )
    example = dict(sentences.tokenizer(["the cat sat"], return_tensors="pt"), return_dict=True)
    setattr(sentences[0], place, run.as_module(run.compile(inner, example), inner))
    found = sentences.encode(["the cat sat", "on a mat"])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-4)
