"""Sentences as token ids, by a WordPiece vocabulary or a tokenizer.json; padding and masks. Needs `zeroskip[text]`."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zeroskip import files
from zeroskip.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Encoder

MOST = 256  # tokens of a sentence, as sentence-transformers cut them for all-MiniLM-L6-v2
STEP = 16  # sentences are padded to a multiple of so many tokens, so that few lengths occur
SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")


@dataclass(frozen=True)
class Tokenizer:
    """What makes tokens of sentences.

    encoder  a `tokenizers.Tokenizer`
    words    ids are below this number
    filler   the id behind the end of a sentence
    """

    encoder: Encoder
    words: int
    filler: int


def load(path: str | Path, *, most: int = MOST, lower: bool = True) -> Tokenizer:
    """The tokenizer in a file: a vocab.txt of BERT, a token in each line, or any tokenizer.json.

    most   tokens of a sentence, [CLS] and [SEP] included; what follows is cut off
    lower  of a vocab.txt: letters become small and lose their accents, as an "uncased" network learned them
    Raises DataError where the file is absent, no such file, or holds a token twice.

    >>> _ = Path("vocab.txt").write_text("[PAD] [UNK] [CLS] [SEP] un ##seen a , man".replace(" ", chr(10)))
    >>> encode(load("vocab.txt"), ["A man, unseen"])
    [[2, 6, 8, 7, 4, 5, 3]]
    """
    path, library = Path(path), _library()
    if most < 3:
        raise DataError(f"most={most} leaves no token between the first and the last. Give at least 3.")
    try:
        text = files.read(path).decode()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text. Give a vocab.txt or a tokenizer.json.") from None
    encoder = _from_json(path, text, library) if path.suffix == ".json" else _word_piece(path, text, lower)
    encoder.enable_truncation(most)
    encoder.no_padding()
    ids = encoder.get_vocab(with_added_tokens=True)
    found = (ids[name] for name in ("[PAD]", "<pad>") if name in ids)
    return Tokenizer(encoder, 1 + max(ids.values(), default=0), next(found, 0))


def encode(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """The token ids of each sentence. DataError where one is no text."""
    if isinstance(sentences, str):
        raise DataError("one sentence was given, and a list of them is needed: [sentence].")
    for number, each in enumerate(sentences):
        if not isinstance(each, str):
            raise DataError(f"sentence {number} is a {type(each).__name__}, not text.")
        if not each.isascii() and each != each.encode(errors="replace").decode():
            raise DataError(f"sentence {number} holds half of a character: {each!r}. Read it as UTF-8.")
    return [each.ids for each in tokenizer.encoder.encode_batch(list(sentences))]


def padded(ids: Sequence[Sequence[int]], filler: int = 0, *, step: int = STEP) -> dict[str, Tensor]:
    """Inputs of a network: input_ids and attention_mask, (sentences, tokens) int64 each; 1 in the mask is a token.

    There are as many tokens as the longest sentence has, rounded up to a multiple of `step`. DataError without a
    sentence.

    >>> padded([[2, 7, 3], [2, 3]], step=4)["attention_mask"]
    tensor([[1, 1, 1, 0],
            [1, 1, 0, 0]])
    """
    if not ids:
        raise DataError("there is no sentence. Give one at least.")
    tokens = -(-max(map(len, ids)) // step) * step
    rows = torch.tensor([[*each, *[filler] * (tokens - len(each))] for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (tokens - len(each)) for each in ids])
    return {"input_ids": rows, "attention_mask": mask}


def alike(
    ids: Sequence[Sequence[int]], filler: int = 0, *, step: int = STEP, size: int = 64
) -> list[dict[str, Tensor]]:
    """Inputs of `size` sentences each, all of one length, in the order given: what `run.calibrate` takes.

    >>> [each["input_ids"].shape for each in alike([[1] * 3, [1] * 20, [1]], size=2)]
    [torch.Size([2, 32]), torch.Size([1, 32])]
    """
    length = -(-max(map(len, ids), default=1) // step) * step
    return [padded(ids[start : start + size], filler, step=length) for start in range(0, len(ids), size)]


def by_length(ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """The numbers of the sentences, at most `size` together, from the shortest to the longest, lengths apart.

    >>> list(by_length([[0] * 20, [0] * 3, [0] * 4], size=8))
    [[1, 2], [0]]
    """
    steps = [-(-len(each) // STEP) for each in ids]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for same in sorted(set(steps)):
        those = [number for number in order if steps[number] == same]
        yield from (those[start : start + size] for start in range(0, len(those), size))


def _library() -> ModuleType:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise DataError(
            "sentences need the package tokenizers, which is not installed. pip install 'zeroskip[text]'"
        ) from None


def _from_json(path: Path, text: str, library: ModuleType) -> Encoder:
    try:
        return cast("Encoder", library.Tokenizer.from_str(text))
    except Exception as fact:  # the library raises nothing narrower
        reason = " ".join(str(fact).split())[:200]
        raise DataError(f"{path} is no tokenizer.json: {reason}. Fetch it again.") from None


def _word_piece(path: Path, text: str, lower: bool) -> Encoder:
    """BERT's tokens: split at white space, punctuation and CJK characters, then the longest known pieces."""
    from tokenizers import Tokenizer as Plain
    from tokenizers import models, normalizers, pre_tokenizers, processors

    ids = _vocabulary(path, text)
    encoder = Plain(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    encoder.normalizer = normalizers.BertNormalizer(lowercase=lower)
    encoder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoder.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return encoder


def _vocabulary(path: Path, text: str) -> dict[str, int]:
    """Token -> the number of its line, from 0."""
    lines = text.removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    missing = [name for name in SPECIAL if name not in lines]
    if missing:
        raise DataError(
            f"{path} has no {' and no '.join(missing)}, so it is no vocabulary of BERT. Give its vocab.txt, a token "
            "in each line, or a tokenizer.json."
        )
    token, count = Counter(lines).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path} has the token {token!r} {count} times. Fetch it again.")
    return {token: number for number, token in enumerate(lines)}
