"""What a segment calls, as data: its steps, and the tensors that enter and leave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zeroskip.run.convolution.tiles.forms import Form, MapShape, channels_first, from_map, to_map
from zeroskip.run.convolution.tiles.steps import Chain


@dataclass(frozen=True)
class SegmentCode:
    """What a segment calls: the operations of a subgraph in machine code.

    chain            its steps, one call for `images` examples
    inputs, outputs  values whose tensors it reads and writes -> their shapes, for one example; the words 0, 1, ... of
                     a workspace hold the tensors' addresses in this order
    bytes            size of a workspace
    forms            of the tensors that enter and leave
    """

    chain: Chain
    images: int
    inputs: dict[str, MapShape]
    outputs: dict[str, MapShape]
    bytes: int
    forms: dict[str, Form]

    @cached_property
    def as_they_are(self) -> frozenset[str]:
        """Values whose tensors the code reads and writes in PyTorch's form."""
        shapes = {**self.inputs, **self.outputs}
        return frozenset(
            name
            for name, form in self.forms.items()
            if form.is_channels_last or form == channels_first(shapes[name])
        )

    def tensor(self, name: str, values: Tensor) -> Tensor:
        """A batch of a value that enters or leaves, in PyTorch's form, as the code reads or writes it."""
        if name not in self.as_they_are:
            values = to_map(self.forms[name], self.inputs.get(name) or self.outputs[name], values)
        return values.contiguous()

    def empty(self, name: str, count: int) -> Tensor:
        """A tensor for the code to write `count` examples of a value that leaves into."""
        shape = self.forms[name].shape if name in self.as_they_are else self.outputs[name]
        return torch.empty(count, *shape)

    def returned(self, name: str, written: Tensor) -> Tensor:
        """What the code wrote, in PyTorch's form."""
        return written if name in self.as_they_are else from_map(self.forms[name], written)
