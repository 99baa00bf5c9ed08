"""The chips once more, one cycle, lane and MAC at a time: slow, plain, and written without the engine's counts.

Every function returns (cycles, busy lane-cycles, useless operations, done, skipped).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from zeroskip.simulate.accelerator import Accelerator
from zeroskip.simulate.workload import Workload

Found = tuple[int, int, int, int, int]


def pixel(work: Workload, n: int, g: int, c: int, row: int, column: int) -> bool:
    """An input by its padded row and column."""
    row, column = row - work.padding[0], column - work.padding[2]
    inside = 0 <= row < work.input.shape[3] and 0 <= column < work.input.shape[4]
    return inside and bool(work.input[n, g, c, row, column])


def positions(work: Workload) -> list[tuple[int, int, int]]:
    examples, _, _, tall, wide = work.output.shape
    return [(n, y, x) for n in range(examples) for y in range(tall) for x in range(wide)]


def places(work: Workload) -> list[tuple[int, int, int]]:
    """Kernel places, channels last."""
    _, _, channels, tall, wide = work.weight.shape
    return [(r, s, c) for r in range(tall) for s in range(wide) for c in range(channels)]


def factors(work: Workload) -> Iterator[tuple[bool, bool]]:
    """Weight and input of every MAC."""
    for g in range(work.weight.shape[0]):
        for n, y, x in positions(work):
            for r, s, c in places(work):
                a = seen(work, n, g, y, x, r, s, c)
                for m in range(work.weight.shape[1]):
                    yield bool(work.weight[g, m, c, r, s]), a


def seen(work: Workload, n: int, g: int, y: int, x: int, r: int, s: int, c: int) -> bool:
    (up, across), (down, right) = work.stride, work.dilation
    return pixel(work, n, g, c, y * up + r * down, x * across + s * right)


def together(lanes: list[list[int]]) -> tuple[int, int]:
    """Each lane goes through its jobs, a cycle at a time; (cycles until the last is done, cycles at work)."""
    waiting, left, clock, busy = [deque(jobs) for jobs in lanes], [0] * len(lanes), 0, 0
    while True:
        for i, jobs in enumerate(waiting):
            while left[i] == 0 and jobs:
                left[i] = jobs.popleft()
        if not any(left):
            return clock, busy
        busy += sum(job > 0 for job in left)
        left, clock = [max(job - 1, 0) for job in left], clock + 1


def chunked(things: list, size: int) -> list[list]:
    return [things[i : i + size] for i in range(0, len(things), size)]


def array(work: Workload, chip: Accelerator) -> Found:
    clock = busy = 0
    outputs, across = chip.tile["outputs"], chip.lanes // chip.tile["outputs"]
    for _ in range(work.weight.shape[0]):
        for some in chunked(list(range(work.weight.shape[1])), outputs):
            for spots in chunked(positions(work), across):
                for _ in chunked(places(work), chip.width):
                    clock, busy = clock + 1, busy + len(some) * len(spots)
    return clock, busy, 0, sum(1 for _ in factors(work)), 0


def minerva(work: Workload, chip: Accelerator) -> Found:
    """The same cycles; a MAC whose input is zero is gated, so it is neither done nor skipped."""
    clock, busy, _, _, _ = array(work, chip)
    return clock, busy, 0, sum(a for _, a in factors(work)), 0


def eyeriss(work: Workload, chip: Accelerator) -> Found:
    """MACs are handed to the elements at work, one each a cycle; the sets of rows are laid into the grid one by one."""
    kernel, strip = work.weight.shape[3], chip.tile["strip"]
    grid = [[False] * (chip.lanes // chip.tile["rows"]) for _ in range(chip.tile["rows"])]
    for top in range(0, len(grid) - kernel + 1, kernel):
        for left in range(0, len(grid[0]) - strip + 1, strip):
            for row in range(top, top + kernel):
                grid[row][left : left + strip] = [True] * strip
    at_work = sum(map(sum, grid))
    macs = list(factors(work))
    return len(chunked(macs, at_work)), len(macs), 0, sum(a for _, a in macs), 0


def dadiannao(work: Workload, chip: Accelerator) -> Found:
    clock = busy = 0
    for _ in positions(work):
        for _ in range(work.weight.shape[0]):
            for _ in chunked(list(range(work.weight.shape[1])), chip.width):
                for _ in range(work.weight.shape[3] * work.weight.shape[4]):
                    for some in chunked(list(range(work.weight.shape[2])), chip.lanes):
                        clock, busy = clock + 1, busy + len(some)
    return clock, busy, 0, work.macs, 0


def dcnn(work: Workload, chip: Accelerator) -> Found:
    clock = busy = 0
    tall, wide = work.output.shape[3:]
    rows, columns = -(-tall // chip.tile["rows"]), -(-wide // chip.tile["columns"])
    steps = len(chunked(places(work), chip.width))
    if tall * wide == 1:  # filters are dealt to the lanes instead
        for _ in range(work.weight.shape[0] * work.positions):
            cycles, worked = together([[steps] * len(some) for some in _dealt(_filters(work), chip.lanes)])
            clock, busy = clock + cycles, busy + worked
        return clock, busy, 0, work.macs, 0
    for _ in range(work.weight.shape[0] * work.weight.shape[1] * work.output.shape[0]):
        lanes: dict[tuple[int, int], list[int]] = {}
        for y in range(tall):
            for x in range(wide):
                lanes.setdefault((y // rows, x // columns), []).append(steps)
        cycles, worked = together(list(lanes.values()))
        clock, busy = clock + cycles, busy + worked
    return clock, busy, 0, work.macs, 0


def tensor_core(work: Workload, chip: Accelerator) -> Found:
    """Weights that leave two of every four inputs out go through an array of half the inputs."""
    groups, outputs, channels, tall, wide = work.weight.shape
    fours = [
        sum(bool(work.weight[g, m, c + i, r, s]) for i in range(4))
        for g in range(groups)
        for m in range(outputs)
        for c in range(0, channels - channels % 4, 4)
        for r in range(tall)
        for s in range(wide)
    ]
    halved = channels % 4 == 0 and max(fours) <= 2
    depth = channels * tall * wide // (1 + halved)
    clock = busy = 0
    for _ in range(groups):
        for some in chunked(list(range(outputs)), chip.tile["outputs"]):
            for spots in chunked(positions(work), chip.lanes // chip.tile["outputs"]):
                for _ in chunked(list(range(depth)), chip.width):
                    clock, busy = clock + 1, busy + len(some) * len(spots)
    done = work.macs // (1 + halved)
    return clock, busy, 0, done, work.macs - done


def eyeriss_v2(work: Workload, chip: Accelerator) -> Found:
    """One MAC a cycle for each pair of a non-zero weight and a non-zero input of a channel of 1 x 1 kernels."""
    done = sum(w and a for w, a in factors(work))
    return done, done, 0, done, work.macs - done


def scnn(work: Workload, chip: Accelerator) -> Found:
    tile, clock, busy, made, done = chip.tile, 0, 0, 0, 0
    examples, groups, channels, tall, wide = work.input.shape
    size = -(-tall // tile["rows"]), -(-wide // tile["columns"])
    phases = [(i, j) for i in range(work.stride[0]) for j in range(work.stride[1])]
    for n in range(examples):
        for g in range(groups):
            for filters in chunked(
                list(range(work.weight.shape[1])), tile.get("filters", work.weight.shape[1])
            ):
                lanes = []
                for lane in range(chip.lanes):
                    corner = lane // tile["columns"] * size[0], lane % tile["columns"] * size[1]
                    jobs = []
                    for c in range(channels):
                        for phase in phases:
                            inputs = [
                                (h, w)
                                for h in range(corner[0], min(corner[0] + size[0], tall))
                                for w in range(corner[1], min(corner[1] + size[1], wide))
                                if work.input[n, g, c, h, w]
                                and (
                                    (h + work.padding[0]) % work.stride[0],
                                    (w + work.padding[2]) % work.stride[1],
                                )
                                == phase
                            ]
                            weights = [
                                (m, r, s)
                                for m in filters
                                for r in range(work.weight.shape[3])
                                for s in range(work.weight.shape[4])
                                if work.weight[g, m, c, r, s]
                                and (
                                    r * work.dilation[0] % work.stride[0],
                                    s * work.dilation[1] % work.stride[1],
                                )
                                == phase
                            ]
                            for some in chunked(weights, tile["weights"]):
                                for vector in chunked(inputs, tile["inputs"]):
                                    jobs.append(1)
                                    made += len(some) * len(vector)
                                    done += sum(
                                        _lands(work, r, s, h, w) for _, r, s in some for h, w in vector
                                    )
                    lanes.append(jobs)
                cycles, worked = together(lanes)
                clock, busy = clock + cycles, busy + worked
    return clock, busy, made - done, done, work.macs - done


def _lands(work: Workload, r: int, s: int, h: int, w: int) -> bool:
    """Whether a product belongs to an output."""
    down = h + work.padding[0] - r * work.dilation[0]
    right = w + work.padding[2] - s * work.dilation[1]
    y, x = down / work.stride[0], right / work.stride[1]
    return y in range(work.output.shape[3]) and x in range(work.output.shape[4])


def eie(work: Workload, chip: Accelerator) -> Found:
    clock = busy = useless = done = 0
    outputs, inputs = work.weight.shape[1:3]
    for vector in work.input.flatten(1):
        for part in chunked(list(range(inputs)), chip.tile["inputs"]):
            columns = [k for k in part if vector[k]]
            jobs = []
            for k in columns:
                row = []
                for lane in range(chip.lanes):
                    zeros = entries = 0
                    for m in range(lane, outputs, chip.lanes):
                        if work.weight[0, m, k]:
                            entries, useless, done = (
                                entries + 1 + zeros // 16,
                                useless + zeros // 16,
                                done + 1,
                            )
                            zeros = 0
                        else:
                            zeros += 1
                    row.append(max(entries, 1))
                jobs.append(row)
            cycles, worked = _broadcast(jobs, chip.lanes, chip.tile["queue"])
            clock, busy = clock + cycles, busy + worked
    return clock, busy, useless, done, work.macs - done


def _broadcast(jobs: list[list[int]], lanes: int, depth: int) -> tuple[int, int]:
    """Jobs go to the queues of all lanes at once, as soon as none of the queues is full."""
    queues: list[deque[int]] = [deque() for _ in range(lanes)]
    left, sent, clock, busy = [0] * lanes, 0, 0, 0
    while sent < len(jobs) or any(queues) or any(left):
        if sent < len(jobs) and all(len(queue) < depth for queue in queues):
            for queue, job in zip(queues, jobs[sent], strict=True):
                queue.append(job)
            sent += 1
        for i, queue in enumerate(queues):
            if left[i] == 0 and queue:
                left[i] = queue.popleft()
        busy += sum(job > 0 for job in left)
        left, clock = [max(job - 1, 0) for job in left], clock + 1
    return clock, busy


def cnvlutin(work: Workload, chip: Accelerator) -> Found:
    """Too few channels for a brick are not encoded."""
    if work.weight.shape[2] < chip.tile["brick"]:
        return dadiannao(work, chip)
    clock = busy = done = 0
    groups, outputs, channels = work.weight.shape[:3]
    rounds = -(-outputs // chip.width)
    for n, y, x in positions(work):
        for g in range(groups):
            counts = []
            for r in range(work.weight.shape[3]):
                for s in range(work.weight.shape[4]):
                    for brick in chunked(list(range(channels)), chip.tile["brick"]):
                        found = sum(seen(work, n, g, y, x, r, s, c) for c in brick)
                        counts.append(max(found, chip.tile["empty"]))
                        done += found * outputs
            cycles, worked = together([counts[i :: chip.lanes] for i in range(chip.lanes)])
            clock, busy = clock + cycles * rounds, busy + worked * rounds
    return clock, busy, 0, done, work.macs - done


def cambricon_x(work: Workload, chip: Accelerator) -> Found:
    lanes: list[list[int]] = [[] for _ in range(chip.lanes)]
    filters = [work.weight[g, m] for g in range(work.weight.shape[0]) for m in range(work.weight.shape[1])]
    window = len(chunked(places(work), chip.tile["window"]))
    for i, weights in enumerate(filters):
        steps = chunked([1 for w in weights.flatten() if w], chip.width)
        lanes[i % chip.lanes] += [max(len(steps), window)] * work.positions
    done = sum(w for w, _ in factors(work))
    return *together(lanes), 0, done, work.macs - done


def cambricon_s(work: Workload, chip: Accelerator) -> Found:
    clock = busy = done = 0
    window = len(chunked(places(work), chip.tile["window"]))
    for g in range(work.weight.shape[0]):
        for filters in chunked(list(range(work.weight.shape[1])), chip.lanes):
            for n, y, x in positions(work):
                chosen = [
                    1
                    for r, s, c in places(work)
                    if seen(work, n, g, y, x, r, s, c) and any(work.weight[g, m, c, r, s] for m in filters)
                ]
                cycles = max(len(chunked(chosen, chip.width)), window)
                clock, busy = clock + cycles, busy + cycles * len(filters)
                done += len(chosen) * len(filters)
    return clock, busy, 0, done, work.macs - done


def sparten(work: Workload, chip: Accelerator) -> Found:
    """Without balance: lane i of a load has filter i of it."""
    lanes = chip.tile["filters"]
    return _sparten(
        work, chip, lambda g, chunk: [[[m] for m in some] for some in chunked(_filters(work), lanes)]
    )


def sparten_gb_s(work: Workload, chip: Accelerator) -> Found:
    return _sparten(work, chip, lambda g, chunk: _pairs(work, chip, g))


def sparten_gb_h(work: Workload, chip: Accelerator) -> Found:
    def order(g: int, chunk: list) -> list[list[list[int]]]:
        loads = []
        for load in _pairs(work, chip, g):
            members = [pair[0] for pair in load if pair] + [m for pair in load for m in pair[1:]]
            # In the order of the pairs: first the densest of each, in turn, then the others.
            size = {m: sum(bool(work.weight[g, m, c, r, s]) for r, s, c in chunk) for m in members}
            ranked = sorted(members, key=lambda m: -size[m])
            ranked += [-1] * (2 * chip.tile["filters"] - len(ranked))
            half = len(ranked) // 2
            loads.append([[m for m in (ranked[i], ranked[-1 - i]) if m >= 0] for i in range(half)])
        return loads

    return _sparten(work, chip, order)


def _dealt(things: list, lanes: int) -> list[list]:
    return [things[i::lanes] for i in range(lanes)]


def _filters(work: Workload) -> list[int]:
    return list(range(work.weight.shape[1]))


def _pairs(work: Workload, chip: Accelerator, g: int) -> list[list[list[int]]]:
    """The densest filter with the sparsest, an absent one being sparser than any."""
    ranked = sorted(_filters(work), key=lambda m: -int(work.weight[g, m].sum()))
    ranked += [-1] * (-len(ranked) % (2 * chip.tile["filters"]))
    pairs = [[m for m in (ranked[i], ranked[-1 - i]) if m >= 0] for i in range(len(ranked) // 2)]
    return chunked(pairs, chip.tile["filters"])


def _sparten(work: Workload, chip: Accelerator, order) -> Found:
    clusters: list[list[int]] = [[] for _ in range(chip.lanes // chip.tile["filters"])]
    chunks, busy, done, unit = chunked(places(work), chip.tile["chunk"]), 0, 0, 0
    for g in range(work.weight.shape[0]):
        loads = [order(g, chunk) for chunk in chunks]
        for load in range(len(loads[0])):
            for n, y, x in positions(work):
                for number, chunk in enumerate(chunks):
                    lanes = []
                    for filters in loads[number][load]:
                        found = [_matches(work, n, g, y, x, m, chunk) for m in filters]
                        done += sum(found)
                        lanes.append([max(matches, 1) for matches in found])
                    cycles, worked = together(lanes)
                    clusters[unit % len(clusters)].append(cycles)
                    busy += worked
                unit += 1
    return together(clusters)[0], busy, 0, done, work.macs - done


def _matches(work: Workload, n: int, g: int, y: int, x: int, m: int, chunk: list) -> int:
    return sum(bool(work.weight[g, m, c, r, s]) and seen(work, n, g, y, x, r, s, c) for r, s, c in chunk)


def extensor(work: Workload, chip: Accelerator) -> Found:
    found = extensor_joins(work, chip)
    cycles, busy = together([[count] for count in found["lanes"]])
    done = found["levels"][2][1]
    return cycles, busy, 0, done, work.macs - done


def extensor_joins(work: Workload, chip: Accelerator) -> dict:
    """Pairs asked for, met, comparisons of each level; comparisons of each element; bytes that pass."""
    element, sides = (
        chip.tile["element"],
        [chip.tile[name] for name in ("outputs", "positions", "inputs")],
    )
    levels, lanes, dealt = [[0, 0, 0], [0, 0, 0], [0, 0, 0]], [0] * chip.lanes, 0
    moved = {(memory, name): 0 for memory in ("DRAM", "buffer", "element buffers") for name in "WAO"}
    groups, outputs = work.weight.shape[:2]
    ranges = [list(range(length)) for length in (outputs, work.positions, work.inputs)]
    large = [chunked(axis, side) for axis, side in zip(ranges, sides, strict=True)]
    for g in range(groups):
        w = {
            m: [k for k, (r, s, c) in enumerate(places(work)) if work.weight[g, m, c, r, s]]
            for m in ranges[0]
        }
        x = {
            p: [k for k, (r, s, c) in enumerate(places(work)) if seen(work, n, g, y, i, r, s, c)]
            for p, (n, y, i) in enumerate(positions(work))
        }
        fetched, sums = set(), set()
        every = [i for i, ks in enumerate(large[2]) if _tile(w, ranges[0], ks)]
        for ns in large[1]:
            own = [i for i, ks in enumerate(large[2]) if _tile(x, ns, ks)]
            levels[0][2] += steps(every, own)
            for ks in large[2]:
                for ms in large[0]:
                    levels[0][0] += 1
                    if not (_tile(w, ms, ks) and _tile(x, ns, ks)):
                        continue
                    levels[0][1] += 1
                    for small in chunked(ms, element):
                        for other in chunked(ns, element):
                            strips = chunked(ks, element)
                            levels[1][0] += len(strips)
                            ones = [i for i, one in enumerate(strips) if _tile(w, small, one)]
                            twos = [i for i, one in enumerate(strips) if _tile(x, other, one)]
                            levels[1][2] += steps(ones, twos)
                            both = [strips[i] for i in ones if i in twos]
                            begun = [pair for pair in sums if pair[0] in small and pair[1] in other]
                            moved["DRAM", "O"] += 32 * len(begun) * bool(both)
                            for strip in both:
                                one, two = _tile(w, small, strip), _tile(x, other, strip)
                                levels[1][1] += 1
                                levels[2][0] += len(small) * len(other) * len(strip)
                                for name, tile, key in (
                                    ("W", one, ("W", small[0], strip[0], ns[0])),
                                    ("A", two, ("A", other[0], strip[0])),
                                ):
                                    size = 12 + sum(8 + 12 * len(row) for row in tile.values())
                                    moved["buffer", name] += size
                                    moved["DRAM", name] += size * (key not in fetched)
                                    fetched.add(key)
                                compared = 0
                                for m, row in one.items():
                                    for p, column in two.items():
                                        matches = len(set(row) & set(column))
                                        compared += steps(row, column)
                                        levels[2][1] += matches
                                        for name in "WA":
                                            moved["element buffers", name] += (
                                                4 * steps(row, column) + 8 * matches
                                            )
                                        if matches:
                                            moved["DRAM", "O"] += 16 * ((m, p) not in sums)
                                            moved["buffer", "O"] += 32
                                            moved["element buffers", "O"] += 16
                                            sums.add((m, p))
                                levels[2][2] += compared
                                lanes[dealt % chip.lanes] += compared
                                dealt += 1
    return {"levels": levels, "lanes": lanes, "moved": moved}


def _tile(rows: dict[int, list[int]], some: list[int], ks: list[int]) -> dict[int, list[int]]:
    """Coordinates of each row of a tile that has any."""
    found = {row: [k for k in rows[row] if k in ks] for row in some}
    return {row: found[row] for row in found if found[row]}


def steps(one: list[int], two: list[int]) -> int:
    """Comparisons of two sorted lists: the one that is behind jumps to where the other one is, or beyond."""
    i = j = count = 0
    while i < len(one) and j < len(two):
        count += 1
        if one[i] == two[j]:
            i, j = i + 1, j + 1
        elif one[i] < two[j]:
            while i < len(one) and one[i] < two[j]:
                i += 1
        else:
            while j < len(two) and two[j] < one[i]:
                j += 1
    return count
