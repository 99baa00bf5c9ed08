"""Shares of zeros in AlexNet and VGG-16 on which the rows of several papers rest: by Han et al. 2015 and by Eyeriss."""

from __future__ import annotations

from zeroskip.papers.common.masked_layers import DENSE, NonZeros, convolutions, masked
from zeroskip.papers.common.rules import figure
from zeroskip.papers.eyeriss import published as eyeriss
from zeroskip.papers.han2015 import published as han2015
from zeroskip.simulate import Workload

HAN, EYERISS = "inputs by Han et al.", "inputs by Eyeriss"
READINGS = (HAN, EYERISS)
"""Shares of zeros in the inputs by Han et al. 2015, tables 4 and 5; as Eyeriss met them, JSSC 2017, tables V and VI."""


def kept(network: str) -> list[float]:
    """Shares of weights left in the convolutions by Han et al. 2015.

    >>> kept("alexnet")
    [0.84, 0.38, 0.35, 0.37, 0.37]
    """
    count = len(convolutions(network))
    return [round(figure(layer.kept).value / 100, 9) for layer in han2015.LAYERS[network][:count]]


def seen(network: str, reading: str) -> list[float]:
    """Shares of non-zeros in the convolutions' inputs, by one of READINGS.

    >>> seen("alexnet", HAN)
    [1.0, 0.88, 0.52, 0.37, 0.4]
    """
    count = len(convolutions(network))
    if reading == HAN:  # an input is what the layer before handed on
        outputs = [layer.output for layer in han2015.LAYERS[network][: count - 1]]
        return [DENSE, *(figure(output).value / 100 for output in outputs)]
    return [1 - figure(zeros).value / 100 for zeros in eyeriss.ZEROS[network]]


def workloads(network: str, reading: str, *, variation: float = 0.0) -> list[Workload]:
    """The convolutions of a network with the weights of Han et al. and inputs by one of READINGS.

    An output has the zeros of the input that it becomes; the last convolution's are always those of Han et al.
    """
    inputs = seen(network, reading)
    last = figure(han2015.LAYERS[network][len(inputs) - 1].output).value / 100
    shares = NonZeros(kept(network), inputs, [*inputs[1:], last], variation)
    return masked(convolutions(network), shares)
