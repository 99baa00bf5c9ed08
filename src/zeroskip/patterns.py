"""Where zeros may lie, as a short text, and the choice of the weights that survive.

    "free"      any weight may go
    "2:4"       of every 4 consecutive inputs (at one tap) exactly 2 stay; fixes the sparsity at 0.5
    "4x1"       blocks of 4 outputs x 1 input, at one tap, go together
    "1x1x3x3"   blocks of out x in x height x width: here whole 3x3 kernels
    "channel"   whole output channels (rows of a linear weight)

Weights are (out, in) or (out, in, kh, kw); a linear weight counts as a 1x1 convolution.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroskip.errors import PatternError


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern: either `kept` of every `of` inputs, or blocks that live and die together.

    block  (out, in, height, width); 0 stands for the whole axis
    """

    text: str
    block: tuple[int, int, int, int] = (1, 1, 1, 1)
    kept: int = 0
    of: int = 0

    @property
    def fixed_sparsity(self) -> float | None:
        """The only sparsity this pattern can have, or None where it can have any."""
        return 1 - self.kept / self.of if self.of else None


def parse(text: str) -> Pattern:
    """Read a pattern. Raises PatternError, naming the forms there are.

    >>> parse("2:4").fixed_sparsity
    0.5
    >>> parse("4x1").block
    (4, 1, 1, 1)
    """
    if text == "free":
        return Pattern(text)
    if text == "channel":
        return Pattern(text, block=(1, 0, 0, 0))
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        kept, of = map(int, match.groups())
        if 0 < kept < of:
            return Pattern(text, kept=kept, of=of)
    if re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*x[1-9]\d*)?", text):
        sides = [int(side) for side in text.split("x")]
        return Pattern(text, block=tuple([*sides, 1, 1][:4]))  # type: ignore[arg-type]
    raise PatternError(
        f'pattern "{text}" cannot be read. Use "free", "channel", kept:of such as "2:4" '
        f'(with 0 < kept < of), or a block such as "4x1" or "1x1x3x3".'
    )


def of_layer(pattern: str | Mapping[str, str], name: str) -> Pattern:
    """The layer's pattern where one is given for all layers, or by layer name ("free" where it is not named)."""
    return parse(pattern if isinstance(pattern, str) else pattern.get(name, "free"))


def keep(score: Tensor, pattern: Pattern | str, sparsity: float) -> Tensor:
    """Mask of the best-scored weights: bool, shaped like `score`, True is kept.

    Keeps round((1 - sparsity) x blocks) blocks, those with the highest sums of scores; among equals the
    earlier one. score  (out, in) or (out, in, kh, kw), not NaN, higher matters more; sparsity 0..1.
    Raises PatternError where the pattern does not fit the shape or fixes another sparsity.

    >>> keep(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), "2:4", 0.5).tolist()
    [[True, False, True, False]]
    """
    pattern = parse(pattern) if isinstance(pattern, str) else pattern
    check_sparsity(sparsity, pattern)
    if torch.isnan(score).any():
        raise PatternError("the scores hold NaN. Check the weights that they were computed from")
    if pattern.of:
        return _keep_of_each_group(score, pattern)
    summed = block_scores(score, pattern)  # (blocks out, blocks in, blocks high, blocks wide)
    survivors = summed.numel() - round(sparsity * summed.numel())
    mask = torch.zeros(summed.numel(), dtype=torch.bool, device=score.device)
    # A stable sort, since topk may pick any of several equal scores and runs must be repeatable.
    mask[summed.flatten().argsort(descending=True, stable=True)[:survivors]] = True
    mask = mask.reshape(summed.shape)
    for axis, side in enumerate(_block(score, pattern)):
        mask = mask.repeat_interleave(side, dim=axis)
    return mask.reshape(score.shape)


def block_scores(score: Tensor, pattern: Pattern) -> Tensor:
    """Sum of the scores in each block: (out, in, kh, kw) -> that many blocks along each axis."""
    block = _block(score, pattern)
    split = [size for axis, side in zip(_four(score), block, strict=True) for size in (axis // side, side)]
    return score.reshape(split).sum(dim=(1, 3, 5, 7))


def block_size(shape: tuple[int, ...], pattern: Pattern) -> int:
    """Weights in one block of a weight of this shape; for kept:of patterns, 1."""
    return math.prod(_block(torch.empty(shape, device="meta"), pattern))


def check_sparsity(sparsity: float, pattern: Pattern) -> None:
    """PatternError unless `sparsity` is 0..1 and one that `pattern` allows."""
    if not 0 <= sparsity <= 1:  # also catches NaN
        raise PatternError(f"sparsity {sparsity} is not a share from 0 to 1. 0.9 means 90 % zeros")
    fixed = pattern.fixed_sparsity
    if fixed is not None and not math.isclose(sparsity, fixed, abs_tol=1e-9):
        raise PatternError(f'pattern "{pattern.text}" fixes the sparsity at {fixed:g}, not {sparsity:g}')


def _keep_of_each_group(score: Tensor, pattern: Pattern) -> Tensor:
    outs, ins, height, width = _four(score)
    if ins % pattern.of:
        raise PatternError(f"{ins} inputs cannot be split into groups of {pattern.of}")
    groups = score.reshape(outs, ins // pattern.of, pattern.of, height, width)
    order = groups.argsort(dim=2, descending=True, stable=True)  # (out, groups, of, kh, kw)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(2, order[:, :, : pattern.kept], True).reshape(score.shape)


def _four(score: Tensor) -> tuple[int, int, int, int]:
    if score.ndim not in (2, 4):
        raise PatternError(f"a weight {tuple(score.shape)} is neither (out, in) nor (out, in, kh, kw)")
    return (*score.shape, 1, 1)[:4]


def _block(score: Tensor, pattern: Pattern) -> tuple[int, ...]:
    shape = _four(score)
    block = tuple(side or axis for side, axis in zip(pattern.block, shape, strict=True))
    for name, side, axis in zip(("outputs", "inputs", "rows", "columns"), block, shape, strict=True):
        if axis % side:
            raise PatternError(f"{axis} {name} cannot be split into blocks of {side}")
    return block
