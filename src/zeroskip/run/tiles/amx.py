"""Convolutions by AMX, which multiplies whole tiles: for zeros in blocks of 16 or 32 outputs x 32 inputs at one tap.

AMX multiplies 16 rows of 32 weights by 16 pairs of inputs for 16 lanes. In a map, the channels of a place lie next to
each other, so 16 of them are one piece of 1024 bytes: the sums of 16 outputs for the 16 lanes of a vector, and, in a
map whose numbers are pairs of channels in bfloat16, 32 inputs. A zero block is not in the list, and costs nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.errors import EngineError
from zeroskip.run.kernels.compiled import starts
from zeroskip.run.tiles.convolution import Job, table
from zeroskip.run.tiles.layout import Map
from zeroskip.run.tiles.steps import Step, activated, compiled, function, kept, lanes_of, step

FEATURES = ("amx-bf16", "amx-tile", "avx512bf16")
OUTPUTS, INPUTS, LANES = 16, 32, 16
TILE = 1024  # bytes: of 16 x 16 sums, 16 x 32 weights, or 32 inputs of 16 lanes
HELD = "<256 x i32>"  # a tile between instructions; LLVM keeps it in a tile register
# Places at once by height of a block: 4 + 2 + 2 and 3 + 1 + 3 of the 8 tile registers, for sums, weights and inputs.
PLACES = {32: 2, 16: 3}
WORTH = 1.3  # blocks of 32 outputs load inputs half as often, and may cover so much more than blocks of 16
PERMISSION = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM and tile data, in Linux on x86-64


@dataclass(frozen=True)
class Unit:
    """What writes the operations on tiles into a function f: instructions, or loops for tests.

    permit   may this process use them? EngineError if not
    zero, load (pointer), multiply_add (c, a, b), store (tile, pointer)
    rounded  16 floats -> their bits as bfloat16
    """

    permit: Callable[[], None]
    zero: Callable[[Function], str]
    load: Callable[[Function, str], str]
    multiply_add: Callable[[Function, str, str, str], str]
    store: Callable[[Function, str, str], None]
    rounded: Callable[[Function, str], str]


@cache
def permit() -> None:
    """Ask Linux to let this process use tile registers, which threads are not given without.

    EngineError where it refuses.

    >>> permit()
    """
    known = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    if known and ctypes.CDLL(None, use_errno=True).syscall(*PERMISSION) == 0:
        return
    why = os.strerror(ctypes.get_errno()) if known else "it is not Linux on x86-64"
    raise EngineError(f'the system lets no process use AMX: {why}. Leave "amx" out with kernels=...')


def _made(f: Function, instruction: str, *arguments: str) -> str:
    """The tile, 16 rows of 64 bytes, that an instruction makes."""
    tile = f.call("x86_amx", f"llvm.x86.{instruction}.internal", "i16 16", "i16 64", *arguments)
    return f.call(HELD, "llvm.x86.cast.tile.to.vector.v256i32", f"x86_amx {tile}")


def _tile(f: Function, held: str) -> str:
    return "x86_amx " + f.call("x86_amx", "llvm.x86.cast.vector.to.tile.v256i32", f"{HELD} {held}")


def _load(f: Function, pointer: str) -> str:
    return _made(f, "tileloadd64", f"ptr {pointer}", "i64 64")


def _multiply_add(f: Function, c: str, a: str, b: str) -> str:
    return _made(f, "tdpbf16ps", "i16 64", *[_tile(f, each) for each in (c, a, b)])


def _store(f: Function, held: str, pointer: str) -> None:
    name = "llvm.x86.tilestored64.internal"
    f.perform(name, "i16 16", "i16 64", f"ptr {pointer}", "i64 64", _tile(f, held))


def _rounded(f: Function, value: str) -> str:
    short = f.value(f"fptrunc {vector(LANES)} {value} to {vector(LANES, 'bfloat')}")
    return f.value(f"bitcast {vector(LANES, 'bfloat')} {short} to {vector(LANES, 'i16')}")


AMX = Unit(permit, lambda f: _made(f, "tilezero"), _load, _multiply_add, _store, _rounded)


def live(weight: np.ndarray, taps: int, height: int) -> np.ndarray:
    """(groups, taps, columns) which blocks of `height` outputs x 32 inputs are not all zero.

    weight  (out, in x taps)

    >>> live(np.eye(32), 1, 16).tolist()
    [[[True]], [[True]]]
    """
    found: np.ndarray = (_blocks(weight, taps, height) != 0).any((3, 4))
    return found


def block_height(weight: np.ndarray, taps: int) -> int:
    """How many outputs of a weight (out, in x taps) to work on at once, 16 or 32.

    >>> block_height(np.ones((32, 32)), 1)
    32
    """
    if len(weight) % 32:
        return 16
    return 32 if 2 * live(weight, taps, 32).sum() <= WORTH * live(weight, taps, 16).sum() else 16


def paired(x: Map, base: int) -> Map:
    """Where the channels of x lie at byte `base` as pairs in bfloat16, which fill a lane of 4 bytes.

    >>> paired(x, 65536).channels
    range(0, 16)
    """
    pairs = len(x.channels) // 2
    return Map(replace(x.layout, channels=pairs), base, range(pairs))


def pairs(node: str, x: Map, target: Map, machine: Machine, *, unit: Unit = AMX) -> Step:
    """Round the map, its ring included, into pairs of channels.

    >>> pairs("conv2", x, paired(x, 65536), detect()).name
    'pairs'
    """
    layouts = x.layout, target.layout
    sizes = [each.place_bytes for each in layouts]
    count = x.layout.bytes // x.layout.place_bytes
    code = _pairs_code(machine, unit)
    return step("pairs", node, code, count, len(target.channels), x.first, target.first, *sizes)


def amx(job: Job, machine: Machine, *, unit: Unit = AMX) -> Step:
    """The job in tiles. Its x and its offsets are those of pairs of channels; outputs come in sixteens, inputs in
    thirty-twos. EngineError where the process may not use AMX.

    >>> amx(job, detect()).name
    'amx'
    """
    unit.permit()
    height = block_height(job.weight, job.taps)
    group, tap, column = np.nonzero(live(job.weight, job.taps, height))
    begin = starts(np.bincount(group, minlength=len(job.weight) // height))
    offsets = job.offsets.reshape(-1, INPUTS // 2, job.taps)[column, 0, tap]
    weights = np.ascontiguousarray(_blocks(job.weight, job.taps, height)[group, tap, column])
    rounded = torch.from_numpy(weights).bfloat16().view(torch.int16).numpy()
    residual = job.y if job.residual is None else job.residual
    places = table(job) + np.array([job.x.first, job.y.first, residual.first, 0])
    count, groups = len(places), len(begin) - 1
    code = _amx_code(machine, height, job.residual is not None, job.relu, job.most, unit)
    whole = count - count % PLACES[height]
    return step("amx", job.node, code, count, whole, groups, places, begin, offsets, rounded, job.bias)


def _blocks(weight: np.ndarray, taps: int, height: int) -> np.ndarray:
    """(out, in x taps) -> (groups, taps, columns, height, 32)"""
    split = weight.reshape(len(weight) // height, height, -1, INPUTS, taps)
    return split.transpose(0, 4, 2, 1, 3)


@cache
def _pairs_code(machine: Machine, unit: Unit) -> Callable[..., None]:
    kind, wide = vector(LANES), vector(LANES, "i32")
    f = function("pairs")
    count, channels, x, y, step_x, step_y = f.fields("%plan", [INTEGER] * 6)
    with f.loop(0, count) as place:
        source = f.at("%base", f.add(x, f.multiply(place, step_x)), "i8")
        target = f.at("%base", f.add(y, f.multiply(place, step_y)), "i8")
        with f.loop(0, channels) as pair:
            first = f.at(source, f.multiply(pair, 2 * LANES))
            low, high = (unit.rounded(f, f.load(kind, f.at(first, n * LANES))) for n in range(2))
            low, high = (f.value(f"zext {vector(LANES, 'i16')} {each} to {wide}") for each in (low, high))
            high = f.value(f"shl {wide} {high}, {f.splat(LANES, '16', 'i32')}")
            f.store(wide, f.value(f"or {wide} {low}, {high}"), f.at(target, f.multiply(pair, LANES)))
    return compiled(f, machine)


@cache
def _amx_code(
    machine: Machine, height: int, residual: bool, relu: bool, most: float | None, unit: Unit
) -> Callable[..., None]:
    return compiled(written(height, residual, relu, most, unit), machine)


def written(height: int, residual: bool, relu: bool, most: float | None, unit: Unit) -> Function:
    """The step as a function: for each group of outputs, the list of its blocks at some places at a time.

    >>> written(32, False, True, None, AMX).name
    'amx'
    """
    f = function("amx")
    kinds = [INTEGER] * 3 + [POINTER] * 5
    count, whole, groups, places, begin, *lists, biases = f.fields("%plan", kinds)
    finish = partial(_finish, f, height, relu, most)
    with f.loop(0, groups) as group:
        ends = [f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (group, f.add(group, 1))]
        channel = f.multiply(group, height)
        for start, stop, width in ((0, whole, PLACES[height]), (whole, count, 1)):
            with f.loop(start, stop, width) as first:
                rows = [f.at(places, f.multiply(f.add(first, n), 4), INTEGER) for n in range(width)]
                *maps, masks = zip(*[f.fields(row, [INTEGER] * 4) for row in rows], strict=True)
                xs, ys, others = ([f.at("%base", at, "i8") for at in each] for each in maps)
                ys, others = ([f.at(at, f.multiply(channel, LANES)) for at in each] for each in (ys, others))
                sums = _summed(f, height, xs, others if residual else None, ends, lists, unit)
                for y, mask, tiles in zip(ys, masks, sums, strict=True):
                    for half, tile in enumerate(tiles):
                        unit.store(f, f.load(HELD, tile), f.at(y, half * TILE, "i8"))
                    finish(y, f.at(biases, channel), lanes_of(f, LANES, mask))
    return f


def _summed(
    f: Function, height: int, xs: list[str], others: list[str] | None, ends: list[str], lists: list[str], unit: Unit
) -> list[list[str]]:  # fmt: skip
    """For each place the sums of the group's outputs, 16 in a tile: the residual, and all blocks of the list."""
    offsets, weights = lists
    halves = [half * TILE for half in range(height // OUTPUTS)]
    loaded = lambda at: [unit.load(f, f.at(at, half, "i8")) for half in halves]
    begun = [loaded(at) for at in others] if others else [[unit.zero(f) for _ in halves] for _ in xs]
    sums = [[f.slot(HELD, tile) for tile in tiles] for tiles in begun]
    with f.loop(*ends) as block:
        offset = f.load(INTEGER, f.at(offsets, block, INTEGER))
        rows = loaded(f.at(weights, f.multiply(block, len(halves) * TILE), "i8"))
        for x, tiles in zip(xs, sums, strict=True):
            inputs = unit.load(f, f.at(x, offset, "i8"))
            for row, total in zip(rows, tiles, strict=True):
                f.store(HELD, unit.multiply_add(f, f.load(HELD, total), row, inputs), total)
    return sums


def _finish(f: Function, height: int, relu: bool, most: float | None, y: str, biases: str, mask: str) -> None:
    """Bias and activation of the sums that lie in y."""
    kind = vector(LANES)
    with f.loop(0, height) as channel:
        at = f.at(y, f.multiply(channel, LANES))
        bias = f.splat(LANES, f.load("float", f.at(biases, channel)))
        value = f.value(f"fadd {kind} {f.load(kind, at)}, {bias}")
        f.store(kind, kept(f, LANES, mask, activated(f, LANES, value, relu, most)), at)
