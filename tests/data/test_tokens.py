"""Sentences become the ids that BERT's rules say; files that are no tokenizer are refused in words."""

from __future__ import annotations

import gzip
import importlib
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.data import sentences, tokens
from zeroskip.errors import DataError, FileError

LETTERS = "abcdefgh"
VOCABULARY = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        ",",
        ".",
        "'",
        "[",
        "]",
        "-",
        "中",
        "ab",
        "abc",
        "##bc",
        "cde",
    ),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS[:6]),
]
NUMBERS = {token: number for number, token in enumerate(VOCABULARY)}


def by_the_rules(sentence: str, most: int = 256) -> list[int]:
    """BERT's tokens, as its publishers describe them, one step after the other."""
    text = "".join(
        " " if each in "\t\n\r" or unicodedata.category(each) == "Zs" else each
        for each in sentence
        if each in "\t\n\r" or unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    text = "".join(f" {each} " if "一" <= each <= "鿿" else each for each in text)
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(each for each in text if unicodedata.category(each) != "Mn")
    apart = "".join(f" {each} " if is_punctuation(each) else each for each in text)
    ids = [number for word in apart.split() for number in pieces(word)]
    return [NUMBERS["[CLS]"], *ids[: most - 2], NUMBERS["[SEP]"]]


def is_punctuation(each: str) -> bool:
    ascii_marks = any(
        first <= ord(each) <= last for first, last in ((33, 47), (58, 64), (91, 96), (123, 126))
    )
    return ascii_marks or unicodedata.category(each).startswith("P")


def pieces(word: str) -> list[int]:
    """The longest known piece, then the longest known "##" piece of the rest; unknown as a whole otherwise."""
    found, start = [], 0
    while start < len(word):
        ends = [
            end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in NUMBERS
        ]
        if not ends or len(word) > 100:
            return [NUMBERS["[UNK]"]]
        found.append(NUMBERS[("##" if start else "") + word[start : ends[0]]])
        start = ends[0]
    return found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tokens.Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf8")
    return tokens.load(path)


WRITTEN = "abcdefghABCÉéñ 中国,.'[]-\u2013\t\n\u0301\u00a0\u0007\u200bß«»$"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from(WRITTEN), max_size=24), min_size=1, max_size=4))
def test_tokens_are_those_of_the_rules(tokenizer: tokens.Tokenizer, texts: list[str]) -> None:
    assert tokens.encode(tokenizer, texts) == [by_the_rules(text) for text in texts]


def test_long_words_are_unknown_and_long_sentences_are_cut(tokenizer: tokens.Tokenizer) -> None:
    for text in ("ab" + "c" * 98, "ab" + "c" * 99, "a b " * 200, "", " "):
        assert tokens.encode(tokenizer, [text]) == [by_the_rules(text)]
    assert len(tokens.encode(tokenizer, ["a b " * 200])[0]) == 256


def test_what_looks_like_a_special_token_is_text(tokenizer: tokens.Tokenizer) -> None:
    assert tokens.encode(tokenizer, ["[CLS]"]) == [by_the_rules("[CLS]")]


def test_letters_stay_as_they_are_where_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\nab\r\nAB\r\n")  # as Windows ends its lines
    assert tokens.encode(tokens.load(path, lower=False), ["AB ab"]) == [[2, 5, 4, 3]]
    assert tokens.encode(tokens.load(path), ["AB ab"]) == [[2, 4, 4, 3]]


def test_a_tokenizer_json_gives_the_same_ids(tokenizer: tokens.Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.encoder.save(str(path))
    read = tokens.load(path, most=5)
    assert (read.words, read.filler) == (tokenizer.words, tokenizer.filler) == (len(VOCABULARY), 0)
    assert tokens.encode(read, ["abc a b c d"]) == [by_the_rules("abc a b c d", most=5)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vocab.txt", b"[PAD]\n[CLS]\n[SEP]\na\n", r"has no \[UNK\], so it is no vocabulary of BERT"),
        ("vocab.txt", b"", r"has no \[UNK\] and no \[CLS\]"),
        ("vocab.txt", b"\xff\xfe\x00", "is no text"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "has the token 'a' 2 times"),
        ("tokenizer.json", b"[PAD]\n[UNK]", r"is no tokenizer\.json"),
        ("tokenizer.json", b"{}", r"is no tokenizer\.json"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        tokens.load(tmp_path / name)


def test_what_is_no_list_of_sentences_is_refused(tokenizer: tokens.Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        tokens.load(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="most=2 leaves no token"):
        tokens.load(tmp_path / "absent.txt", most=2)
    for given_, words in (
        ("a b", "one sentence was given"),
        ([3], "sentence 0 is a int"),
        (["a", "\ud800"], "half"),
    ):
        with pytest.raises(DataError, match=words):
            tokens.encode(tokenizer, given_)  # type: ignore[arg-type]


def test_there_must_be_a_sentence() -> None:
    with pytest.raises(DataError, match="there is no sentence"):
        tokens.padded([])
    assert tokens.alike([]) == []


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str, *_: object) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"pip install 'zeroskip\[text\]'"):
        tokens.load(tmp_path / "vocab.txt")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=30), st.integers(1, 8))
def test_sentences_are_put_together_by_length_each_once(lengths: list[int], size: int) -> None:
    ids = [[1] * length for length in lengths]
    parts = list(tokens.by_length(ids, size))
    assert sorted(number for part in parts for number in part) == list(range(len(ids)))
    for part in parts:
        inputs = tokens.padded([ids[number] for number in part], filler=7)
        assert len(part) <= size
        assert inputs["input_ids"].shape[1] == 16 * -(-max(lengths[number] for number in part) // 16)
        assert {-(-lengths[number] // 16) for number in part} == {inputs["input_ids"].shape[1] // 16}
        assert inputs["attention_mask"].sum(1).tolist() == [lengths[number] for number in part]
        assert torch.equal(inputs["input_ids"] == 7, inputs["attention_mask"] == 0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, "is damaged"),
        ("split\tx\ntrain\tb\n", "should have 6 columns, and line 2 has fewer"),
        ("titles\n" + "\t".join(["dev"] * 6) + "\n", "no pair of the split train"),
        ("titles\n" + "\t".join(["train"] * 6) + "\n", "a score that is no number"),
    ],
)
def test_damaged_pairs_are_refused(tmp_path: Path, table: str | None, words: str) -> None:
    (tmp_path / "sts").mkdir()
    content = b"no gzip" if table is None else gzip.compress(table.encode())
    (tmp_path / "sts" / "stsb.tsv.gz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        sentences.pairs(tmp_path)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_data_set_is_whole_and_sentences_are_shuffled_alike(sentence_folder: Path) -> None:
    assert {split: len(pairs) for split, pairs in sentences.pairs(sentence_folder).items()} == {
        "train": 5749,
        "validation": 1500,
        "test": 1379,
    }
    every = sentences.unlabelled(sentence_folder)
    assert len(every) == len({*every}) == 200_781
    assert every[:2] == sentences._unlabelled.__wrapped__(sentence_folder / "sts" / "sentences.tsv.gz")[:2]
