"""What is raced: layers and networks, how many zeros they have, batch and threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from zeroskip.errors import RecipeError
from zeroskip.models.convolutions import RECTIFIED


@dataclass(frozen=True)
class Case:
    """One race.

    network   a name in `seeded_networks.py`: a single layer, a fully connected layer or a whole network
    sparsity  share of zeros in its pruned layers, drawn at random
    weights   "int8": zeroskip may store the weights in 8 bits and is judged by that
    cold      200 MB are streamed through the caches between two calls, as other work would
    pattern   where zeros may lie; see `zeroskip.patterns`
    input_sparsity  share of zeros in the input, drawn at random; its other values are positive, as after a ReLU
    clock     "wall" or "cpu": seconds that pass, or that the engine's process computes
    precision  "int8": engines that compute in eight bits are raced, all calibrated on the same inputs, and fp32 beside
    tokens    how many of them a transformer reads at once; 0 for other networks

    >>> Case("alexnet_fc6", 0.91, weights="int8", cold=True).key
    'alexnet_fc6 91 %, batch 1, 1 thread, int8 weights, cold'
    """

    network: str
    sparsity: float
    batch: int = 1
    threads: int = 1
    weights: str = "fp32"
    cold: bool = False
    pattern: str = "free"
    input_sparsity: float = 0.0
    clock: str = "wall"
    precision: str = "fp32"
    tokens: int = 0

    @property
    def is_recorded(self) -> bool:
        """Whether it is a layer of a trained network, "ResNet-20/layer1.0.conv2", on the inputs that it really has."""
        return "/" in self.network

    @property
    def in_int8(self) -> bool:
        """Whether engines that compute in eight bits are raced."""
        return self.precision == "int8"

    @property
    def is_transformer(self) -> bool:
        """Whether the network computes on tokens."""
        return self.tokens > 0

    @property
    def key(self) -> str:
        """The case in words; no two cases have the same."""
        weights = f"{self.weights} weights" if self.weights != "fp32" else ""
        tokens = f"{self.tokens} tokens" if self.tokens else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        inputs = f"{100 * self.input_sparsity:g} % zeros in the input" if self.input_sparsity else ""
        int8 = "int8" if self.in_int8 else ""
        remarks = weights, "cold" if self.cold else "", self.pattern.replace("free", ""), int8, inputs
        dense = self.input_sparsity and not self.sparsity
        name = self.network if dense else f"{self.network} {100 * self.sparsity:g} %"
        return ", ".join(filter(None, (name, tokens, f"batch {self.batch}", threads, *remarks)))

    def to_json(self) -> dict[str, object]:
        """What `from_json` reads."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Case:
        """The case that `to_json` wrote, by this zeroskip or an older one, whose cases have `needs` as well."""
        return Case(**{name: field for name, field in value.items() if name != "needs"})  # type: ignore[arg-type]


# kernel x kernel, input channels, output channels, height and width of the map; stride 1, padding kernel // 2
LAYERS = {
    "1x1_64_256_56": (1, 64, 256, 56),
    "1x1_256_64_56": (1, 256, 64, 56),
    "1x1_512_128_28": (1, 512, 128, 28),
    "1x1_1024_256_14": (1, 1024, 256, 14),
    "1x1_256_1024_14": (1, 256, 1024, 14),
    "1x1_2048_512_7": (1, 2048, 512, 7),
    "3x3_64_64_56": (3, 64, 64, 56),
    "3x3_128_128_28": (3, 128, 128, 28),
    "3x3_256_256_14": (3, 256, 256, 14),
    "3x3_512_512_7": (3, 512, 512, 7),
    "vgg_64_64_224": (3, 64, 64, 224),
    "vgg_128_128_112": (3, 128, 128, 112),
    "vgg_256_256_56": (3, 256, 256, 56),
    "vgg_512_512_28": (3, 512, 512, 28),
    "vgg_512_512_14": (3, 512, 512, 14),
    "alex2_64_192_5x5_27": (5, 64, 192, 27),
    "alex3_192_384_13": (3, 192, 384, 13),
    "alex4_384_256_13": (3, 384, 256, 13),
    "alex5_256_256_13": (3, 256, 256, 13),
}

# inputs, outputs
LINEAR = {
    "alexnet_fc6": (9216, 4096),
    "alexnet_fc7": (4096, 4096),
    "vgg16_fc6": (25088, 4096),
    "ffn_down": (11008, 4096),  # of a language model of 7 billion weights
}

# Networks that convolve no pictures.
SEQUENCES = ("wav2letter", "lstm")

# Eight bits gain by zeros in four neighbouring inputs.
_in_int8 = partial(Case, pattern="1x4", precision="int8")
INT8 = (
    *(_in_int8("resnet50", sparsity) for sparsity in (0.90, 0.80)),
    _in_int8("resnet50", 0.90, batch=16),
    *(_in_int8(network, 0.90) for network in ("vgg16", "mobilenet_v1", "alexnet")),
    *(_in_int8(layer, 0.90) for layer in LAYERS),
)

# Free zeros in fp32 and blocks in int8 are cases of their own: an engine is compared with ours of its precision.
TRANSFORMERS = (
    *(Case("bert_base", sparsity, tokens=128) for sparsity in (0.90, 0.80)),
    Case("bert_base", 0.90, tokens=384),
    *(Case("minilm", 0.90, tokens=tokens) for tokens in (128, 16)),
    Case("vit_tiny", 0.80, tokens=197),
    *(_in_int8("bert_base", sparsity, tokens=128) for sparsity in (0.90, 0.80)),
    _in_int8("bert_base", 0.90, tokens=384),
    _in_int8("bert_base", 0.90, tokens=128, batch=16),
    *(_in_int8("minilm", 0.90, tokens=tokens) for tokens in (128, 16)),
)

# Every length, batch and share of zeros: hours.
ENCODERS = tuple(
    make(network, sparsity, batch=batch, tokens=tokens)
    for network in ("bert_base", "minilm")
    for make in (Case, _in_int8)
    for sparsity in (0.90, 0.80)
    for batch in (1, 16)
    for tokens in (16, 128, 384)
)

CASES = (
    *(Case(layer, sparsity) for layer in LAYERS for sparsity in (0.80, 0.90, 0.95)),
    *(Case("resnet50", sparsity) for sparsity in (0.90, 0.95)),
    *(Case(network, 0.90) for network in ("vgg16", "alexnet", "mobilenet_v1")),
    *(Case(network, 0.90, batch=16) for network in ("resnet50", "mobilenet_v1")),
    *(Case(network, 0.90, batch=16, threads=2) for network in ("resnet50", "mobilenet_v1")),
    *(Case(network, 0.90) for network in ("mobilenet_v3_large", "efficientnet_b0")),
    *(Case(network, 0.90) for network in ("dcgan_generator", "wav2letter", "lstm")),
    Case("lstm", 0.90, batch=16),
    # The shares that Han et al. (2015) kept of these layers.
    Case("alexnet_fc6", 0.91, weights="int8", cold=True),
    Case("alexnet_fc7", 0.91, weights="int8", cold=True),
    Case("vgg16_fc6", 0.96, weights="int8", cold=True),
    *INT8,
    *TRANSFORMERS,
)

QUICK = (
    *(Case(name, 0.90) for name in ("3x3_128_128_28", "resnet20")),
    *(_in_int8(name, 0.90) for name in ("3x3_256_256_14", "resnet20")),
)

# The convolutions with more weights than a second-level cache holds, the first thing of which a call sees is memory.
FAR = ("AlexNetI Conv3", "AlexNetI Conv4", "AlexNetI Conv5", "Inception5b.3")

ACTIVATIONS = (
    *(
        Case(name, 0.0, batch=batch, input_sparsity=layer.sparsity, clock="cpu")
        for batch in (1, 16)
        for name, layer in RECTIFIED.items()
    ),
    *(Case(name, 0.0, cold=True, input_sparsity=RECTIFIED[name].sparsity, clock="cpu") for name in FAR),
    *(
        Case("ffn_down", 0.0, cold=True, input_sparsity=zeros, clock="cpu")
        for zeros in (0.70, 0.85, 0.90, 0.95)
    ),
)


def select(
    cases: Sequence[Case],
    *,
    networks: Sequence[str] | None = None,
    sparsities: Sequence[float] | None = None,
    threads: Sequence[int] | None = None,
    precisions: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
) -> list[Case]:
    """The cases with one of these networks, sparsities, threads, precisions, numbers of tokens; nothing given: any.

    Raises RecipeError where none is left.

    >>> [case.precision for case in select(CASES, networks=["vgg16"])]
    ['fp32', 'int8']
    """
    wanted = {
        "network": networks,
        "sparsity": sparsities,
        "threads": threads,
        "precision": precisions,
        "tokens": tokens,
    }
    chosen = [
        case
        for case in cases
        if all(not values or getattr(case, name) in values for name, values in wanted.items())
    ]
    if chosen:
        return chosen
    known = ", ".join(dict.fromkeys(case.network for case in cases))
    raise RecipeError(
        f"no case has {' and '.join(f'{name} {_words(values)}' for name, values in wanted.items())}. "
        f"Networks: {known}; "
        f"sparsities: {_words(sorted({case.sparsity for case in cases}))}; "
        f"precisions: {_words(sorted({case.precision for case in cases}))}; "
        f"tokens: {_words(sorted({case.tokens for case in cases if case.tokens}))}."
    )


def _words(values: Iterable[object] | None) -> str:
    return " or ".join(map(str, values or ())) or "any"
