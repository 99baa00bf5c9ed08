"""Convolutions as steps of baked code: kept in the cache, laid into one piece of memory, driven band by band."""

from __future__ import annotations

import ctypes
import struct
import sys
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
from zeroskip.run.convolution.tiles import baked_code, baked_frame, baked_quads, quad_job
from zeroskip.run.convolution.tiles.activated_quads import BAND, MOST_GROUPS, activated_quads
from zeroskip.run.convolution.tiles.activation import Activation, activated
from zeroskip.run.convolution.tiles.baked_code import bake
from zeroskip.run.convolution.tiles.baked_frame import SUMS, TABLE_MASK, TABLE_ROW, TABLE_Y, Baked, Blocking
from zeroskip.run.convolution.tiles.baked_quads import bake_quads, quad_sums
from zeroskip.run.convolution.tiles.convolution_job import Job, RowWeights, band, table
from zeroskip.run.convolution.tiles.quad_job import QuadEpilogue, QuadJob
from zeroskip.run.convolution.tiles.shared_weights import SharedWeights
from zeroskip.run.convolution.tiles.steps import Step, compiled, function, kept, lanes_of
from zeroskip.run.element import Scaling

# Groups of up to 28 output channels whose code makes a chunk: as many as come to so many bytes, which have to stay in
# the first-level cache, and in that of decoded instructions. On Zen 5, 90 % zeros, with 20 groups for every layer
# BERT-base took 1.4 times as long for 128 tokens, 2.5 times for 16, ResNet-50 and VGG-16 1.05 times. For few vectors
# memory is what they wait for: one chunk should be done when the next one is there.
GROUPS, ROWS, CHUNK_CODE = 20, 512, 24_000
BRIEF, BRIEF_ROWS, BRIEF_CODE = 3, 256, 16_000  # up to so many vectors
# Sums of quads stay in registers over all rows, whose code is mostly long enough with one group. For few vectors, what
# a chunk costs by itself counts as well: then it has as many groups as come to so many bytes of code (Zen 5).
QUAD_GROUPS = 1
FEW_VECTORS, QUAD_CODE = 16, 12_000
PRODUCT_BYTES, OUTPUT_BYTES = (
    9,
    50,
)  # with the loads of a row for several products; with the epilogue of a sum

MAKERS = tuple(str(each.__file__) for each in (baked_code, baked_frame, baked_quads, quad_job, x86))
HEADER = struct.Struct("<2q")  # in the cache: how many weights and chunks; these and the code follow


def bake_all(jobs: Sequence[Job | QuadJob], machine: Machine) -> list[Step]:
    """The jobs as machine code of their own, all in one piece of memory in the order in which they run.

    EngineError on a machine that lacks the features of their baked code.
    """
    for job in jobs:
        _refuse(job, machine)
    known = [None if job.sharing is None else job.sharing.found(job.weights, _how(job)) for job in jobs]
    new = iter(_placed([job for job, shared in zip(jobs, known, strict=True) if shared is None], machine))
    return [_step(job, shared or next(new), machine) for job, shared in zip(jobs, known, strict=True)]


def _placed(jobs: Sequence[Job | QuadJob], machine: Machine) -> list[SharedWeights]:
    """Code and weights of the jobs in memory, each as a table of chunks with their addresses."""
    if not jobs:
        return []
    layers = [_baked(job, machine) for job in jobs]
    # The code fetches some lines beyond the end of its own weights.
    weights = [*[baked.weights.view(np.uint8) for baked in layers], np.zeros(4096, np.uint8)]
    code = executable(b"".join(baked.code for baked in layers))
    block = argument_block(np.concatenate(weights))
    first_weight = ctypes.c_int64.from_address(block.address).value
    placed, at = [], np.array([code.address, first_weight])
    for job, baked in zip(jobs, layers, strict=True):
        chunks = baked.chunks + np.append(at, [0, 0])
        source = None if job.sharing is None else job.sharing.source
        placed.append(SharedWeights(source, job.weights, _how(job), (chunks,), (code, block)))
        at += len(baked.code), baked.weights.nbytes
    return placed


def _how(job: Job | QuadJob) -> tuple[object, ...]:
    """What code depends on, besides weights and how many vectors a band has.

    That decides about the size of a chunk and how far it fetches ahead, so about time alone; where sums lie apart, one
    band decides for all.
    """
    return "baked", job.epilogue, job.x.layout.element.name, job.y.layout.element.name


def is_baked(job: Job | QuadJob, machine: Machine) -> bool:
    """Whether `bake_all` takes the job, and the machine runs its code."""
    element = job.x.layout.element
    return machine.vector_bytes == 64 and sys.platform.startswith("linux") and element.can_be_baked(machine)


def _refuse(job: Job | QuadJob, machine: Machine) -> None:
    element = job.x.layout.element
    if not element.can_be_baked(machine):
        raise EngineError(
            f'the kernel "baked" writes code for {", ".join(sorted(element.baked_features))}, which this machine '
            'lacks. Use "streamed".'
        )


def _baked(job: Job | QuadJob, machine: Machine) -> Baked:
    """The job's code, which takes about a second to write for 2 million weights, from the cache where it is."""
    sources = [np.ascontiguousarray(array).data for array in _sources(job, machine)]
    data = cached(MAKERS, sources, machine, lambda: _packed(_bake(job, machine)))
    return _unpacked(data, job.x.layout.element.dtype)


def _sources(job: Job | QuadJob, machine: Machine) -> list[np.ndarray]:
    """All that the code depends on."""
    weights, active = job.weights, _in_code(job)
    bound = -1 if active is None or active.bound is None else active.bound
    numbers = [
        *(_band(job, machine), GROUPS, _quad_groups(job, machine), ROWS, weights.taps),
        *(active is not None, bound, _is_apart(job)),
    ]
    if isinstance(job, QuadJob):
        quads = job.weights
        scalings = [
            number for each in (job.epilogue.residual, job.epilogue.output) for number in _numbers(each)
        ]
        arrays = [quads.words, quads.start, quads.factor, quads.bias, quads.offsets]
        return [np.array([*numbers, *scalings, *quads.words.shape], np.float64), *arrays]
    rows = job.weights
    blocking = _row_blocking(rows, band(job, machine))
    numbers += [
        blocking.groups,
        blocking.rows,
        job.y.layout.element.bytes,
        job.epilogue.residual,
        *rows.weight.shape,
    ]
    return [np.array(numbers, np.float64), rows.offsets, rows.weight, rows.bias]


def _numbers(scaling: Scaling | None) -> tuple[float, float]:
    return (-1.0, -1.0) if scaling is None else (scaling.scale, scaling.zero_point)


def _bake(job: Job | QuadJob, machine: Machine) -> Baked:
    blocking = Blocking(_band(job, machine), GROUPS, ROWS)
    if isinstance(job, QuadJob):
        apart = _is_apart(job)
        blocking = replace(blocking, groups=_quad_groups(job, machine), anew=apart)
        after = QuadEpilogue(job.epilogue.residual) if apart else job.epilogue
        return bake_quads(job.weights, after, blocking)
    epilogue = replace(job.epilogue, activation=_in_code(job))
    blocking = _row_blocking(job.weights, blocking.band)
    return bake(job.weights, epilogue, blocking, job.y.layout.element)


def _row_blocking(weights: RowWeights, vectors: int) -> Blocking:
    """How the code of weights that are no bytes is cut for so many vectors."""
    out, inputs = weights.weight.shape
    code = PRODUCT_BYTES * int(np.count_nonzero(weights.weight)) + OUTPUT_BYTES * out
    most, rows = (BRIEF_CODE, min(ROWS, BRIEF_ROWS)) if vectors <= BRIEF else (CHUNK_CODE, ROWS)
    parts = -(-out // SUMS) * -(-inputs // rows)
    return Blocking(vectors, max(1, min(GROUPS, most * parts // max(1, code))), rows)


def _quad_groups(job: Job | QuadJob, machine: Machine) -> int:
    """Groups of sums whose code makes a chunk."""
    vectors = _band(job, machine)
    if not isinstance(job, QuadJob) or vectors > FEW_VECTORS:
        return QUAD_GROUPS
    words = job.weights.words
    code = PRODUCT_BYTES * int(np.count_nonzero(words)) + OUTPUT_BYTES * len(words)
    count = -(-len(words) // SUMS)
    groups = max(QUAD_GROUPS, QUAD_CODE * count // max(1, code))
    return min(groups, MOST_GROUPS) if _is_apart(job) else groups


def _is_apart(job: Job | QuadJob) -> bool:
    """Whether an activation follows sums of quads, which baked code does not have."""
    active = job.epilogue.activation
    return isinstance(job, QuadJob) and active is not None and not active.can_be_baked


def _band(job: Job | QuadJob, machine: Machine) -> int:
    """How many vectors are worked on before the next chunk of code."""
    vectors = band(job, machine)
    return min(vectors, BAND) if _is_apart(job) else vectors


def _in_code(job: Job | QuadJob) -> Activation | None:
    """The activation, if baked code has it."""
    activation = job.epilogue.activation
    return activation if activation is not None and activation.can_be_baked else None


def _packed(baked: Baked) -> bytes:
    weights, chunks = baked.weights, baked.chunks.astype("<i8")
    return HEADER.pack(len(weights), len(chunks)) + weights.tobytes() + chunks.tobytes() + baked.code


def _unpacked(data: bytes, dtype: np.dtype) -> Baked:
    weights, chunks = HEADER.unpack_from(data)
    at_chunks = HEADER.size + dtype.itemsize * weights
    at_code = at_chunks + 32 * chunks
    table = np.frombuffer(data, "<i8", 4 * chunks, at_chunks).reshape(-1, 4)
    return Baked(data[at_code:], np.frombuffer(data, dtype, weights, HEADER.size), table)


def _step(job: Job | QuadJob, placed: SharedWeights, machine: Machine) -> Step:
    if isinstance(job, QuadJob) and _is_apart(job):
        return activated_quads(job, placed, (_band(job, machine), _channels(job, machine)), machine)
    (chunks,), rows = placed.fields, table(job)
    assert isinstance(chunks, np.ndarray)
    numbers = len(rows), band(job, machine), len(chunks), job.x.first, job.y.first, job.added.first
    activation = job.epilogue.activation
    if activation is None or activation.can_be_baked:
        block = argument_block(*numbers, rows, chunks, alive=placed.alive)
        return Step("baked", job.node, _driver(machine, job.y.layout.vector, None), block, placed)
    block = argument_block(*numbers, rows, chunks, len(job.y.channels), alive=placed.alive)
    return Step("baked", job.node, _driver(machine, job.y.layout.vector, activation), block, placed)


def _channels(job: QuadJob, machine: Machine) -> int:
    """Channels of a chunk."""
    return _quad_groups(job, machine) * quad_sums(len(job.weights.words))


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
