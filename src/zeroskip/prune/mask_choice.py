"""Which weights stay: the masks of one round, and a mask drawn at random."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from zeroskip.concepts import Masks, Round
from zeroskip.errors import PatternError, RecipeError
from zeroskip.graph import Weight
from zeroskip.patterns import (
    Pattern,
    block_lengths,
    block_scores,
    block_size,
    check_fit,
    check_sparsity,
    keep,
    of_layer,
)
from zeroskip.prune import scores
from zeroskip.prune.masks import named, parameters


def choose(
    model: nn.Module,
    round_: Round,
    moments: Mapping[str, Tensor] | None = None,
    *,
    also: Collection[str] = (),
) -> Masks:
    """The masks of a round for the model's weights as they are. Zeros have score 0: they go first, so what
    an earlier round pruned stays pruned. A weight that the round does not name keeps all that is not yet zero.

    Raises RecipeError or PatternError with the weight's name.

    moments  name -> mean squares of the weight's gradients; a score that needs them leaves the others as they are
    also     names of weights that would stay dense, whose zeros stay as well

    >>> {name: int(mask.sum()) for name, mask in choose(model, Round(sparsity=0.9)).items()}
    {'fc1': 1, 'fc2': 7}
    """
    _check_round(round_)
    shares = round_.quality if round_.quality is not None else round_.sparsity
    asked = list(shares) if isinstance(shares, Mapping) else []
    free = list(parameters(model))
    found = named(model, dict.fromkeys([*free, *asked, *also]))
    layers = {name: weight.tensor.detach() for name, weight in found.items()}
    masks = {name: weight != 0 for name, weight in layers.items()}
    if round_.quality is not None:
        least = {name: quality_threshold(layers[name], q) for name, q in round_.quality.items()}
        return masks | {name: (layers[name].abs() >= least[name]) & masks[name] for name in least}
    asked = asked if isinstance(shares, Mapping) else free
    cut = [name for name in asked if _is_scored(round_, name, moments)]
    patterns = {name: of_layer(round_.pattern, name) for name in cut}
    scored = {name: vars(scores)[round_.score](layers[name], (moments or {}).get(name)) for name in cut}
    for name in cut:
        with _naming(name, layers[name], patterns[name]):
            _check_fits(found[name], patterns[name])
    sparsity = dict(shares) if isinstance(shares, Mapping) else spread(scored, patterns, shares or 0.0)
    for name in cut:
        with _naming(name, layers[name], patterns[name]):
            masks[name] = keep(scored[name], patterns[name], sparsity[name]) & (scored[name] != 0)
    return masks


def quality_threshold(weight: Tensor, quality: float) -> float:
    """quality x the standard deviation of the layer's weights (Han et al. 2015, section 4).

    After a first pruning that is the deviation of the survivors: zeros are no longer weights.

    >>> quality_threshold(torch.tensor([-1.0, 1.0]), 0.5)
    0.5
    """
    survivors = weight[weight != 0]
    return quality * float(survivors.float().std(correction=0)) if len(survivors) else 0.0


def quality(weight: Tensor, sparsity: float) -> float:
    """The quality whose threshold leaves `sparsity` zeros in the layer: `quality_threshold` the other way round.

    0 where so many are zero already, or where the survivors have no deviation that could be multiplied.

    >>> quality(torch.tensor([-2.0, 2.0, 1.0, -1.0]), 0.5)
    0.948...
    """
    survivors = weight[weight != 0].float()
    kept = round((1 - sparsity) * weight.numel())
    deviation = float(survivors.std(correction=0)) if len(survivors) else 0.0
    if kept >= len(survivors) or not deviation:
        return 0.0
    sizes = survivors.abs().sort(descending=True).values
    last, next_one = float(sizes[kept - 1]) if kept else 2 * float(sizes[0]), float(sizes[kept])
    # Half way between the last that stays and the first that goes: no rounding can exchange them.
    return (last + next_one) / 2 / deviation


def spread(scored: dict[str, Tensor], patterns: dict[str, Pattern], sparsity: float) -> dict[str, float]:
    """One threshold for the whole network: the sparsity that each layer gets when the blocks with the lowest
    mean scores go until `sparsity` of all weights is gone. Patterns that fix their sparsity keep it.

    >>> scored = {"a": torch.tensor([[3.0, 4.0]]), "b": torch.tensor([[1.0, 2.0]])}
    >>> spread(scored, dict.fromkeys(scored, Pattern("free")), 0.5)
    {'a': 0.0, 'b': 1.0}
    """
    check_sparsity(sparsity, Pattern("free"))
    fixed = {name: p.fixed_sparsity for name, p in patterns.items() if p.fixed_sparsity is not None}
    free = [name for name in patterns if name not in fixed]
    if not free:
        return fixed
    # In one type, since a network may have several, and in float32 or more, as its sums are.
    means = {name: _block_means(scored[name], patterns[name]) for name in free}
    every = torch.cat(list(means.values()))
    lengths = torch.cat([block_lengths(tuple(scored[name].shape), patterns[name]).flatten() for name in free])
    order = every.argsort(stable=True)
    pruned = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    pruned[order] = lengths.to(every.device)[order].cumsum(0) <= round(sparsity * int(lengths.sum()))
    counts = [len(mean) for mean in means.values()]
    parts = zip(free, pruned.cpu().split(counts), lengths.split(counts), strict=True)
    return fixed | {name: int(own[part].sum()) / int(own.sum()) for name, part, own in parts}


def _block_means(score: Tensor, pattern: Pattern) -> Tensor:
    """The sums of blocks by the weights of a whole one, so that layers of other blocks compare."""
    return block_scores(score, pattern).flatten() / block_size(tuple(score.shape), pattern)


def probabilistic(weight: Tensor, sparsity: float, generator: torch.Generator) -> Tensor:
    """A mask shaped like `weight` that drops exactly round(sparsity x weights) of them at random, small ones
    more often: survivors are drawn without replacement, each draw in proportion to |w| (Han et al. 2015,
    section 3, name the idea; the law is ours). A zero survives only where too few other weights are left.

    Drawn by Gumbel keys log |w| - log(-log u), the largest of which stay: the logarithm of the keys of
    Efraimidis and Spirakis 2006, so that tiny weights do not overflow. Raises PatternError for a sparsity
    outside 0..1.

    >>> probabilistic(torch.tensor([0.0, 1.0, 2.0]), 1 / 3, torch.Generator().manual_seed(0))
    tensor([False,  True,  True])
    """
    check_sparsity(sparsity, Pattern("free"))
    size = weight.detach().abs().double().flatten()
    u = torch.rand(len(size), generator=generator, device=generator.device, dtype=torch.float64)
    # u may be exactly 0, whose key is the lowest: only a zero weight may have that one.
    u = u.clamp(min=torch.finfo(torch.float64).tiny).to(size.device)
    keys = size.log() - (-u.log()).log()
    kept = len(size) - round(sparsity * len(size))
    mask = torch.zeros(len(size), dtype=torch.bool, device=size.device)
    mask[keys.argsort(descending=True, stable=True)[:kept]] = True
    return mask.reshape(weight.shape)


def _check_round(round_: Round) -> None:
    score = vars(scores).get(round_.score)
    if not callable(score) or score.__module__ != scores.__name__:
        raise RecipeError(f'there is no score "{round_.score}". zeroskip.prune.scores has those there are.')
    if round_.quality is not None and (round_.pattern != "free" or round_.sparsity is not None):
        raise RecipeError("a round by quality takes neither pattern nor sparsity: its threshold decides.")


def _check_fits(weight: Weight, pattern: Pattern) -> None:
    transposed = any(isinstance(place.module, _ConvTransposeNd) for place in weight.places)
    if transposed and pattern.text != "free":
        raise PatternError(
            "a transposed convolution stores (in, out, taps ...), and a pattern lies on outputs first"
        )
    check_fit(tuple(weight.tensor.shape), pattern)


def _is_scored(round_: Round, name: str, moments: Mapping[str, Tensor] | None) -> bool:
    """Whether the weight has what the score looks at; without any moments the score itself says what it lacks."""
    return moments is None or name in moments or round_.score not in scores.OF_GRADIENTS


@contextmanager
def _naming(name: str, weight: Tensor, pattern: Pattern) -> Iterator[None]:
    """Inside, a PatternError says which layer it is about."""
    try:
        yield
    except PatternError as fact:
        raise PatternError(
            f'layer "{name}" {tuple(weight.shape)} cannot take pattern "{pattern.text}": {fact}. '
            f'Give this layer another pattern, such as {{"{name}": "free"}}, or leave it out of the round.'
        ) from None
