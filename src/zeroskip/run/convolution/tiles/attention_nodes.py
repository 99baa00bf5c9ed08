"""Which node of a graph is attention over the places of a map, and what it adds to scores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.graph import Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run.convolution.tiles.forms import Atom, Form
from zeroskip.run.convolution.tiles.node_operations import Operations, plain
from zeroskip.run.convolution.tiles.operations import Attention
from zeroskip.run.convolution.tiles.values import MapValue, Values

ATTENTION, QUERIES_KEYS_VALUES = "scaled_dot_product_attention", 3


def attention_of(node: Node, values: Values) -> Operations:
    """Scaled dot product attention whose heads lie among the channels; none where it is none, or other shapes."""
    arguments = node.arguments
    if kind_of(node) != ATTENTION or arguments.get("dropout_p") or node.shape is None:
        return ()
    found = [values.heads(name) for name in node.inputs]
    whole = [each for each in found if each is not None]
    if len(whole) < len(found) or not QUERIES_KEYS_VALUES <= len(found) <= QUERIES_KEYS_VALUES + 1:
        return ()
    x, keys, given, *masks = whole
    heads, key_heads, size, features = _heads(x), _heads(keys), x.form.shape[-1], given.form.shape[-1]
    count = keys.form.shape[-2]
    fits = keys.form.shape[-1] == size and given.form.shape[-2] == count and _heads(given) == key_heads
    constant = arguments.get("attn_mask")
    if not fits or heads % key_heads or not all(_is_mask(each.form.shape, x, count) for each in masks):
        return ()
    added = None
    if isinstance(constant, Tensor):
        added = _numbers(constant, (heads, x.form.shape[-2], count))
        if added is None:
            return ()
    scale = arguments.get("scale")
    attention = Attention(
        heads, key_heads, 1 / math.sqrt(size) if scale is None else float(cast(float, scale)),
        bool(arguments.get("is_causal")), added,
    )  # fmt: skip
    made = plain(
        node, "attention", x, (heads * features, *x.shape[1:]), _with_features(x.form, heads, features)
    )
    return (replace(made, inputs=tuple(each.base for each in whole), attention=attention),)


def _heads(value: MapValue) -> int:
    return value.form.shape[0] if len(value.form.axes) > 2 else 1


def _is_mask(shape: tuple[int, ...], queries: MapValue, keys: int) -> bool:
    """Whether a changing mask has a number for each key, and each query or none, and each head or none."""
    *heads, rows, columns = shape
    known = queries.form.shape[-2]
    return columns == keys and rows in (1, known) and all(each in (1, _heads(queries)) for each in heads)


def _numbers(mask: Tensor, shape: tuple[int, int, int]) -> Tensor | None:
    """The constant mask as (heads or 1, queries, keys) float32; None where it differs between examples."""
    while mask.ndim > len(shape) and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim > len(shape):
        return None
    if mask.dtype is torch.bool:
        mask = torch.where(mask, 0.0, -math.inf)
    if mask.dtype is not torch.float32:
        return None
    heads = mask.shape[0] if mask.ndim == len(shape) else 1
    try:
        return mask.detach().expand(heads, *shape[1:])
    except RuntimeError:
        return None


def _with_features(form: Form, heads: int, features: int) -> Form:
    """The form ([heads,] places, features) for another number of features of a head."""
    *several, places, _ = form.axes
    first = (Atom("c", heads, features),) if heads > 1 else ()
    last = (Atom("c", features, 1),) if features > 1 else ()
    return Form((*(first for _ in several), places, last))
