"""How long a pruned AlexNet takes from a `.zs` file to tensors, and how fast Huffman codes are decoded.

61 million weights, random masks at the shares that Han et al. 2015 kept of each layer (11 % in all), weights drawn
from a normal distribution and shared as in Deep Compression (256 values in convolutions, 32 in the others).
Every run is a process of its own, so that it includes what is compiled on first use, but not the import of
zeroskip and torch. Prints JSON.

    python benchmarks/load.py --runs 7
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from zeroskip import pack
from zeroskip.codecs import huffman
from zeroskip.emit import detect

# name: shape, share kept (Han et al. 2015, table 4), bits of a code (Deep Compression, table 4)
ALEXNET = {
    "conv1": ((96, 3, 11, 11), 0.84, 8),
    "conv2": ((256, 48, 5, 5), 0.38, 8),
    "conv3": ((384, 256, 3, 3), 0.35, 8),
    "conv4": ((384, 192, 3, 3), 0.37, 8),
    "conv5": ((256, 192, 3, 3), 0.37, 8),
    "fc6": ((4096, 9216), 0.09, 5),
    "fc7": ((4096, 4096), 0.09, 5),
    "fc8": ((1000, 4096), 0.25, 5),
}
SYMBOLS = 8_000_000


def main() -> None:
    """Make the file, load it in `runs` processes, print the medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.child:
        print(json.dumps(one_run(given.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path, figures = make(Path(folder))
        command = [sys.executable, __file__, "--child", str(path)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(given.runs)]
    figures |= {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    figures |= {"seconds_of_each_run": [round(run["seconds"], 3) for run in runs], "runs": given.runs}
    print(json.dumps({"machine": detect().title, "threads": 1} | figures, indent=2))


def make(folder: Path) -> tuple[Path, dict[str, float]]:
    """The file, and its sizes."""
    torch.manual_seed(0)
    state = {}
    for name, (shape, share, bits) in ALEXNET.items():
        state[f"{name}.weight"] = shared(torch.randn(shape), torch.rand(shape) < share, 2**bits)
        state[f"{name}.bias"] = torch.randn(shape[0])
    packed = pack.encode(state)
    dense = 4 * sum(tensor.numel() for tensor in state.values())
    sizes = {"weights": dense // 4, "dense_bytes": dense, "stored_bytes": packed.stored_bytes}
    return pack.save(packed, folder / "alexnet.zs"), sizes


def shared(weight: torch.Tensor, mask: torch.Tensor, levels: int) -> torch.Tensor:
    """The weights rounded to evenly spaced values, zero where the mask is False."""
    most = weight.abs().max()
    step = 2 * most / (levels - 1)
    return (((weight + most) / step).round() * step - most).masked_fill(~mask, 0)


def one_run(path: str) -> dict[str, float]:
    """Seconds and memory of a first load in this process, then the speed of Huffman decoding alone."""
    before = memory("VmRSS")
    start = time.perf_counter()
    packed = pack.load(path)
    loaded = time.perf_counter()
    state = pack.decode(packed)
    end = time.perf_counter()
    peak = memory("VmHWM") - before
    dense = sum(tensor.nbytes for tensor in state.values())
    return {
        "seconds": end - start,
        "seconds_load": loaded - start,
        "seconds_decode": end - loaded,
        "peak_memory_over_dense": peak / dense,
        **huffman_speed(),
    }


def memory(what: str) -> int:
    """Bytes of this process, "VmRSS" now or "VmHWM" at the most; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def huffman_speed() -> dict[str, float]:
    """Millions of symbols a second, one thread: 32 values of a normal distribution, as codes of weights are."""
    symbols = np.clip(np.round(np.random.default_rng(0).normal(16, 4.5, SYMBOLS)), 0, 31).astype(np.uint8)
    lengths = huffman.lengths(np.bincount(symbols, minlength=32))
    data = huffman.encode(symbols, lengths)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        huffman.decode(data, SYMBOLS, lengths)
        seconds.append(time.perf_counter() - start)
    return {
        "huffman_million_symbols_per_second": SYMBOLS / statistics.median(seconds) / 1e6,
        "huffman_bits_per_symbol": 8 * len(data) / SYMBOLS,
    }


if __name__ == "__main__":
    main()
