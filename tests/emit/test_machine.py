"""This computer as data."""

from __future__ import annotations

import os

import llvmlite.binding as llvm
import pytest

from zeroskip.emit import detect, machine


def test_the_machine_has_a_name_cores_and_the_features_that_the_processor_reports() -> None:
    here = detect()
    assert here.name
    assert here.arch
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    reported = llvm.get_host_cpu_features()
    assert here.features == {name for name, present in reported.items() if present}


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ({"avx512f": True, "avx2": True, "fma": True}, 64),
        ({"avx512f": False, "avx2": True, "fma": True}, 32),
        ({"avx2": True, "fma": False}, 16),
        ({"neon": True}, 16),
        ({}, 16),
    ],
)
def test_vectors_are_64_bytes_with_avx512_32_with_avx2_and_fma_and_16_otherwise(
    features: dict[str, bool], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: features)
    # A name that promises more than the features must not be believed.
    monkeypatch.setattr(machine.llvm, "get_host_cpu_name", lambda: "sapphirerapids")
    assert detect().vector_bytes == width


def test_a_processor_that_cannot_be_asked_counts_as_having_no_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", unknown)
    assert detect().features == frozenset()
    assert detect().vector_bytes == 16


def test_without_proc_cpuinfo_the_platform_gives_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", machine.Path("/nowhere"))
    assert detect().name
