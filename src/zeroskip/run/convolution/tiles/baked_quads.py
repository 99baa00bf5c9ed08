"""Baked code for quads: four products of 8-bit numbers an instruction, and an epilogue that scales and weaves.

As in `baked_code`, the sums of a group of output channels stay in registers; a weight is a block of four inputs of one
output, and blocks of zeros are not there. Sums are 32-bit integers over all rows, since maps of quads have no room for
them in between. Then come the steps that `quad_job` fixes, and four channels are woven into the bytes of each lane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from zeroskip.emit import x86
from zeroskip.emit.x86 import Code
from zeroskip.run.convolution.tiles.baked_frame import (
    FIRST,
    HALF_WINDOW,
    LAST,
    REACH,
    RESIDUAL_AT,
    SUMS,
    TABLE,
    TABLE_MASK,
    VECTOR,
    WEIGHT_AT,
    Y_AT,
    Baked,
    Blocking,
    Cut,
    Keyed,
    Reads,
    assembled,
    cells,
    frame,
    input_register,
    key,
    loads_in_order,
    product_keys,
    streamed_reads,
)
from zeroskip.run.convolution.tiles.quad_job import QUAD, QuadEpilogue, QuadWeights, largest
from zeroskip.run.element import Scaling

# zmm registers of the epilogue, when inputs are no longer needed.
INVERSE, ORDER, RESIDUAL, TAKEN = SUMS, SUMS + 1, SUMS + 2, SUMS + 3
# Numbers that the residual needs lie in registers from these quads of a group on: in those of the quad before.
FLAGS_FROM, SCALES_FROM = 1, 2
WOVEN = np.array([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15], np.uint8).view("<i4")

SAFE = 2.0**30  # numbers up to here fit 32 bits, however they were rounded

# Places in LAST: odd ones read the stream. First what all quads need, then quad by quad each sum, up to an integer;
# then four of them become a vector of bytes, and their registers may hold numbers for the quads that follow.
LOAD_MASK, LOAD_INVERSE, LOAD_ORDER, REST_OF_ORDER, EPILOGUE, PER_SUM = 0, 3, 5, 7, 8, 32
LOAD_RESIDUAL, TO_FLOAT, LOAD_FACTOR, BIAS, ONE_BYTE, BYTE_TO_FLOAT, ADD_RESIDUAL = 0, 2, 5, 7, 9, 10, 13
MAKE_ZERO, RELU, BOUND, TIMES_INVERSE, MOST, NEAREST, MASKED, STORE_SUM = 14, 16, 19, 20, 23, 24, 26, 28
PACK_FIRST, PACK_SECOND, PACK_BOTH, SHUFFLE, FLIP, WRITE, KEPT = 0, 2, 4, 6, 9, 10, 12
PER_QUAD = QUAD * PER_SUM + KEPT + 2 * QUAD


@dataclass(frozen=True)
class _Outs:
    """Output channels by number, those that fill up the last quad included: `cell`, register and places of each.

    step  bytes of y from one chunk to the next
    """

    cut: Cut
    epilogue: QuadEpilogue
    number: np.ndarray
    step: int

    @property
    def total(self) -> np.ndarray:
        return self.number % self.cut.sums

    @property
    def quad(self) -> np.ndarray:
        """Number of the quad in the group."""
        return self.total // QUAD

    @property
    def cell(self) -> np.ndarray:
        return cells(self.number, 0 * self.number, self.cut)

    def last(self, place: int) -> np.ndarray:
        """Keys in LAST."""
        return key(self.cell, LAST, EPILOGUE + PER_QUAD * self.quad + PER_SUM * (self.total % QUAD) + place)

    def weave(self, place: int) -> np.ndarray:
        """Keys in LAST behind all sums of a quad, of first channels."""
        return key(self.cell, LAST, EPILOGUE + PER_QUAD * self.quad + QUAD * PER_SUM + place)

    def which(self, flags: np.ndarray) -> _Outs:
        """Some of them."""
        return replace(self, number=self.number[flags])


def bake_quads(weights: QuadWeights, epilogue: QuadEpilogue, blocking: Blocking) -> Baked:
    """Machine code for a convolution of quads; all rows are one block.

    >>> numbers = np.ones(4, np.float32)
    >>> words, start, offsets = np.eye(4, 64, dtype=np.int32), np.full(4, -128, np.int32), 64 * np.arange(64)
    >>> weights = QuadWeights(words, start, numbers, numbers, offsets)
    >>> baked = bake_quads(weights, QuadEpilogue(output=Scaling(0.5, 0)), Blocking(band=14))
    >>> len(baked.weights)  # of each output: start, weight, factor, bias; of all: 1 / scale, and the order of bytes
    21
    """
    weights, first = _in_order(weights)
    out, inputs = weights.words.shape
    count, sums, groups = -(-out // SUMS), quad_sums(out), blocking.groups
    cut = Cut(sums, groups, max(1, inputs), blocks=1, chunks=-(-count // groups), size=4)
    vectors = groups * sums // (1 if epilogue.output is None else QUAD)
    step = 0 if blocking.anew else VECTOR * vectors
    real = _Outs(cut, epilogue, np.arange(out), step)
    codes = [*loads_in_order(weights.words != 0, weights.offsets, cut), *_last(real), *frame(cut)]
    codes += _zeros(weights, cut)
    reads = [*_sums(weights, cut), *_scaling(weights, real)]
    output = epilogue.output
    if output is None:
        codes += _stored(real)
    else:
        filled = replace(real, number=np.arange(-(-out // QUAD) * QUAD))
        codes += [*_filling(filled, out), *_woven(filled, output)]
        reads += [*_rounding(weights, real, output), *_order(filled, output)]
    values, streamed, starts = streamed_reads(reads, cut)
    chunks = np.zeros((cut.count, 4), np.int64)
    chunks[:, 1] = (starts + HALF_WINDOW) * cut.size
    chunks[:, 2] = first + REACH // 2
    chunks[:, 3] = np.arange(cut.chunks) * step
    lengths = np.diff(np.append(starts, len(values))) * cut.size
    code, chunks[:, 0] = assembled([*streamed, *codes], lengths, cut, blocking.band)
    return Baked(code, values, chunks)


def quad_sums(out: int) -> int:
    """Output channels of a group, whole quads, of a layer with `out` of them.

    >>> quad_sums(30)
    16
    """
    return -(-out // (-(-out // SUMS) * QUAD)) * QUAD


def _in_order(weights: QuadWeights) -> tuple[QuadWeights, int]:
    """The rows in the order of memory, with offsets from the first one, and where that lies.

    Sums of integers are the same in any order. Neighbouring rows are then read together, and their offsets are short.
    """
    order = np.argsort(weights.offsets, kind="stable")
    first = int(weights.offsets[order[0]]) if len(order) else 0
    words = np.ascontiguousarray(weights.words[:, order])
    return replace(weights, words=words, offsets=weights.offsets[order] - first), first


def _starts(outs: np.ndarray, cut: Cut) -> np.ndarray:
    """Keys of the instructions with which sums begin."""
    return key(cells(outs, 0 * outs, cut), FIRST, 2 * (outs % cut.sums) + 1)


def _zeros(weights: QuadWeights, cut: Cut) -> list[Keyed]:
    """Sums that start at 0."""
    outs = np.flatnonzero(weights.start == 0)
    return [(_starts(outs, cut), x86.zero(outs % cut.sums))]


def _sums(weights: QuadWeights, cut: Cut) -> list[Reads]:
    """Where the other sums start, and products."""
    outs, ks = np.nonzero(weights.words)
    total, inputs = outs % cut.sums, input_register(ks)
    begun = np.flatnonzero(weights.start)
    return [
        Reads(
            product_keys(outs, ks, cut),
            weights.words[outs, ks],
            lambda steps: x86.dot(total, inputs, WEIGHT_AT, steps),
        ),
        Reads(
            _starts(begun, cut),
            weights.start[begun],
            lambda steps: x86.broadcast(begun % cut.sums, WEIGHT_AT, steps),
        ),
    ]


def _bits(numbers: np.ndarray | np.floating | float, count: int) -> np.ndarray:
    """Floats as the integers whose bits they have."""
    return np.full(count, numbers, np.float32).view(np.int32)


def _kept(register: np.ndarray | int, keys: np.ndarray, values: np.ndarray) -> Reads:
    """Numbers that go into registers as they are, for all lanes."""
    return Reads(keys, values, lambda steps: x86.broadcast(register + 0 * keys, WEIGHT_AT, steps))


def _scaling(weights: QuadWeights, outs: _Outs) -> list[Reads]:
    """Numbers of LAST up to y: factor, bias, residual and, where it has to be cut off, the bound."""
    total, count = outs.total, len(outs.number)
    reads = [
        _kept(TAKEN, outs.last(LOAD_FACTOR), _bits(weights.factor, count)),
        Reads(
            outs.last(BIAS),
            _bits(weights.bias, count),
            lambda steps: x86.scaled(total, TAKEN, WEIGHT_AT, steps),
        ),
    ]
    if outs.epilogue.residual is not None:
        reads += _of_residual(outs, np.float32(outs.epilogue.residual.scale))
    bound = _bound(outs.epilogue)
    if bound is not None and not _is_cut_off(outs.epilogue):
        reads.append(Reads(outs.last(BOUND), _bits(bound, count), _limit(total)))
    return reads


def _of_residual(outs: _Outs, scale: np.float32) -> list[Reads]:
    """Numbers that take a byte of the residual out of its lane, and that scale it.

    A byte stays where it is in its lane: it is 2^place too large, and its scale as much too small.
    """
    place = 8 * np.arange(QUAD)
    flags = (np.uint32(0xFF) << place.astype(np.uint32)).view(np.int32)
    scales = _bits(scale * np.exp2(-place).astype(np.float32), QUAD)
    flagged, scaled = outs.which(outs.quad < FLAGS_FROM), outs.which(outs.quad < SCALES_FROM)
    return [
        Reads(
            flagged.last(ONE_BYTE),
            flags[flagged.total % QUAD],
            lambda steps: x86.only_bits(0 * flagged.total + TAKEN, RESIDUAL, WEIGHT_AT, steps),
        ),
        Reads(
            scaled.last(ADD_RESIDUAL),
            scales[scaled.total % QUAD],
            lambda steps: x86.multiply_add(scaled.total, TAKEN, WEIGHT_AT, steps),
        ),
        *_kept_for_the_rest(outs, FLAGS_FROM, flags),
        *_kept_for_the_rest(outs, SCALES_FROM, scales),
    ]


def _kept_for_the_rest(outs: _Outs, start: int, values: np.ndarray) -> list[Reads]:
    """Four numbers into the registers of the quad before number `start`, which is made, where more quads follow."""
    cell = np.unique(outs.cell[outs.quad >= start])
    keys = [key(cell, LAST, EPILOGUE + PER_QUAD * start - 2 * QUAD + 2 * part + 1) for part in range(QUAD)]
    return [
        _kept(QUAD * (start - 1) + part, at, np.full(len(cell), values[part])) for part, at in enumerate(keys)
    ]


def _limit(total: np.ndarray) -> Callable[[np.ndarray], Code]:
    return lambda steps: x86.at_most(total, WEIGHT_AT, steps)


def _rounding(weights: QuadWeights, outs: _Outs, output: Scaling) -> list[Reads]:
    """Numbers of LAST from y on: 1 / scale, and the most that a byte can hold or the activation lets through."""
    total, count, most = outs.total, len(outs.number), np.float32(output.most)
    groups = np.unique(outs.cell)
    inverse = _kept(INVERSE, key(groups, LAST, LOAD_INVERSE), _bits(output.inverse, len(groups)))
    bound = _bound(outs.epilogue)
    if bound is not None and _is_cut_off(outs.epilogue):
        # Rounding keeps order: min(y, bound) / scale = min(y / scale, bound / scale).
        most = min(most, np.float32(bound) * output.inverse)
    # Packing saturates: a limit is needed only below that, or where a sum might leave 32 bits and change its sign.
    if most == output.most and largest(weights, outs.epilogue) < SAFE:
        return [inverse]
    return [inverse, Reads(outs.last(MOST), _bits(most, count), _limit(total))]


def _bound(epilogue: QuadEpilogue) -> float | None:
    return None if epilogue.activation is None else epilogue.activation.bound


def _is_cut_off(epilogue: QuadEpilogue) -> bool:
    """Whether a ReLU needs no instruction, since bytes end at 0 anyway."""
    return epilogue.output is not None and epilogue.output.zero_point == 0


def _last(outs: _Outs) -> list[Keyed]:
    """Instructions of LAST that read no stream."""
    total, groups = outs.total, np.unique(outs.cell)
    mask = x86.load_mask(TABLE, TABLE_MASK)[np.zeros(len(groups), int)]
    codes: list[Keyed] = [
        (key(groups, LAST, LOAD_MASK), mask),
        (outs.last(TO_FLOAT), x86.float_of(total, total)),
    ]
    if outs.epilogue.residual is not None:
        codes += _residual(outs)
    if outs.epilogue.activation is not None and not _is_cut_off(outs.epilogue):
        codes.append((outs.last(MAKE_ZERO), x86.zero(0 * total + TAKEN)))
        codes.append((outs.last(RELU), x86.greater(total, TAKEN)))
    if outs.epilogue.output is not None:
        codes.append((outs.last(TIMES_INVERSE), x86.times(total, total, INVERSE)))
        codes.append((outs.last(NEAREST), x86.nearest_integer(total)))
    return codes


def _residual(outs: _Outs) -> list[Keyed]:
    """Loading a quad of the residual, and its bytes as floats; with numbers in registers, where these are free."""
    first = outs.which(outs.number % QUAD == 0)
    # The pointer has advanced by as many bytes as that to y.
    offset = first.number // QUAD * VECTOR - first.cell // outs.cut.groups * outs.step
    later, last = outs.which(outs.quad >= FLAGS_FROM), outs.which(outs.quad >= SCALES_FROM)
    flags = QUAD * (FLAGS_FROM - 1) + later.total % QUAD
    scales = QUAD * (SCALES_FROM - 1) + last.total % QUAD
    return [
        (first.last(LOAD_RESIDUAL), x86.load(RESIDUAL, RESIDUAL_AT, offset)),
        (later.last(ONE_BYTE), x86.common_bits(TAKEN, RESIDUAL, flags)),
        (outs.last(BYTE_TO_FLOAT), x86.float_of_unsigned(0 * outs.total + TAKEN, TAKEN)),
        (last.last(ADD_RESIDUAL), x86.add_product(last.total, TAKEN, scales)),
    ]


def _stored(outs: _Outs) -> list[Keyed]:
    """Sums as fp32 into y, 0 in lanes without pixels."""
    offset = (outs.number % (outs.cut.groups * outs.cut.sums)) * VECTOR
    return [
        (outs.last(MASKED), x86.masked(outs.total)),
        (outs.last(STORE_SUM), x86.store(outs.total, Y_AT, offset)),
    ]


def _filling(outs: _Outs, out: int) -> list[Keyed]:
    """The channels that fill up the last quad are 0, which becomes the zero point."""
    more = outs.which(outs.number >= out)
    return [(more.last(NEAREST), x86.zero(more.total))]


def _woven(outs: _Outs, output: Scaling) -> list[Keyed]:
    """Four vectors of integers become one of bytes, whose order then is that of the channels."""
    first = outs.which(outs.number % QUAD == 0)
    a, signed = first.total, output.zero_point > 0
    offset = first.number % (outs.cut.groups * outs.cut.sums) // QUAD * VECTOR
    return [
        (first.weave(PACK_FIRST), x86.pack_16(a, a, a + 1)),
        (first.weave(PACK_SECOND), x86.pack_16(a + 2, a + 2, a + 3)),
        (first.weave(PACK_BOTH), x86.pack_8(a, a, a + 2, signed=signed)),
        (first.weave(SHUFFLE), x86.shuffle_bytes(a, a, ORDER)),
        (first.weave(WRITE), x86.store(a, Y_AT, offset)),
    ]


def _order(outs: _Outs, output: Scaling) -> list[Reads]:
    """The order of bytes, once a group; and with a zero point, what turns signed bytes into unsigned ones."""
    groups = np.unique(outs.cell)
    reads = [
        Reads(
            key(groups, LAST, LOAD_ORDER),
            np.full(len(groups), WOVEN[0]),
            lambda steps: x86.broadcast_16(0 * groups + ORDER, WEIGHT_AT, steps),
        ),
        Reads(np.repeat(key(groups, LAST, REST_OF_ORDER), 3), np.tile(WOVEN[1:], len(groups)), None),
    ]
    if output.zero_point:
        first = outs.which(outs.number % QUAD == 0)
        total, flipped = first.total, np.full(len(first.number), output.word, np.int32)
        reads.append(Reads(first.weave(FLIP), flipped, lambda steps: x86.flip_bits(total, WEIGHT_AT, steps)))
    return reads
