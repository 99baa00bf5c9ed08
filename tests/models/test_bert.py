"""BERT equals the formula of its publishers, word by word; padding changes nothing; it has the published weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zeroskip.models import BertSizes, SentenceEncoder

SIZES = BertSizes(words=11, positions=20, layers=2, width=12, heads=3, wide=20)


@pytest.fixture
def network() -> SentenceEncoder:
    torch.manual_seed(0)
    network = SentenceEncoder(SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.double().eval()


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean()
    scaled = centred / (centred.square().mean() + 1e-12).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def by_formula(ids: list[int], w: dict[str, Tensor]) -> Tensor:
    """One sentence, one word after the other, with sums written out."""
    table = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    kind = w["embeddings.token_type_embeddings.weight"][0]
    h = [norm(table[0][one] + table[1][at] + kind, w, "embeddings.LayerNorm") for at, one in enumerate(ids)]
    size = SIZES.width // SIZES.heads
    for number in range(SIZES.layers):
        at = f"encoder.layer.{number}"
        q, k, v = ([linear(x, w, f"{at}.attention.self.{n}") for x in h] for n in ("query", "key", "value"))
        seen = []
        for mine in q:
            heads = []
            for start in range(0, SIZES.width, size):
                part = slice(start, start + size)
                powers = [math.exp(float(mine[part] @ key[part]) / math.sqrt(size)) for key in k]
                heads.append(sum(p * value[part] for p, value in zip(powers, v, strict=True)) / sum(powers))
            seen.append(torch.cat(heads))
        for place, x in enumerate(seen):
            y = linear(x, w, f"{at}.attention.output.dense") + h[place]
            y = norm(y, w, f"{at}.attention.output.LayerNorm")
            wide = linear(y, w, f"{at}.intermediate.dense")
            gelu = wide * (1 + torch.erf(wide / math.sqrt(2))) / 2
            h[place] = norm(linear(gelu, w, f"{at}.output.dense") + y, w, f"{at}.output.LayerNorm")
    mean = sum(h) / len(h)
    return mean / mean.square().sum().sqrt()


def test_its_vectors_are_those_of_the_formula_whatever_the_padding(network: SentenceEncoder) -> None:
    ids = torch.randint(11, (3, 4))
    mask = torch.arange(4) < torch.tensor([[4], [3], [1]])
    found = network(ids, mask.long())
    for row, kept, vector in zip(ids, mask, found, strict=True):
        torch.testing.assert_close(vector, by_formula(row[kept].tolist(), network.state_dict()))
    other = network(torch.where(mask, ids, 9), mask)  # a mask may be bool, and padding is any word
    torch.testing.assert_close(other, found)


def test_it_has_the_published_numbers_of_weights() -> None:
    parameters = dict(SentenceEncoder().named_parameters())
    counts = {
        part: sum(each.numel() for name, each in parameters.items() if name.startswith(part))
        for part in ("encoder", "embeddings")
    }
    assert counts == {"encoder": 10_646_784, "embeddings": 11_918_592}
