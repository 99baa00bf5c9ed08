"""The zeros of activations: what layers read, and how small it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ShapeRow:
    """One layer: what it reads is `channels` x `height` x `width`, what it makes has `filters` channels.

    kernel   (r, s), a number for each axis of the map, as padding and stride; a linear layer is one of 1 x 1 on a map
             of 1 x 1, and one on several rows has them as positions
    padding  in pixels
    before   share of zeros in what the layer reads; after: in what leaves it, after its ReLU and pooling, None where
             that is unknown

    >>> from zeroskip import measure
    >>> row = measure.table(model, x, measure.activations(model, [x]))[1]
    >>> row.channels, row.filters, row.kernel
    (8, 4, (1, 1))
    """

    layer: str
    op: str
    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, ...]
    padding: tuple[int, ...] | str
    stride: tuple[int, ...]
    groups: int
    before: float
    after: float | None
    depth: int = 1


@dataclass(frozen=True)
class NetworkZeros:
    """A trained network on all `examples` of `data`, layer by layer.

    >>> NetworkZeros("LeNet-5", "MNIST", 10000, rows=()).examples
    10000
    """

    network: str
    data: str
    examples: int
    rows: tuple[ShapeRow, ...]


@dataclass(frozen=True)
class MapSizes:
    """The maps that a layer reads: numbers and zeros in them, bits by format, and the fewest bits there can be.

    bound  bits of the entropy of the zeros' places, and 16 for each other number

    >>> sizes = MapSizes(elements=1000, zeros=500, bound=9000.0, bits={"bitmask": 9100})
    >>> 16 * sizes.elements / sizes.bits["bitmask"]  # times smaller
    1.7582...
    """

    elements: int
    zeros: int
    bound: float
    bits: Mapping[str, float]


@dataclass(frozen=True)
class CodedNetwork:
    """Layer -> the sizes of its maps, on `inputs`."""

    inputs: str
    layers: Mapping[str, MapSizes]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CodedNetwork:
        """From the stored findings on Eyeriss.

        >>> layer = {"examples": 1, "elements": 8, "zeros": 4, "bound": 72.0, "bits": {"bitmask": 72}}
        >>> CodedNetwork.from_json({"inputs": "a picture", "layers": {"conv1": layer}}).layers["conv1"].bits
        {'bitmask': 72}
        """
        sizes = {
            name: MapSizes(layer["elements"], layer["zeros"], layer["bound"], layer["bits"])
            for name, layer in value["layers"].items()
        }
        return CodedNetwork(value["inputs"], sizes)
