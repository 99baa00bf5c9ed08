"""Convolutions as steps of baked code: kept in the cache, laid into one piece of memory, driven band by band."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector, x86
from zeroskip.emit.code_cache import cached
from zeroskip.emit.executable_memory import executable
from zeroskip.errors import EngineError
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles import baked_code, baked_frame
from zeroskip.run.convolution.tiles.activation import Activation, activated
from zeroskip.run.convolution.tiles.baked_code import bake
from zeroskip.run.convolution.tiles.baked_frame import TABLE_MASK, TABLE_ROW, TABLE_Y, Baked, Blocking
from zeroskip.run.convolution.tiles.convolution_job import Job, band, table
from zeroskip.run.convolution.tiles.steps import Epilogue, Step, compiled, function, kept, lanes_of

# Groups of up to 28 output channels whose code makes one chunk. On Zen 5, where code runs as fast from the
# second-level cache, 2 to 20 groups take VGG-16 (90 % zeros) within 3 % of each other.
GROUPS = 20
ROWS = 256

MAKERS = baked_code.__file__, baked_frame.__file__, x86.__file__
HEADER = struct.Struct("<2q")  # in the cache: how many weights and chunks; these and the code follow


def bake_all(jobs: Sequence[Job], machine: Machine) -> list[Step]:
    """The jobs as machine code of their own, all in one piece of memory in the order in which they run.

    Their maps have one element. EngineError on a machine that lacks the features of its baked code.
    """
    element = jobs[0].y.layout.element
    if not element.can_be_baked(machine):
        raise EngineError(
            f'the kernel "baked" writes code for {", ".join(sorted(element.baked_features))}, which this machine '
            'lacks. Use "streamed".'
        )
    layers = [_baked(job, machine) for job in jobs]
    # The code fetches some lines beyond the end of its own weights.
    weights = [*[baked.weights for baked in layers], np.zeros(4096 // element.bytes, element.dtype)]
    code = executable(b"".join(baked.code for baked in layers))
    block = argument_block(np.concatenate(weights))
    first_weight = ctypes.c_int64.from_address(block.address).value
    steps, at = [], np.array([code.address, first_weight])
    for job, baked in zip(jobs, layers, strict=True):
        chunks = baked.chunks + np.append(at, [0, 0])
        steps.append(_step(job, chunks, (code, block), machine))
        at += len(baked.code), baked.weights.nbytes
    return steps


def _baked(job: Job, machine: Machine) -> Baked:
    """The job's code, which takes about a second to write for 2 million weights, from the cache where it is."""
    layout, weights, epilogue = job.y.layout, job.weights, job.epilogue
    active = _in_code(job).activation
    numbers = [
        *(band(job, machine), GROUPS, ROWS, weights.taps, layout.element.bytes, *weights.weight.shape),
        *(
            epilogue.residual,
            active is not None,
            -1 if active is None or active.bound is None else active.bound,
        ),
    ]
    arrays = np.array(numbers, np.float64), weights.offsets, weights.weight, weights.bias
    sources = [np.ascontiguousarray(array).data for array in arrays]
    data = cached(MAKERS, sources, machine, lambda: _packed(_bake(job, machine)))
    return _unpacked(data, layout.element.dtype)


def _bake(job: Job, machine: Machine) -> Baked:
    blocking = Blocking(band(job, machine), GROUPS, ROWS)
    return bake(job.weights, _in_code(job), blocking, job.y.layout.element)


def _in_code(job: Job) -> Epilogue:
    """What of the epilogue baked code does."""
    activation = job.epilogue.activation
    follows = activation is not None and not activation.can_be_baked
    return replace(job.epilogue, activation=None) if follows else job.epilogue


def _packed(baked: Baked) -> bytes:
    weights, chunks = baked.weights, baked.chunks.astype("<i8")
    return HEADER.pack(len(weights), len(chunks)) + weights.tobytes() + chunks.tobytes() + baked.code


def _unpacked(data: bytes, dtype: np.dtype) -> Baked:
    weights, chunks = HEADER.unpack_from(data)
    at_chunks = HEADER.size + dtype.itemsize * weights
    at_code = at_chunks + 32 * chunks
    table = np.frombuffer(data, "<i8", 4 * chunks, at_chunks).reshape(-1, 4)
    return Baked(data[at_code:], np.frombuffer(data, dtype, weights, HEADER.size), table)


def _step(job: Job, chunks: np.ndarray, alive: tuple[object, ...], machine: Machine) -> Step:
    rows = table(job)
    numbers = len(rows), band(job, machine), len(chunks), job.x.first, job.y.first, job.added.first
    activation = job.epilogue.activation
    if activation is None or activation.can_be_baked:
        block = argument_block(*numbers, rows, chunks, alive=alive)
        return Step("baked", job.node, _driver(machine, job.y.layout.vector, None), block)
    block = argument_block(*numbers, rows, chunks, len(job.y.channels), alive=alive)
    return Step("baked", job.node, _driver(machine, job.y.layout.vector, activation), block)


@cache
def _driver(machine: Machine, v: Vector, activation: Activation | None) -> Callable[..., None]:
    """Bands of vectors, and all chunks for each of them; then the activation, while the sums are in the caches."""
    f, fields = function("baked", [INTEGER] * 6 + [POINTER] * 2 + [INTEGER] * (activation is not None))
    count, width, chunks, x, y, residual, places, codes, *channels = fields
    with f.loop(0, count, width) as start:
        vectors = f.smaller(width, f.value(f"sub i64 {count}, {start}"))
        rows = f.at(places, f.multiply(start, TABLE_ROW), "i8")
        with f.loop(0, chunks) as number:
            chunk = f.at(codes, f.multiply(number, 4), INTEGER)
            code, weights, more_x, more_y = f.fields(chunk, [POINTER, POINTER, INTEGER, INTEGER])
            source = f.at("%base", f.add(x, more_x), "i8")
            target = f.at("%base", f.add(y, more_y), "i8")
            other = f.at("%base", f.add(residual, more_y), "i8")
            pointers = f"ptr {source}, ptr {weights}, ptr {target}"
            f.do(f"call void {code}({pointers}, i64 {vectors}, ptr {other}, ptr {rows})")
        if activation is not None:
            _activate(f, v, activation, _Band(f.at("%base", y, "i8"), rows, vectors, channels[0]))
    return compiled(f, machine)


@dataclass(frozen=True)
class _Band:
    """Names of values: where y lies, the band's rows of the table, how many they are, and the channels of y."""

    y: str
    rows: str
    vectors: str
    channels: str


def _activate(f: Function, v: Vector, activation: Activation, band: _Band) -> None:
    """Every sum of the band after the activation, 0 in lanes without pixels."""
    with f.loop(0, band.vectors) as number:
        row = f.at(band.rows, f.multiply(number, TABLE_ROW), "i8")
        target = f.at(band.y, f.load(INTEGER, f.at(row, TABLE_Y, "i8")), "i8")
        mask = lanes_of(f, v, f.load(INTEGER, f.at(row, TABLE_MASK, "i8")))
        with f.loop(0, band.channels) as channel:
            at = f.at(target, f.multiply(channel, v.lanes), v.element)
            f.store(v, kept(f, v, mask, activated(f, v, activation, f.load(v, at))), at)
