"""Han et al.: EIE: Efficient Inference Engine on Compressed Deep Neural Network, ISCA 2016."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "eie"
FC8 = "eie-fc8"
TITLE = "EIE (Han et al., ISCA 2016, arXiv 1602.01528)"


@dataclass(frozen=True)
class EieLayer:
    """One layer of tables III and IV: sizes, shares of non-zeros in %, microseconds on 64 elements.

    theoretical  entries / elements / clock;  actual  with the waiting of elements for each other
    """

    name: str
    network: str
    inputs: int
    outputs: int
    weights: str
    seen: str
    theoretical: str
    actual: str


LAYERS = (
    EieLayer("Alex-6", "alexnet", 9216, 4096, "9", "35.1", "28.1", "30.3"),
    EieLayer("Alex-7", "alexnet", 4096, 4096, "9", "35.3", "11.7", "12.2"),
    EieLayer("Alex-8", "alexnet", 4096, 1000, "25", "37.5", "8.9", "9.9"),
    EieLayer("VGG-6", "vgg16", 25088, 4096, "4", "18.3", "28.1", "34.4"),
    EieLayer("VGG-7", "vgg16", 4096, 4096, "4", "37.5", "7.9", "8.7"),
    EieLayer("VGG-8", "vgg16", 4096, 1000, "23", "41.1", "7.3", "8.4"),
    EieLayer("NT-We", "", 4096, 600, "10", "100", "5.2", "8.0"),
    EieLayer("NT-Wd", "", 600, 8791, "11", "100", "13.0", "13.9"),
    EieLayer("NT-LSTM", "", 1201, 2400, "10", "100", "6.5", "7.5"),
)
