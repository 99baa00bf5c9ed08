"""The non-zeros of images, found by machine code: a list for each row, then a list for each output pixel.

A list is a run of `values` and `places`, where a place is how far into the weights of a block, in bytes, those for
the value lie; `starts` says where the runs begin. Nothing lies between the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.emit import INTEGER, Function
from zeroskip.run.convolution.zero_inputs.gather_blocking import GatherBlocking
from zeroskip.run.convolution.zero_inputs.number_formats import listed

BUCKETS = 64  # of lengths, when windows are sorted by them


@dataclass(frozen=True)
class NonzeroLists:
    """Where lists lie: pointers to values (as in number_formats.py), int32, int32, and to a slot with their count."""

    values: str
    places: str
    starts: str
    filled: str


@dataclass(frozen=True)
class Band:
    """Rows of the output worked on at a time: the first, how many, and the first row of the input that is listed."""

    line: str
    lines: str
    above: str


def emit_rows(f: Function, cut: GatherBlocking, x: str, count: str, part: str, lists: NonzeroLists) -> None:
    """List `count` rows of the images from pointer `x` on, one part of the channels; `starts` (count, width + 1).

    Of pointwise layers only the pixels that are read are listed, with `starts` (count x out width + 1,).
    """
    shape = cut.shape
    down, right = shape.stride if shape.pointwise else (1, 1)
    width = shape.out_width if shape.pointwise else shape.width
    first = ", ".join(f"i32 {cut.row * lane}" for lane in range(cut.lanes))
    with f.loop(0, count) as row:
        places = f.slot(cut.v.of("i32"), f"<{first}>")
        before = f.multiply(row, down * shape.width * shape.channels)
        line = f.at(x, f.add(before, f.multiply(part, cut.channels)))
        starts = f.at(lists.starts, f.multiply(row, width + (not shape.pointwise)), "i32")
        with f.loop(0, width) as column:
            store_number(f, f.load(INTEGER, lists.filled), starts, column)
            if shape.pointwise:
                f.store(cut.v.of("i32"), f"<{first}>", places)
            _emit_pixel(f, cut, f.at(line, f.multiply(column, right * shape.channels)), part, lists, places)
        store_number(f, f.load(INTEGER, lists.filled), starts, width)


def _emit_pixel(
    f: Function, cut: GatherBlocking, pixel: str, part: str, lists: NonzeroLists, places: str
) -> None:
    """Append the non-zeros of one part of a pixel, whose places the slot counts on."""
    shape = cut.shape
    lanes, v, numbers = cut.lanes, cut.v, cut.v.of("i32")
    for channel in range(0, cut.channels, lanes):
        count = min(lanes, cut.channels - channel)
        source = f.at(pixel, channel)
        if count < lanes or cut.parts * cut.channels > shape.channels:
            left = f.subtract(shape.channels - channel, f.multiply(part, cut.channels))
            values = f.load_masked(v, f.below(lanes, f.smaller(left, count)), source)
        else:
            values = f.load(v, source)
        mask = f.value(f"fcmp une {v} {values}, zeroinitializer")  # true of NaN
        filled, place = f.load(INTEGER, lists.filled), f.load(numbers, places)
        f.store(v, listed(f, cut.storage, v, f.compressed(v, mask, values)), f.at(lists.values, filled))
        f.store(numbers, f.compressed(numbers, mask, place), f.at(lists.places, filled, "i32"))
        f.store(INTEGER, f.add(filled, f.count(lanes, mask)), lists.filled)
        step = f.splat(numbers, str(cut.row * count))
        f.store(numbers, f.value(f"add {numbers} {place}, {step}"), places)


def emit_windows(
    f: Function, cut: GatherBlocking, band: Band, group: str, rows: NonzeroLists, windows: NonzeroLists
) -> None:
    """List what one group of taps reads in the windows of a band, from lists of the band's rows.

    Places then count from the first weight of the group, and `starts` is (windows + 1,).
    """
    shape = cut.shape
    with f.loop(0, band.lines) as each:
        image = f.value(f"udiv i64 {each}, {shape.out_height}") if cut.images > 1 else "0"
        y = f.value(f"urem i64 {each}, {shape.out_height}") if cut.images > 1 else f.add(each, band.line)
        top = f.subtract(f.multiply(y, shape.stride[0]), shape.before[0])
        first = f.subtract(f.add(f.multiply(image, shape.height), top), band.above)
        with f.loop(0, shape.out_width) as x:
            place = f.add(f.multiply(each, shape.out_width), x)
            store_number(f, f.load(INTEGER, windows.filled), windows.starts, place)
            with f.loop(0, shape.taps[0] // cut.groups) as tap:
                down = f.multiply(f.add(tap, group), shape.dilation[0])
                inside = f.value(f"icmp ult i64 {f.add(top, down)}, {shape.height}")
                with f.when(inside):
                    _emit_tap_row(f, cut, _TapRow(f.add(first, down), tap, x), rows, windows)
    store_number(f, f.load(INTEGER, windows.filled), windows.starts, f.multiply(band.lines, shape.out_width))


@dataclass(frozen=True)
class _TapRow:
    """One row of taps of a window: the row of the image that it meets, its number, and the window's column."""

    row: str
    number: str
    column: str


def _emit_tap_row(
    f: Function, cut: GatherBlocking, taps: _TapRow, rows: NonzeroLists, windows: NonzeroLists
) -> None:
    """Append what one row of taps finds in a row of the image: one run of its list."""
    shape, v, numbers = cut.shape, cut.v, cut.v.of("i32")
    left = f.subtract(f.multiply(taps.column, shape.stride[1]), shape.before[1])
    starts = f.at(rows.starts, f.multiply(taps.row, shape.width + 1), "i32")
    begin, end = (
        load_number(f, starts, f.bounded(each, 0, shape.width)) for each in (left, f.add(left, shape.taps[1]))
    )
    # Places in a row count its pixels; those in a window count its taps.
    distance = f.subtract(f.multiply(taps.number, shape.taps[1]), left)
    moved = f.value(f"trunc i64 {f.multiply(distance, cut.row * cut.channels)} to i32")
    shift, filled = f.splat(numbers, moved), f.load(INTEGER, windows.filled)
    values, places = f.at(windows.values, filled), f.at(windows.places, filled, "i32")
    count = f.subtract(end, begin)
    # Whole vectors: what is written too much is overwritten by the run that follows.
    with f.loop(0, count, v.lanes) as offset:
        source = f.add(begin, offset)
        f.store(v, f.load(v, f.at(rows.values, source)), f.at(values, offset))
        place = f.load(numbers, f.at(rows.places, source, "i32"))
        f.store(numbers, f.value(f"add {numbers} {place}, {shift}"), f.at(places, offset, "i32"))
    f.store(INTEGER, f.add(filled, count), windows.filled)


def emit_order(f: Function, starts: str, order: str, buckets: str, count: str) -> None:
    """Write the numbers of `count` windows to `order` (int32), those of similar length next to each other.

    Lengths are distinguished to a 32nd of their mean.
    """
    total = f.subtract(load_number(f, starts, count), load_number(f, starts, "0"))
    mean = f.value(f"udiv i64 {total}, {count}")
    zeros = f.call(INTEGER, "llvm.ctlz.i64", f"i64 {mean}", "i1 0")
    shift = f.bounded(f.subtract(64 - BUCKETS.bit_length() + 2, zeros), 0, 63)

    def bucket(window: str) -> str:
        length = f.subtract(load_number(f, starts, f.add(window, 1)), load_number(f, starts, window))
        return f.smaller(f.value(f"lshr i64 {length}, {shift}"), BUCKETS - 1)

    with f.loop(0, BUCKETS) as each:
        store_number(f, "0", buckets, each)
    with f.loop(0, count) as window:
        number = bucket(window)
        store_number(f, f.add(load_number(f, buckets, number), 1), buckets, number)
    before = f.slot(INTEGER, "0")
    with f.loop(0, BUCKETS) as each:
        begin = f.load(INTEGER, before)
        f.store(INTEGER, f.add(begin, load_number(f, buckets, each)), before)
        store_number(f, begin, buckets, each)
    with f.loop(0, count) as window:
        number = bucket(window)
        place = load_number(f, buckets, number)
        store_number(f, window, order, place)
        store_number(f, f.add(place, 1), buckets, number)


def load_number(f: Function, pointer: str, index: str) -> str:
    """The 32-bit number at `index`, as 64 bits."""
    return f.value(f"sext i32 {f.load('i32', f.at(pointer, index, 'i32'))} to i64")


def store_number(f: Function, value: str, pointer: str, index: str | int) -> None:
    """Write a 64-bit number as 32 bits to `index`."""
    f.store("i32", f.value(f"trunc i64 {value} to i32"), f.at(pointer, index, "i32"))
