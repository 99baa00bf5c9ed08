"""Encoders of sentences and a small ViT: sizes that others count, and what PyTorch's own layer computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroskip import models
from zeroskip.models.transformer import EncoderLayer

SMALL = models.EncoderSizes(layers=2, width=24, heads=3, hidden=40)


def parameters(build: type[nn.Module] | object, *arguments: object) -> int:
    with torch.device("meta"):
        return sum(one.numel() for one in build(*arguments).parameters())  # type: ignore[operator]


def test_parameters_are_as_many_as_others_count() -> None:
    # transformers counts 85,054,464 and 10,646,784 in BertModel.encoder; DeiT-Ti has 5,717,416.
    assert parameters(models.encoder, models.BERT_BASE) == 85_054_464
    assert parameters(models.encoder, models.MINILM) == 10_646_784
    assert parameters(models.vit_tiny) == 5_717_416


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_a_layer_computes_what_pytorch_s_own_does(norm_first: bool) -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(SMALL, norm_first=norm_first).eval()
    theirs = nn.TransformerEncoderLayer(
        24,
        3,
        40,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=norm_first,
    ).eval()
    for norm in (ours.attention_norm, ours.norm):
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    inputs = ours.query, ours.key, ours.value
    theirs.self_attn.in_proj_weight.copy_(torch.cat([layer.weight for layer in inputs]))
    theirs.self_attn.in_proj_bias.copy_(torch.cat([layer.bias for layer in inputs]))
    for name, layer in {
        "self_attn.out_proj": ours.output,
        "linear1": ours.up,
        "linear2": ours.down,
        "norm1": ours.attention_norm,
        "norm2": ours.norm,
    }.items():
        theirs.get_submodule(name).load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_vit_reads_its_patches_in_rows_behind_the_token_that_is_classified() -> None:
    torch.manual_seed(0)
    model = models.VisionTransformer(SMALL, side=48, classes=5).eval()
    x = torch.randn(2, 3, 48, 48)
    patches = x.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(2, 9, 3 * 16 * 16)
    tokens = patches @ model.patches.weight.flatten(1).T + model.patches.bias
    tokens = torch.cat([model.class_token.repeat(2, 1, 1), tokens], 1) + model.positions
    expected = model.head(model.norm(model.layers(tokens))[:, 0])
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
