"""A network's tensors <-> Packed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from zeroskip.concepts import Packed, PackedTensor, Sparse, under_torch_pruning
from zeroskip.errors import PackError
from zeroskip.pack import zs_file
from zeroskip.pack.position_coding import WIDTHS
from zeroskip.pack.tensor_coding import CODERS, decode_tensor, encode_tensor
from zeroskip.pack.tensor_record import check_name


def encode(
    weights: nn.Module | Sparse | Mapping[str, Tensor],
    *,
    coder: str = "huffman",
    index_bits: int | Mapping[str, int] | None = None,
    scales: Mapping[str, Tensor] | None = None,
) -> Packed:
    """Every tensor of the network's state, exact, each in the coding that takes the fewest bytes: positions of weights
    or of the block in which zeros lie, values, codes of them, or bytes and scales. One memory is stored once.

    coder       "fixed": codes of one width; "huffman": Huffman codes too; "arithmetic": arithmetic codes too
    index_bits  width of gaps, 2 to 16, for all tensors or by name, instead of the best; `escapes` counts those that
                were too narrow. Tensors that are smaller without gaps have none all the same.
    scales      float32 tensors (out,) by name: these are stored as bytes; others, where scales are found and it pays

    Exact means that -0.0 is no zero: `weight * mask` makes -0.0 of a pruned negative weight, and that is stored. Raises
    PackError, naming the tensor, for NaN, names and scales that do not fit, and dtypes other than those of DTYPES.

    >>> encode({"fc.bias": torch.tensor([0.0, 1.5])}).tensors[0].coding
    'bitmask'
    """
    state = _state(weights)
    if coder not in CODERS:
        raise PackError(f"the coder {coder!r} is unknown. Give one of {', '.join(CODERS)}.")
    widths = dict(index_bits) if isinstance(index_bits, Mapping) else dict.fromkeys(state, index_bits)
    _check_widths(widths, state)
    if not isinstance(scales, (Mapping, type(None))):
        raise PackError(f"scales is a {type(scales).__name__}. Give a dict of tensors by name.")
    given = dict(scales or {})
    if unknown := [name for name in given if name not in state]:
        raise PackError(f"scales names {unknown[0]!r:.80}, and there is no such tensor. Leave it out.")
    if pruned := under_torch_pruning(state):
        raise PackError(
            f"{pruned[0]!r:.80} is still under torch.nn.utils.prune: all its weights would be stored, and a mask. Call "
            f"torch.nn.utils.prune.remove(module, name) for each first."
        )
    tied = _tied(state)
    given = {tied.get(name, name): each for name, each in given.items()}
    stored = {name: tensor for name, tensor in state.items() if name not in tied}
    tensors = tuple(
        _encode_one(name, tensor, coder, widths.get(name), given.get(name)) for name, tensor in stored.items()
    )
    ledger = zs_file.ledger(tensors, tied, len(zs_file.serialize(tensors, tied)))
    return Packed(tensors, ledger, tied)


def decode(packed: Packed) -> dict[str, Tensor]:
    """The state that was encoded, bit for bit, on the CPU; `model.load_state_dict` takes it. Tied names have the same
    tensor.

    Raises PackError where `packed` was put together by hand and its parts do not fit.

    >>> decode(encode({"fc.bias": torch.tensor([0.0, 1.5])}))
    {'fc.bias': tensor([0.0000, 1.5000])}
    """
    state = {one.name: decode_tensor(one) for one in packed.tensors}
    unknown = next((name for name in packed.tied.values() if name not in state), None)
    if unknown is not None:
        raise PackError(f"a tensor is tied to {unknown!r:.80}, which is not there.")
    return state | {name: state[tensor] for name, tensor in packed.tied.items()}


def _state(weights: nn.Module | Sparse | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    model = weights.model if isinstance(weights, Sparse) else weights
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise PackError(
            f"{type(weights).__name__} holds no named tensors. Give a module, a Sparse, or a dict of tensors."
        )
    return state


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the earlier one that has the same elements in the same memory."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name, tensor in state.items():
        if (
            not isinstance(tensor, Tensor)
            or tensor.layout != torch.strided
            or tensor.is_meta
            or not tensor.numel()
        ):
            continue
        # Lazily negated and conjugated views have the memory of others, and other elements.
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        earlier = first.setdefault((*memory, tensor.is_neg(), tensor.is_conj()), name)
        if earlier != name:
            tied[name] = earlier
    return tied


def _check_widths(widths: Mapping[str, int | None], state: Mapping[str, Tensor]) -> None:
    for name, width in widths.items():
        if name not in state:
            raise PackError(f"index_bits names {name!r:.80}, and there is no such tensor. Leave it out.")
        if width is not None and width not in WIDTHS:
            raise PackError(f"gaps of {width} bits for {name!r:.80} are impossible. Give 2 to 16.")


def _encode_one(
    name: str, tensor: Tensor, coder: str, index_bits: int | None, scales: Tensor | None
) -> PackedTensor:
    try:
        check_name(name)
        if not isinstance(tensor, Tensor):
            raise PackError(f"it is no tensor but of type {type(tensor).__name__}; leave it out")
        by_output = None if scales is None else _plain_scales(scales)
        return encode_tensor(name, tensor, coder=coder, index_bits=index_bits, scales=by_output)
    except PackError as fact:
        raise PackError(f"cannot store the tensor {name!r:.80}: {fact}.") from None


def _plain_scales(scales: object) -> np.ndarray:
    if not isinstance(scales, Tensor) or scales.dtype is not torch.float32 or scales.layout != torch.strided:
        kind = f"{scales.dtype}, {scales.layout}" if isinstance(scales, Tensor) else type(scales).__name__
        raise PackError(f"its scales are {kind}; give a plain float32 tensor, one number for each output")
    return scales.detach().cpu().numpy()
