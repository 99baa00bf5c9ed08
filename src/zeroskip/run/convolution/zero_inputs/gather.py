"""Convolutions that skip the zeros of their input: each window gathers the weights of its non-zeros.

The windows are summed several together, all along the weights at about the same pace: a row of weights that one of them
has brought into the first-level cache is still there for the others. They are sorted by their number of
non-zeros, so that those summed together end together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function
from zeroskip.emit.executable_memory import allocate
from zeroskip.run.convolution.zero_inputs import number_formats
from zeroskip.run.convolution.zero_inputs.compiled_convolution import (
    PARAMETERS,
    CompiledConvolution,
    compiled_convolution,
    scratch_offsets,
)
from zeroskip.run.convolution.zero_inputs.convolution_shape import shape_of
from zeroskip.run.convolution.zero_inputs.gather_blocking import GatherBlocking, gather_blocking
from zeroskip.run.convolution.zero_inputs.nonzero_lists import (
    BUCKETS,
    Band,
    NonzeroLists,
    emit_order,
    emit_rows,
    emit_windows,
    load_number,
)


def build(
    layer: Layer, machine: Machine, relu: bool, *, near: bool = False, storage: str = "fp32"
) -> CompiledConvolution:
    """The layer with the zeros of its input skipped, however few; `near` and `storage` as in `gather_blocking`."""
    cut = gather_blocking(shape_of(layer), machine, near=near, storage=storage)
    f, scratch = emit(cut, relu=relu), pieces(cut)["end"]
    outputs = cut.blocks * cut.outputs
    return compiled_convolution(layer, machine, f, weights(layer, cut), outputs=outputs, scratch=scratch)


def weights(layer: Layer, cut: GatherBlocking) -> np.ndarray:
    """Weights (blocks, parts, taps down, taps right, channels, outputs), with zeros behind.

    The outputs of weights are as `number_formats.stored` leaves them.
    """
    shape = cut.shape
    padded = np.zeros((cut.blocks * cut.outputs, cut.parts * cut.channels, *shape.taps), np.float32)
    padded[: shape.outputs, : shape.channels] = layer.weight.detach().numpy()
    apart = padded.reshape(cut.blocks, cut.outputs, cut.parts, cut.channels, *shape.taps)
    ordered = np.ascontiguousarray(apart.transpose(0, 2, 4, 5, 3, 1))
    order = number_formats.stored(cut.storage, ordered, cut.lanes)
    memory = allocate(order.nbytes).view(order.dtype).reshape(order.shape)
    memory[...] = order
    return memory


def pieces(cut: GatherBlocking) -> dict[str, int]:
    """Where in the scratch each list begins, in floats; "end" is how many there are."""
    shape = cut.shape
    rows = 0 if shape.pointwise else cut.rows
    row, listed = rows * shape.width * cut.channels, cut.windows * shape.window
    sizes = {
        **{"row values": row, "row places": row, "row starts": rows * (shape.width + 1)},
        **{"values": listed, "places": listed, "starts": cut.passes * (cut.windows + 1)},
        **{"order": cut.passes * cut.windows, "buckets": BUCKETS},
    }
    return scratch_offsets(sizes)


def emit(cut: GatherBlocking, *, relu: bool) -> Function:
    """The kernel in LLVM IR: all lists of a band of the output, then its sums."""
    shape = cut.shape
    f = Function("gather", PARAMETERS)
    k = _Body(f, cut, {name: f.at("%scratch", place) for name, place in pieces(cut).items()}, relu)
    pixels = shape.out_width * shape.outputs
    with f.loop(0, "%images", cut.images) as image, f.loop(0, shape.out_height, cut.lines) as line:
        images = f.smaller(cut.images, f.subtract("%images", image))
        lines = f.multiply(images, f.smaller(cut.lines, f.subtract(shape.out_height, line)))
        _emit_lists(k, image, line, lines)
        y = f.at("%y", f.multiply(f.add(f.multiply(image, shape.out_height), line), pixels))
        with f.loop(0, cut.blocks) as block, f.loop(0, cut.passes) as turn:
            _emit_pass(k, block, turn, f.multiply(lines, shape.out_width), y)
    return f


@dataclass(frozen=True)
class _Body:
    """The function being written, how its work is cut, pointers to pieces of the scratch, whether a ReLU follows."""

    f: Function
    cut: GatherBlocking
    at: dict[str, str]
    relu: bool

    def starts(self, turn: str) -> str:
        """Where the lists of a pass begin."""
        return self.f.at(self.at["starts"], self.f.multiply(turn, self.cut.windows + 1), "i32")

    def order(self, turn: str) -> str:
        """The order of the windows in a pass."""
        return self.f.at(self.at["order"], self.f.multiply(turn, self.cut.windows), "i32")


def _emit_lists(k: _Body, image: str, line: str, lines: str) -> None:
    """The lists of all windows in `lines` rows of the output, and their order, for each part of the channels."""
    f, cut, at, shape = k.f, k.cut, k.at, k.cut.shape
    top = f.subtract(f.multiply(line, shape.stride[0]), shape.before[0])
    above, rows = ("0", f.multiply(f.smaller(cut.images, f.subtract("%images", image)), shape.height))
    if cut.lines < shape.out_height:
        reach = (shape.taps[0] - 1) * shape.dilation[0] + 1 - shape.stride[0]
        above = f.bounded(top, 0, shape.height)
        below = f.bounded(f.add(f.add(top, f.multiply(lines, shape.stride[0])), reach), 0, shape.height)
        rows = f.subtract(below, above)
    first = f.multiply(line, shape.stride[0]) if shape.pointwise else above
    x = f.at("%x", f.multiply(f.add(f.multiply(image, shape.height), first), shape.width * shape.channels))
    filled, windows = f.slot(INTEGER, "0"), f.multiply(lines, shape.out_width)
    band = Band(line, lines, above)
    with f.loop(0, cut.parts) as part:
        if not shape.pointwise:
            of_rows = NonzeroLists(at["row values"], at["row places"], at["row starts"], f.slot(INTEGER, "0"))
            emit_rows(f, cut, x, rows, part, of_rows)
        with f.loop(0, cut.groups) as group:
            turn = f.add(f.multiply(part, cut.groups), group)
            starts = k.starts(turn)
            of_windows = NonzeroLists(at["values"], at["places"], starts, filled)
            if shape.pointwise:
                emit_rows(f, cut, x, lines, part, of_windows)
            else:
                emit_windows(f, cut, band, group, of_rows, of_windows)
            emit_order(f, starts, k.order(turn), at["buckets"], windows)


@dataclass(frozen=True)
class _Pass:
    """What one part of channels and taps gives to a block of the outputs: where weights, lists and outputs lie.

    is_first  whether sums begin with the biases, not with what the outputs hold
    least     vector of what outputs are at least after this pass; None without a ReLU
    masks     of the vectors of outputs; none if all of them are whole in every block
    next      slot with a pointer to the weights to be asked for next: those of the pass that follows, up to `end`
    """

    weights: str
    bias: str
    is_first: str
    y: str
    starts: str
    order: str
    least: str | None
    masks: tuple[str, ...]
    next: str
    end: str


def _emit_pass(k: _Body, block: str, turn: str, windows: str, y: str) -> None:
    """Add what one part of the channels gives in one group of taps to one block, for all windows of the band."""
    f, cut, at, shape = k.f, k.cut, k.at, k.cut.shape
    size = cut.weights * number_formats.BYTES[cut.storage]
    number, first = f.add(f.multiply(block, cut.passes), turn), f.multiply(block, cut.outputs)
    left = f.subtract(shape.outputs, first)
    is_ragged = shape.outputs % cut.outputs
    p = _Pass(
        weights=f.at("%weights", f.multiply(number, size), "i8"),
        bias=f.at("%bias", first),
        is_first=f.value(f"icmp eq i64 {turn}, 0"),
        y=f.at(y, first),
        starts=k.starts(turn),
        order=k.order(turn),
        least=_least(f, cut, turn) if k.relu else None,
        masks=tuple(
            f.below(cut.lanes, f.add(left, -cut.lanes * each))
            for each in range(cut.vectors if is_ragged else 0)
        ),
        next=f.slot(POINTER, f.at("%weights", f.multiply(f.add(number, 1), size), "i8")),
        end=f.at("%weights", f.multiply(f.add(number, 2), size), "i8"),
    )
    whole = f.subtract(windows, f.value(f"urem i64 {windows}, {cut.together}"))
    lists = NonzeroLists(at["values"], at["places"], p.starts, "")
    with f.loop(0, whole, cut.together) as each:
        _emit_windows(k, p, lists, [f.add(each, offset) for offset in range(cut.together)])
    if cut.together > 1:
        with f.loop(whole, windows) as each:
            _emit_windows(k, p, lists, [each])


def _least(f: Function, cut: GatherBlocking, turn: str) -> str:
    """What a ReLU leaves at least: zeros, after the last pass."""
    if cut.passes == 1:
        return "zeroinitializer"
    is_last = f.value(f"icmp eq i64 {turn}, {cut.passes - 1}")
    return f.splat(cut.v, f.value(f"select i1 {is_last}, float 0.0, float 0xFFF0000000000000"))


def _emit_windows(k: _Body, p: _Pass, lists: NonzeroLists, ranks: list[str]) -> None:
    """Sum windows together: as far as the shortest reaches all in one loop, then what is left of each."""
    f = k.f
    numbers = [load_number(f, p.order, rank) for rank in ranks]
    begins = [load_number(f, p.starts, number) for number in numbers]
    counts = [
        f.subtract(load_number(f, p.starts, f.add(number, 1)), begin)
        for number, begin in zip(numbers, begins, strict=True)
    ]
    outputs = [f.at(p.y, f.multiply(number, k.cut.shape.outputs)) for number in numbers]
    sums = [_begun(k, p, output) for output in outputs]
    windows = [
        _Window(f.at(lists.values, begin), f.at(lists.places, begin, "i32"), slots)
        for begin, slots in zip(begins, sums, strict=True)
    ]
    common = reduce(f.smaller, counts)
    _emit_steps(k, p, windows, "0", common)
    if len(ranks) > 1:
        for window, count in zip(windows, counts, strict=True):
            _emit_steps(k, p, [window], common, count)
    for output, slots in zip(outputs, sums, strict=True):
        _emit_end(k, p, output, slots)


@dataclass(frozen=True)
class _Window:
    """What a window sums: pointers to its values and places, and slots for its sums."""

    values: str
    places: str
    sums: list[str]


def _emit_steps(k: _Body, p: _Pass, windows: list[_Window], begin: str, end: str) -> None:
    """Sum the values of windows from `begin` to `end`; fp16 goes over into float32 after every few of them."""
    f, cut = k.f, k.cut
    if cut.storage != "fp16":
        _emit_loop(k, p, windows, begin, end)
        return
    wide = number_formats.summed("fp16", cut.v)
    with f.loop(begin, end, number_formats.FLUSH) as first:
        halves = [
            replace(each, sums=[f.slot(wide, "zeroinitializer") for _ in range(cut.vectors // 2)])
            for each in windows
        ]
        _emit_loop(k, p, halves, first, f.smaller(f.add(first, number_formats.FLUSH), end))
        for window, half in zip(windows, halves, strict=True):
            number_formats.emit_flush(f, cut.v, half.sums, window.sums)


def _emit_loop(k: _Body, p: _Pass, windows: list[_Window], begin: str, end: str) -> None:
    f, cut = k.f, k.cut
    with f.loop(begin, end) as step:
        if len(windows) > 1:
            _prefetch(k, p)
        for window in windows:
            row = f.at(p.weights, load_number(f, window.places, step), "i8")
            number_formats.emit_products(f, cut.storage, cut.v, f.at(window.values, step), row, window.sums)


def _prefetch(k: _Body, p: _Pass) -> None:
    """Ask for a few lines of the weights of the next pass."""
    f, cut = k.f, k.cut
    if cut.ahead:
        first, floats = f.load(POINTER, p.next), number_formats.LINE // 4
        for line in range(cut.ahead):
            f.prefetch(f.at(first, floats * line), level=2)
        following = f.at(first, floats * cut.ahead)
        is_inside = f.value(f"icmp ult ptr {following}, {p.end}")
        f.store(POINTER, f.value(f"select i1 {is_inside}, ptr {following}, ptr {p.end}"), p.next)


def _begun(k: _Body, p: _Pass, output: str) -> list[str]:
    """The sums of a window, as they are before this pass."""
    f, cut = k.f, k.cut
    source = f.value(f"select i1 {p.is_first}, ptr {p.bias}, ptr {output}") if cut.passes > 1 else p.bias
    v, places = cut.v, [f.at(source, cut.lanes * each) for each in range(cut.vectors)]
    if not p.masks:
        return [f.slot(v, f.load(v, place)) for place in places]
    pairs = zip(p.masks, places, strict=True)
    return [f.slot(v, f.load_masked(v, mask, place)) for mask, place in pairs]


def _emit_end(k: _Body, p: _Pass, output: str, sums: list[str]) -> None:
    """Write the sums of a window to its output pixel."""
    f, v = k.f, k.cut.v
    for each, total in enumerate(sums):
        value, place = f.load(v, total), f.at(output, v.lanes * each)
        if p.least is not None:
            below = f.value(f"fcmp olt {v} {value}, {p.least}")  # NaN stays, as in PyTorch
            value = f.value(f"select {v.mask} {below}, {v} {p.least}, {v} {value}")
        if p.masks:
            f.store_masked(v, p.masks[each], value, place)
        else:
            f.store(v, value, place)
