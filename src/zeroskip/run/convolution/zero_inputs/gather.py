"""Convolutions that skip the zeros of their input: each window gathers the weights of its non-zeros.

The windows are summed several together, all along the weights at about the same pace: a row of weights that one of them
has brought into the first-level cache is still there for the others. They are sorted by their number of
non-zeros, so that those summed together end together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from zeroskip.concepts import Layer
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.emit.executable_memory import room
from zeroskip.run.convolution.zero_inputs.nonzero_lists import (
    BUCKETS,
    Band,
    Lists,
    emit_order,
    emit_rows,
    emit_windows,
    load_number,
)
from zeroskip.run.convolution.zero_inputs.shape import LINE, Cut
from zeroskip.run.convolution.zero_inputs.stored_weights import (
    BYTES,
    FLUSH,
    emit_flush,
    emit_products,
    stored,
)

ARGUMENTS = {
    **dict.fromkeys(("weights", "bias", "x", "y", "scratch"), POINTER),
    "images": INTEGER,
}


def weights(layer: Layer, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Weights (blocks, parts, taps down, taps right, channels, outputs), and biases (blocks x outputs), zeros behind.

    The outputs of weights are as `numbers.stored` leaves them.

    >>> weights(conv, cut)[0].shape
    (3, 1, 3, 3, 64, 64)
    """
    shape = cut.shape
    blocks = cut.blocks
    padded = np.zeros((blocks * cut.outputs, cut.parts * cut.channels, *shape.taps), np.float32)
    padded[: shape.outputs, : shape.channels] = layer.weight.detach().numpy()
    apart = padded.reshape(blocks, cut.outputs, cut.parts, cut.channels, *shape.taps)
    order = stored(cut.kind, np.ascontiguousarray(apart.transpose(0, 2, 4, 5, 3, 1)), cut.lanes)
    memory = room(order.nbytes).view(order.dtype).reshape(order.shape)
    memory[...] = order
    bias = np.zeros(blocks * cut.outputs, np.float32)
    if layer.bias is not None:
        bias[: shape.outputs] = layer.bias.detach().numpy()
    return memory, bias


def rooms(cut: Cut) -> dict[str, int]:
    """Where in the scratch each piece begins, in floats; "end" is how many there are.

    >>> rooms(cut)["end"]
    184320
    """
    shape = cut.shape
    rows = 0 if shape.pointwise else cut.rows
    windows = cut.windows
    row, listed = rows * shape.width * cut.channels, windows * shape.window
    sizes = {
        **{"row values": row, "row places": row, "row starts": rows * (shape.width + 1)},
        **{"values": listed, "places": listed, "starts": cut.passes * (windows + 1)},
        **{"order": cut.passes * windows, "buckets": BUCKETS},
    }
    begin, found = 0, {}
    for name, size in sizes.items():
        found[name] = begin
        begin += -(-size // 16) * 16 + 16  # whole vectors are written
    return found | {"end": begin}


def emit(cut: Cut, *, relu: bool) -> Function:
    """The kernel in LLVM IR: all lists of a band of the output, then its sums.

    >>> emit(cut, relu=True).name
    'gather'
    """
    shape = cut.shape
    f = Function("gather", ARGUMENTS)
    k = _Kernel(f, cut, {name: f.at("%scratch", place) for name, place in rooms(cut).items()}, relu)
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
class _Kernel:
    """The function being written, how its work is cut, pointers to pieces of the scratch, whether a ReLU follows."""

    f: Function
    cut: Cut
    at: dict[str, str]
    relu: bool

    def starts(self, turn: str) -> str:
        """Where the lists of a pass begin."""
        return self.f.at(self.at["starts"], self.f.multiply(turn, self.cut.windows + 1), "i32")

    def order(self, turn: str) -> str:
        """The order of the windows in a pass."""
        return self.f.at(self.at["order"], self.f.multiply(turn, self.cut.windows), "i32")


def _emit_lists(k: _Kernel, image: str, line: str, lines: str) -> None:
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
            some = Lists(at["row values"], at["row places"], at["row starts"], f.slot(INTEGER, "0"))
            emit_rows(f, cut, x, rows, part, some)
        with f.loop(0, cut.groups) as group:
            turn = f.add(f.multiply(part, cut.groups), group)
            starts = k.starts(turn)
            found = Lists(at["values"], at["places"], starts, filled)
            if shape.pointwise:
                emit_rows(f, cut, x, lines, part, found)
            else:
                emit_windows(f, cut, band, group, some, found)
            emit_order(f, starts, k.order(turn), at["buckets"], windows)


@dataclass(frozen=True)
class _Pass:
    """What some inputs of the windows give to one block of the outputs: where its weights, lists and outputs lie.

    is_first  whether sums begin with the biases, not with what the outputs hold
    least   vector of what outputs are at least after this pass; None without a ReLU
    masks   of the vectors of outputs; none if all of them are whole in every block
    next    slot with a pointer to the weights to be asked for next: those of the pass that follows, up to `end`
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


def _emit_pass(k: _Kernel, block: str, turn: str, windows: str, y: str) -> None:
    """Add what one part of the channels gives in one group of taps to one block, for all windows of the band."""
    f, cut, at, shape = k.f, k.cut, k.at, k.cut.shape
    size = cut.weights * BYTES[cut.kind]
    number, first = f.add(f.multiply(block, cut.passes), turn), f.multiply(block, cut.outputs)
    left = f.subtract(shape.outputs, first)
    ragged = shape.outputs % cut.outputs
    one = _Pass(
        f.at("%weights", f.multiply(number, size), "i8"),
        f.at("%bias", first),
        f.value(f"icmp eq i64 {turn}, 0"),
        f.at(y, first),
        k.starts(turn),
        k.order(turn),
        _least(f, cut, turn) if k.relu else None,
        tuple(f.below(cut.lanes, f.add(left, -cut.lanes * each)) for each in range(cut.vectors))
        if ragged
        else (),
        f.slot(POINTER, f.at("%weights", f.multiply(f.add(number, 1), size), "i8")),
        f.at("%weights", f.multiply(f.add(number, 2), size), "i8"),
    )
    whole = f.subtract(windows, f.value(f"urem i64 {windows}, {cut.together}"))
    lists = Lists(at["values"], at["places"], one.starts, "")
    with f.loop(0, whole, cut.together) as each:
        _emit_windows(f, cut, one, lists, [f.add(each, offset) for offset in range(cut.together)])
    if cut.together > 1:
        with f.loop(whole, windows) as each:
            _emit_windows(f, cut, one, lists, [each])


def _least(f: Function, cut: Cut, turn: str) -> str:
    """What a ReLU leaves at least: zeros, after the last pass."""
    if cut.passes == 1:
        return "zeroinitializer"
    is_last = f.value(f"icmp eq i64 {turn}, {cut.passes - 1}")
    return f.splat(cut.lanes, f.value(f"select i1 {is_last}, float 0.0, float 0xFFF0000000000000"))


def _emit_windows(f: Function, cut: Cut, one: _Pass, lists: Lists, ranks: list[str]) -> None:
    """Sum some windows together: as far as the shortest reaches all in one loop, then what is left of each."""
    shape = cut.shape
    windows = [load_number(f, one.order, rank) for rank in ranks]
    begins = [load_number(f, one.starts, window) for window in windows]
    counts = [
        f.subtract(load_number(f, one.starts, f.add(window, 1)), begin)
        for window, begin in zip(windows, begins, strict=True)
    ]
    outputs = [f.at(one.y, f.multiply(window, shape.outputs)) for window in windows]
    sums = [_begun(f, cut, one, output) for output in outputs]
    some = [
        _Window(f.at(lists.values, begin), f.at(lists.places, begin, "i32"), slots)
        for begin, slots in zip(begins, sums, strict=True)
    ]
    common = reduce(f.smaller, counts)
    _emit_steps(f, cut, one, some, "0", common)
    if len(ranks) > 1:
        for window, count in zip(some, counts, strict=True):
            _emit_steps(f, cut, one, [window], common, count)
    for output, slots in zip(outputs, sums, strict=True):
        _emit_end(f, cut, one, output, slots)


@dataclass(frozen=True)
class _Window:
    """What a window sums: pointers to its values and places, and slots for its sums."""

    values: str
    places: str
    sums: list[str]


def _emit_steps(f: Function, cut: Cut, one: _Pass, windows: list[_Window], begin: str, end: str) -> None:
    """Sum the values of windows from `begin` to `end`; of fp16 some at a time, which then go over into float32."""
    if cut.kind != "fp16":
        _emit_loop(f, cut, one, windows, begin, end)
        return
    wide = vector(2 * cut.lanes, "half")
    with f.loop(begin, end, FLUSH) as first:
        halves = [
            replace(each, sums=[f.slot(wide, "zeroinitializer") for _ in range(cut.vectors // 2)])
            for each in windows
        ]
        _emit_loop(f, cut, one, halves, first, f.smaller(f.add(first, FLUSH), end))
        for window, some in zip(windows, halves, strict=True):
            emit_flush(f, cut.lanes, some.sums, window.sums)


def _emit_loop(f: Function, cut: Cut, one: _Pass, windows: list[_Window], begin: str, end: str) -> None:
    with f.loop(begin, end) as step:
        if len(windows) > 1:
            _ask(f, cut, one)
        for window in windows:
            row = f.at(one.weights, load_number(f, window.places, step), "i8")
            emit_products(f, cut.kind, cut.lanes, f.at(window.values, step), row, window.sums)


def _ask(f: Function, cut: Cut, one: _Pass) -> None:
    """Ask for some of the weights of the next pass."""
    if cut.ahead:
        first, floats = f.load(POINTER, one.next), LINE // 4
        for line in range(cut.ahead):
            f.prefetch(f.at(first, floats * line), level=2)
        following = f.at(first, floats * cut.ahead)
        is_inside = f.value(f"icmp ult ptr {following}, {one.end}")
        f.store(POINTER, f.value(f"select i1 {is_inside}, ptr {following}, ptr {one.end}"), one.next)


def _begun(f: Function, cut: Cut, one: _Pass, output: str) -> list[str]:
    """The sums of a window, as they are before this pass."""
    source = (
        f.value(f"select i1 {one.is_first}, ptr {one.bias}, ptr {output}") if cut.passes > 1 else one.bias
    )
    kind, places = vector(cut.lanes), [f.at(source, cut.lanes * each) for each in range(cut.vectors)]
    if not one.masks:
        return [f.slot(kind, f.load(kind, place)) for place in places]
    pairs = zip(one.masks, places, strict=True)
    return [f.slot(kind, f.load_masked(cut.lanes, mask, place)) for mask, place in pairs]


def _emit_end(f: Function, cut: Cut, one: _Pass, output: str, sums: list[str]) -> None:
    """Write the sums of a window to its output pixel."""
    kind = vector(cut.lanes)
    for each, total in enumerate(sums):
        value, place = f.load(kind, total), f.at(output, cut.lanes * each)
        if one.least is not None:
            below = f.value(f"fcmp olt {kind} {value}, {one.least}")  # NaN stays, as in PyTorch
            value = f.value(f"select {vector(cut.lanes, 'i1')} {below}, {kind} {one.least}, {kind} {value}")
        if one.masks:
            f.store_masked(cut.lanes, one.masks[each], value, place)
        else:
            f.store(kind, value, place)
