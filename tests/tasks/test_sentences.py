"""The task sts on a small folder: what it evaluates, learns and hands out; with the data, the published figures."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import nn

from zeroskip import journey, run, task_api, tasks
from zeroskip.data import sentences as stored
from zeroskip.data import tokens
from zeroskip.errors import DataError
from zeroskip.models import BertSizes, EncoderSizes, SentenceEncoder
from zeroskip.tasks import sentences, sts

WORDS = ["the", "a", "cat", "dog", "sits", "runs", "on", "mat", "road", "##s", "big", "red"]
SIZES = BertSizes(words=4 + len(WORDS), positions=64, encoder=EncoderSizes(1, 16, 2, 32))
LITTLE = tasks.SentenceSimilarity(
    "little", epochs=2, sentences=48, batch_size=8, learning_rate=0.01, looked_at=2
)


def some_sentences(count: int) -> list[str]:
    chosen = torch.randint(9, (count, 24)).tolist()
    lengths = torch.randint(3, 25, (count,)).tolist()
    return [
        " ".join(WORDS[each] for each in row[:length]) for row, length in zip(chosen, lengths, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights, twelve pairs a split, sixty sentences without scores."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("data")
    (root / "weights").mkdir()
    (root / "sts").mkdir()
    weights = {
        name: torch.randn(x.shape).half() / 3 for name, x in SentenceEncoder(SIZES).state_dict().items()
    }
    unused = {"pooler.dense.bias": torch.zeros(16), "embeddings.position_ids": torch.arange(8)[None]}
    save_file(weights | unused, root / "weights" / "minilm_l6.safetensors")
    (root / "weights" / "minilm_l6.vocab.txt").write_text("\n".join([*tokens.SPECIAL, *WORDS]) + "\n")
    rows = [
        f"{split}\tx\t2017\t{score:.1f}\t{first}\t{second}"
        for split in ("train", "dev", "test")
        for score, first, second in zip(
            (5 * torch.rand(12)).tolist(), some_sentences(12), some_sentences(12), strict=True
        )
    ]
    table = "\n".join(["split\tdataset\tyear\tscore\tsentence1\tsentence2", *rows]) + "\n"
    (root / "sts" / "stsb.tsv.gz").write_bytes(gzip.compress(table.encode()))
    table = "\n".join(["source\tsentence", *(f"x\t{each}" for each in some_sentences(60))]) + "\n"
    (root / "sts" / "sentences.tsv.gz").write_bytes(gzip.compress(table.encode()))
    return root


@pytest.fixture
def little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tasks.SentenceSimilarity:
    monkeypatch.setenv("ZEROSKIP_DATA", str(folder))
    monkeypatch.setattr(sentences, "SentenceEncoder", partial(SentenceEncoder, SIZES))
    return LITTLE


def test_it_has_the_four_functions_and_the_optional_ones(little: tasks.SentenceSimilarity) -> None:
    assert tasks.load("sts") is sts
    assert task_api.has_splits(little)
    assert task_api.split_sizes(little) == {"train": 96, "validation": 6, "test": 12}
    assert set(task_api.batch(little).kwargs) == {"input_ids", "attention_mask"}
    assert task_api.batch(little).shapes[0][1] == 16
    assert {batch.shapes for batch in task_api.batches(little)} == {((60, 32), (60, 32))}
    assert not task_api.has_classes(little)


@pytest.mark.parametrize(
    ("split", "rows"), [("validation", slice(0, 12, 2)), ("dev", slice(12)), ("test", slice(12))]
)
def test_the_error_is_what_the_order_of_similarities_lacks(
    little: tasks.SentenceSimilarity, folder: Path, split: str, rows: slice
) -> None:
    """Against SciPy, every sentence by itself and without padding."""
    model, tokenizer = little.model(), sentences.tokenizer()
    pairs = stored.pairs(folder)["validation" if split == "dev" else split]

    def vector(sentence: str) -> torch.Tensor:
        ids = torch.tensor(tokens.encode(tokenizer, [sentence]))
        with torch.no_grad():
            return model(ids, torch.ones_like(ids))[0]

    similar = [
        float(vector(a) @ vector(b)) for a, b in zip(pairs.first[rows], pairs.second[rows], strict=True)
    ]
    expected = spearmanr(similar, pairs.scores[rows]).statistic
    assert little.evaluate(model, split) == pytest.approx(1 - expected, abs=1e-9)


def test_a_network_that_finds_all_sentences_alike_orders_nothing(little: tasks.SentenceSimilarity) -> None:
    model = little.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert little.evaluate(model) == 1.0
    with torch.no_grad():
        model.get_parameter("embeddings.LayerNorm.bias").fill_(float("nan"))
    assert task_api.probe(little, model) == float("inf")


def test_the_published_network_stays_as_it_is_and_a_pruned_one_comes_back_to_its_vectors(
    little: tasks.SentenceSimilarity,
) -> None:
    dense, pruned = little.model(), little.model()
    little.train(pruned)
    assert all(torch.equal(x, y) for x, y in zip(pruned.parameters(), dense.parameters(), strict=True))
    tokenizer, every = sentences.tokenizer(), stored.unlabelled()

    def distance() -> float:
        found = [sentences.vectors(model, tokenizer, every) for model in (pruned, dense)]
        return float((found[0] - found[1]).square().sum(1).mean())

    with torch.no_grad():
        for name, parameter in pruned.named_parameters():
            if name.endswith("dense.weight"):
                parameter.mul_(parameter.abs() > parameter.abs().median())
    before = distance()
    words = pruned.get_parameter("embeddings.word_embeddings.weight").clone()
    torch.manual_seed(0)
    little.train(pruned)
    assert distance() < before / 2
    assert torch.equal(pruned.get_parameter("embeddings.word_embeddings.weight"), words)
    assert all(parameter.requires_grad for parameter in pruned.parameters())


def test_a_folder_without_the_network_or_with_another_is_refused(
    little: tasks.SentenceSimilarity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    with pytest.raises(DataError, match='no folder "weights"'):
        little.model()
    (tmp_path / "weights").mkdir()
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "weights" / "minilm_l6.safetensors")
    with pytest.raises(DataError, match="another network .*word_embeddings.weight is absent, and should"):
        little.model()


def test_a_tokenizer_of_another_network_is_refused(little: tasks.SentenceSimilarity) -> None:
    tokenizer = sentences.tokenizer()
    with pytest.raises(DataError, match="the network has 3 words. It is that of another network"):
        sentences.vectors(nn.Embedding(3, 4), tokenizer, ["a cat"])
    with pytest.raises(DataError, match="there is no sentence"):
        sentences.vectors(little.model(), tokenizer, [])


@pytest.mark.slow
def test_every_command_takes_it(
    little: tasks.SentenceSimilarity, folder: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    sparse, packed = tmp_path / "sparse.safetensors", tmp_path / "sts.zs"
    assert call("measure", "sts", "--data", folder)[0] == 0
    words = ("--sparsity", "0.5", "--rounds", "1", "--out", sparse, "--data", folder)
    assert call("prune", "sts", *words)[0] == 0
    assert call("pack", "sts", sparse, "--out", packed, "--data", folder)[0] == 0
    for precision in ("fp32", "int8"):
        status, shown, _ = call("run", "sts", packed, "--precision", precision, "--data", folder)
        assert status == 0
        assert "error of what runs, test split" in shown


@pytest.mark.slow
@pytest.mark.real_data
def test_minilm_orders_pairs_as_published_and_in_eight_bits_nearly_so(
    sentence_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", str(sentence_folder))
    model = sts.model()
    assert 1 - sts.evaluate(model, "test") == pytest.approx(0.8203, abs=5e-5)
    assert 1 - sts.evaluate(model, "dev") == pytest.approx(0.8672, abs=5e-5)
    quantisation = journey.calibrated(sts, model)
    program = run.compile(
        model, task_api.first(sts, 1), precision="int8", quantisation=quantisation, sizes=99
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # further lengths are compiled
        assert 1 - sts.evaluate(run.as_module(program, model), "test") >= 0.817
