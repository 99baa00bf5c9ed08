"""Sentences embedded by all-MiniLM-L6-v2, and how well the order of their similarities is that of people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroskip import run_folder
from zeroskip.data import data_folder, sentences, tokens
from zeroskip.data.sentences import SentencePairs
from zeroskip.data.tokens import Tokenizer
from zeroskip.errors import DataError
from zeroskip.models import SentenceEncoder
from zeroskip.tasks import training

TOGETHER = 64  # sentences that pass through a network at a time
CALIBRATED_ON = 512  # sentences without scores, of at most so many tokens as follow
TOKENS = 32
TIMED = 16  # sentences of the batch, of at most 16 tokens
FILE = "minilm_l6"
UNUSED = ("pooler.", "embeddings.position_ids")  # of the file; the vector does not pass through them


def published(folder: str | Path | None = None) -> SentenceEncoder:
    """all-MiniLM-L6-v2 with its published weights: weights/minilm_l6.safetensors in `folder` or ZEROSKIP_DATA.

    The file is model.safetensors of sentence-transformers/all-MiniLM-L6-v2, in float32 or fp16.
    DataError where there is no such folder or it holds another network, FileError where the file is absent.
    """
    model = SentenceEncoder()
    path = data_folder("weights", folder) / f"{FILE}.safetensors"
    stored = run_folder.load_tensors(path)
    weights = {name: x.float() for name, x in stored.items() if not name.startswith(UNUSED)}
    wanted = model.state_dict()
    for name in [*wanted, *weights]:
        mine, theirs = (tuple(of[name].shape) if name in of else "absent" for of in (wanted, weights))
        if mine != theirs:
            raise DataError(
                f"{path} holds another network than all-MiniLM-L6-v2: {name} is {theirs}, and should be {mine}. Fetch "
                "it again."
            )
    model.load_state_dict(weights)
    return model.eval()


def tokenizer(folder: str | Path | None = None) -> Tokenizer:
    """That of all-MiniLM-L6-v2: weights/minilm_l6.vocab.txt in `folder` or ZEROSKIP_DATA."""
    return tokens.load(data_folder("weights", folder) / f"{FILE}.vocab.txt")


def check_fit(given: Tokenizer, model: nn.Module) -> None:
    """DataError where the tokenizer makes ids that the network has no embedding of.

    >>> check_fit(Tokenizer(None, 12, 0), nn.Embedding(10, 4))
    Traceback (most recent call last):
    zeroskip.errors.DataError: the tokenizer makes ids up to 11, and the network has 10 words. It is that of another...
    """
    rows = max((each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding)), default=0)
    if given.words > rows:
        raise DataError(
            f"the tokenizer makes ids up to {given.words - 1}, and the network has {rows} words. It is that of another "
            "network: give the file that came with this one."
        )


@torch.inference_mode()
def vectors(
    call: Callable[..., Tensor], given: Tokenizer, of: tuple[str, ...] | list[str], *, size: int = TOGETHER
) -> Tensor:
    """The vectors of the sentences, (sentences, width), by a network or a program that takes ids and a mask.

    Sentences of like length pass through it together, `size` at a time, padded to a multiple of 16 tokens. DataError
    where there is no sentence, or the tokenizer is that of another network.

    >>> _ = Path("vocab.txt").write_text("[PAD] [UNK] [CLS] [SEP] a b".replace(" ", chr(10)))
    >>> count = lambda input_ids, attention_mask: attention_mask.sum(1, keepdim=True)
    >>> vectors(count, tokens.load("vocab.txt"), ["a b a", "b"])
    tensor([[5],
            [3]])
    """
    if isinstance(call, nn.Module):
        check_fit(given, call)
    ids = tokens.encode(given, of)
    if not ids:
        raise DataError("there is no sentence to make a vector of. Give one at least.")
    parts, order = [], []
    for numbers in tokens.by_length(ids, size):
        parts.append(call(**tokens.padded([ids[number] for number in numbers], given.filler)))
        order += numbers
    return torch.cat(parts)[torch.tensor(order).argsort()]


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's: that of the ranks of x and y, (count,) each; 0 where one of them is a number over and over.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.1, 0.2, 0.3]))
    1.0
    """
    from scipy.stats import rankdata  # a second to import

    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        return float("nan")
    ranks = torch.stack([torch.from_numpy(rankdata(each.numpy())) for each in (x, y)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    whole = ranks.square().sum(1).prod().sqrt()
    return round(float(ranks.prod(0).sum() / whole), 12) if whole else 0.0


@dataclass(frozen=True)
class SentenceSimilarity:
    """all-MiniLM-L6-v2 on STS-Benchmark. The error is 1 - Spearman's correlation of similarities with scores.

    `model()` has the published weights already, and `train` brings a pruned network back to their vectors, on sentences
    without scores; the network itself has nothing to learn from it, and stays as it is.

    looked_at  decisions look at one dev pair of so many: a profile evaluates the network 250 times
    sentences  to learn from in each epoch

    >>> from zeroskip.tasks import sts
    >>> sts.name, sts.epochs * sts.sentences
    ('sts', 2048)
    """

    name: str
    epochs: int
    sentences: int
    batch_size: int
    learning_rate: float
    looked_at: int = 4

    def model(self) -> nn.Module:
        """The published network."""
        return published()

    def train(self, model: nn.Module, **changes: object) -> None:
        """Train in place by the task's own `training.TrainingRecipe`, changed: epochs=5; and with hooks of `fit`.

        Embeddings are not trained, which halves the time.
        """
        own = training.TrainingRecipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            loss=self.loss,
            layout=torch.preserve_format,
        )
        teacher = self.model()
        if "on_step" not in changes and _same(model, teacher):
            return
        with _without_embeddings(model):
            training.fit_changed(model, self._taught(teacher), own, changes)

    def loss(self, model: nn.Module, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """What `train` minimises: the mean squared distance to the vectors of the published network."""
        return (model(**inputs) - targets).square().sum(1).mean()

    def _taught(self, teacher: nn.Module) -> training.TrainingData:
        """Sentences without scores and their vectors; those of like length together, in a random order."""
        given, every = tokenizer(), sentences.unlabelled()

        def epoch(size: int, device: torch.device) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
            drawn = torch.randperm(len(every))[: self.sentences].tolist()
            ids = tokens.encode(given, [every[number] for number in drawn])
            parts = list(tokens.by_length(ids, size))
            for place in torch.randperm(len(parts)).tolist():
                inputs = tokens.padded([ids[number] for number in parts[place]], given.filler)
                with torch.no_grad():
                    targets = teacher(**inputs)
                yield {name: each.to(device) for name, each in inputs.items()}, targets.to(device)

        return training.TrainingData(self.sentences, epoch)

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        """1 - Spearman on "validation" (for decisions: some of dev), "dev" (all of it) or "test" (once, at the end)."""
        pairs = self.pairs(split)
        x = similarities(model.eval(), tokenizer(), pairs)
        return 1 - rank_correlation(x, pairs.scores)

    def pairs(self, split: str) -> SentencePairs:
        """Those that `evaluate` looks at."""
        every = sentences.pairs()
        if split == "validation":
            return every[split].every(self.looked_at)
        return every["validation" if split == "dev" else split]

    def batch(self) -> dict[str, Tensor]:
        """16 short sentences of dev, for tracing and timing."""
        given = tokenizer()
        short = [each for each in tokens.encode(given, self.pairs("validation").first) if len(each) <= TIMED]
        return tokens.padded(short[:TIMED], given.filler)

    def batches(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """512 sentences without scores, all padded to 32 tokens, for statistics and calibration; no targets."""
        given = tokenizer()
        ids = tokens.encode(given, sentences.unlabelled()[: 2 * CALIBRATED_ON])
        short = [each for each in ids if len(each) <= TOKENS][:CALIBRATED_ON]
        for inputs in tokens.alike(short, given.filler, step=TOKENS, size=TOGETHER):
            yield inputs, torch.empty(len(inputs["input_ids"]), 0)

    def split_sizes(self) -> dict[str, int]:
        """Sentences to learn from, and pairs of the other splits."""
        sizes = {split: len(self.pairs(split)) for split in ("validation", "test")}
        return {"train": self.epochs * self.sentences, **sizes}


def similarities(call: Callable[..., Tensor], given: Tokenizer, pairs: SentencePairs) -> Tensor:
    """The dot products of the vectors of each pair, (pairs,)."""
    every = sorted({*pairs.first, *pairs.second})
    place, found = {sentence: number for number, sentence in enumerate(every)}, vectors(call, given, every)
    first, second = (found[[place[each] for each in side]] for side in (pairs.first, pairs.second))
    return (first * second).sum(1)


def _same(model: nn.Module, other: nn.Module) -> bool:
    """Whether they have the same weights, under the same names."""
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@contextmanager
def _without_embeddings(model: nn.Module) -> Iterator[None]:
    """Inside, embeddings do not learn."""
    found = [each for name, each in model.named_parameters() if "embeddings." in name and each.requires_grad]
    for parameter in found:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in found:
            parameter.requires_grad_(True)
