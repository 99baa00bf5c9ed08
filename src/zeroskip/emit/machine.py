"""This computer as data."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import llvmlite.binding as llvm

from zeroskip.concepts import Machine

CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # "1024K", on Linux
CPU_INFO = Path("/proc/cpuinfo")  # on Linux; elsewhere the platform module knows a name


def detect() -> Machine:
    """The machine this process runs on.

    Features are asked from the processor itself. Its name is shown to people and decides nothing: virtual
    machines report names whose usual features they lack.

    >>> detect().vector_bytes in (16, 32, 64)
    True
    """
    arch = platform.machine().lower()
    features = _features()
    return Machine(_name(), arch, features, _cores(), _vector_bytes(features), _cache_bytes())


def _features() -> frozenset[str]:
    try:
        flags = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot ask every processor; kernels then use what every one of its kind has
        return frozenset()
    return frozenset(name for name, present in flags.items() if present)


def _name() -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    # The cores this process may use, which in a container are fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cache_bytes() -> int:
    try:
        size = CACHE.read_text().strip()
    except OSError:
        return 1 << 20
    number, unit = size.rstrip("KM"), size[-1:]
    return int(number) * {"K": 1 << 10, "M": 1 << 20}.get(unit, 1) if number.isdigit() else 1 << 20


def _vector_bytes(features: frozenset[str]) -> int:
    if "avx512f" in features:
        return 64
    return 32 if {"avx2", "fma"} <= features else 16
