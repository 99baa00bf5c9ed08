"""A network's tensors <-> Packed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from zeroskip.concepts import Packed, PackedTensor, Sparse
from zeroskip.errors import PackError
from zeroskip.pack import container
from zeroskip.pack.tensor import decode_tensor, encode_tensor


def encode(weights: nn.Module | Sparse | Mapping[str, Tensor]) -> Packed:
    """Every tensor of the network's state, exact, each in the coding that takes the fewest bytes.

    Exact means that -0.0 is no zero: `weight * mask` makes -0.0 of a pruned negative weight, and that is
    stored; `weight.masked_fill(~mask, 0)` makes 0.0. Raises PackError, naming the tensor, for NaN,
    dtypes other than bool, integers and floats of up to 64 bits, and names that cannot be stored.

    >>> encode({"fc.bias": torch.tensor([0.0, 1.5])}).tensors[0].coding
    'bitmask'
    """
    state = _state(weights)
    tensors = tuple(_encode_one(name, tensor) for name, tensor in state.items())
    return Packed(tensors, container.ledger(tensors, len(container.serialize(tensors))))


def decode(packed: Packed) -> dict[str, Tensor]:
    """The state that was encoded, bit for bit, on the CPU; `model.load_state_dict` takes it.

    Raises PackError where `packed` was put together by hand and its parts do not fit.

    >>> decode(encode({"fc.bias": torch.tensor([0.0, 1.5])}))
    {'fc.bias': tensor([0.0000, 1.5000])}
    """
    return {one.name: decode_tensor(one) for one in packed.tensors}


def _state(weights: nn.Module | Sparse | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    model = weights.model if isinstance(weights, Sparse) else weights
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise PackError(
            f"{type(weights).__name__} holds no named tensors. Give a module, a Sparse, or a dict of tensors."
        )
    return state


def _encode_one(name: str, tensor: Tensor) -> PackedTensor:
    try:
        container.check_name(name)
        if not isinstance(tensor, Tensor):
            raise PackError(f"it is no tensor but of type {type(tensor).__name__}; leave it out")
        return encode_tensor(name, tensor)
    except PackError as fact:
        raise PackError(f"cannot store the tensor {name!r:.80}: {fact}.") from None
