"""A convolution between two maps in the workspace, as a job that several kernels can do."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, x86
from zeroskip.emit.code_cache import cached
from zeroskip.emit.executable_memory import Executable, executable
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles import baked as maker
from zeroskip.run.convolution.tiles.baked import TABLE_ROW, Baked, bake
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.steps import Step, compiled, function
from zeroskip.run.machine_code import plan

# Groups of up to 28 output channels whose code makes one chunk. On Zen 5, where code runs as fast from the
# second-level cache, 2 to 20 groups take VGG-16 (90 % zeros) within 3 % of each other.
GROUPS = 20
ROWS = 256
BAND = 1.5  # inputs and outputs of a band of vectors, in sizes of the second-level cache

FEATURES = {4: {"avx512f"}, 2: {"avx512fp16", "avx512bw"}}  # of baked code, by the bytes of a number

MAKERS = maker.__file__, x86.__file__
HEADER = struct.Struct("<2q")  # in the cache: how many weights and chunks; these and the code follow


@dataclass(frozen=True)
class Job:
    """y = activation(weight . rows of x + bias + residual) at every place of y.

    weight  (out, k); row k of x is `offsets[k]` bytes behind a place's own
    taps    rows that belong to one input channel
    stride  places of x from one place of y to the next
    most    the upper bound of a ReLU6, or None
    """

    node: str
    weight: np.ndarray
    bias: np.ndarray
    offsets: np.ndarray
    taps: int
    stride: int
    x: Map
    y: Map
    residual: Map | None
    relu: bool
    most: float | None


def table(job: Job) -> np.ndarray:
    """(vectors, 4) int64: offsets of x, y and residual, and the mask of lanes that hold pixels.

    >>> table(job).shape
    (196, 4)
    """
    places = job.y.layout.inside()
    slot, y, x = places.T
    source = job.x.layout.offset(slot, y * job.stride, x * job.stride)
    residual = job.y if job.residual is None else job.residual
    offsets = [source, job.y.layout.offset(*places.T), residual.layout.offset(*places.T)]
    return np.stack([*offsets, job.y.layout.masks(places)], axis=1)


def band(job: Job, machine: Machine) -> int:
    """How many vectors to work on before the next chunk.

    >>> band(job, detect())
    28
    """
    per_place = job.x.layout.place_bytes * job.stride**2 + job.y.layout.place_bytes
    vectors = job.y.layout.vectors
    bands = max(1, min(vectors // 14, round(vectors * per_place / (BAND * machine.cache_bytes))))
    return -(-vectors // bands)


def bake_all(jobs: Sequence[Job], machine: Machine) -> list[Step]:
    """The jobs as machine code of their own, all in one piece of memory in the order in which they run.

    Their maps hold numbers of one type. EngineError on a machine without AVX-512, or AVX512-FP16 for halves.

    >>> [step.name for step in bake_all([job], detect())]
    ['baked']
    """
    dtype = jobs[0].y.layout.dtype
    wanted = FEATURES[dtype.itemsize]
    if not wanted <= machine.features:
        raise EngineError(
            f'the kernel "baked" writes code for {", ".join(sorted(wanted))}, which this machine lacks. '
            'Use "streamed".'
        )
    baked = [_baked(job, machine) for job in jobs]
    code = executable(b"".join(each.code for each in baked))
    # The code fetches some lines beyond the end of its own weights.
    weights = plan(
        np.concatenate([*[each.weights for each in baked], np.zeros(4096 // dtype.itemsize, dtype)])
    )
    stream = ctypes.c_int64.from_address(weights.address).value
    steps, at_code, at_weights = [], code.address, stream
    for job, each in zip(jobs, baked, strict=True):
        steps.append(_step(job, each, (at_code, at_weights), (code, weights), machine))
        at_code += len(each.code)
        at_weights += each.weights.nbytes
    return steps


def _baked(job: Job, machine: Machine) -> Baked:
    """The job's code, which takes about a second to write for 2 million weights, from the cache where it is."""
    numbers = [
        band(job, machine),
        job.taps,
        job.relu,
        -1 if job.most is None else job.most,
        job.residual is not None,
        job.y.layout.lane_bytes,
    ]
    cut = np.array([*numbers, GROUPS, ROWS, *job.weight.shape], np.float64)
    sources = [np.ascontiguousarray(each).data for each in (cut, job.offsets, job.weight, job.bias)]
    return _unpacked(
        cached(MAKERS, sources, machine, lambda: _packed(_bake(job, machine))), job.y.layout.dtype
    )


def _bake(job: Job, machine: Machine) -> Baked:
    return bake(
        job.weight,
        job.bias,
        job.offsets,
        band=band(job, machine),
        taps=job.taps,
        relu=job.relu,
        most=job.most,
        residual=job.residual is not None,
        half=job.y.layout.element == "half",
        groups=GROUPS,
        rows=ROWS,
    )


def _packed(baked: Baked) -> bytes:
    weights, chunks = baked.weights, baked.chunks.astype("<i8")
    return HEADER.pack(len(weights), len(chunks)) + weights.tobytes() + chunks.tobytes() + baked.code


def _unpacked(data: bytes, dtype: np.dtype) -> Baked:
    weights, chunks = HEADER.unpack_from(data)
    at_chunks = HEADER.size + dtype.itemsize * weights
    at_code = at_chunks + 32 * chunks
    table = np.frombuffer(data, "<i8", 4 * chunks, at_chunks).reshape(-1, 4)
    return Baked(data[at_code:], np.frombuffer(data, dtype, weights, HEADER.size), table)


def _step(
    job: Job, baked: Baked, at: tuple[int, int], alive: tuple[Executable, object], machine: Machine
) -> Step:
    chunks = baked.chunks + np.array([*at, 0, 0])
    rows = table(job)
    residual = job.y if job.residual is None else job.residual
    bases = job.x.first, job.y.first, residual.first
    everything = plan(len(rows), band(job, machine), len(chunks), *bases, rows, chunks, alive=alive)
    return Step("baked", job.node, _driver(machine), everything)


@cache
def _driver(machine: Machine) -> Callable[..., None]:
    """Bands of vectors, and all chunks for each of them."""
    f = function("baked")
    count, width, chunks, x, y, residual, places, codes = f.fields("%plan", [INTEGER] * 6 + [POINTER] * 2)
    with f.loop(0, count, width) as start:
        vectors = f.smaller(width, f.value(f"sub i64 {count}, {start}"))
        rows = f.at(places, f.multiply(start, TABLE_ROW), "i8")
        with f.loop(0, chunks) as number:
            chunk = f.at(codes, f.multiply(number, 4), INTEGER)
            code, weights, more_x, more_y = f.fields(chunk, [POINTER, POINTER, INTEGER, INTEGER])
            source = f.at("%base", f.add(x, more_x), "i8")
            target = f.at("%base", f.add(y, more_y), "i8")
            other = f.at("%base", f.add(residual, more_y), "i8")
            f.do(
                f"call void {code}(ptr {source}, ptr {weights}, ptr {target}, i64 {vectors}, ptr {other}, ptr {rows})"
            )
    return compiled(f, machine)
