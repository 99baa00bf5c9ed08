"""zeroskip doctor, asked about described computers."""

from __future__ import annotations

import json

import pytest

from zeroskip import doctor
from zeroskip.concepts import Machine
from zeroskip.doctor import Support, examine, show
from zeroskip.run.kernels import ALL

AVX2 = frozenset({"avx2", "fma", "f16c"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16"}
AMX = {"amx-tile", "amx-bf16", "amx-int8"}
ZEN5 = Machine("AMD EPYC 9755", "x86_64", AVX512 | {"avxvnni"}, 128, 64)
SAPPHIRE_RAPIDS = Machine("Xeon 8480", "x86_64", AVX512 | AMX | {"avx512fp16"}, 56, 64, 2 << 20)
LAPTOP = Machine("Core i5", "x86_64", AVX2, 4, 32, 256 << 10)
GRAVITON = Machine("Neoverse V1", "aarch64", frozenset({"neon", "fullfp16", "bf16"}), 64, 16)
OLD = Machine("Core 2", "x86_64", frozenset({"sse2"}), 2, 16)
MACHINES = (ZEN5, SAPPHIRE_RAPIDS, LAPTOP, GRAVITON, OLD)

HAS = {
    ZEN5.name: {"AVX2", "AVX-512", "VNNI", "bf16"},
    SAPPHIRE_RAPIDS.name: {"AVX2", "AVX-512", "VNNI", "bf16", "FP16", "AMX"},
    LAPTOP.name: {"AVX2"},
    GRAVITON.name: {"NEON", "bf16", "FP16"},
    OLD.name: set(),
}


def support(machine: Machine, words: str) -> Support:
    return examine(machine).precisions[words]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_what_a_computer_has_is_said_for_each_kind_of_instruction(machine: Machine) -> None:
    assert {name for name, present in examine(machine).instructions.items() if present} == HAS[machine.name]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_each_kernel_belongs_to_one_precision_and_is_ready_or_refused_for_a_reason_of_the_computer(
    machine: Machine,
) -> None:
    supports = examine(machine).precisions.values()
    named = [name for one in supports for name in (*one.kernels, *one.refused)]
    assert sorted(named) == sorted(kernel.name for kernel in ALL)
    reasons = {why for one in supports for why in one.refused.values()}
    assert not [why for why in reasons if "asked for" in why or "not conv2d" in why or "example" in why]


def test_a_computer_with_everything_runs_every_kernel() -> None:
    assert not any(one.refused for one in examine(SAPPHIRE_RAPIDS).precisions.values())


def test_amx_multiplies_bf16_where_there_is_one() -> None:
    arithmetic = [
        support(machine, 'precision="bf16"').arithmetic for machine in (SAPPHIRE_RAPIDS, ZEN5, LAPTOP)
    ]
    assert arithmetic == [
        "bf16 products by PyTorch, which has AMX instructions for them",
        "bf16 products by PyTorch, which has bf16 instructions for them",
        "bf16 products by PyTorch, which has no instructions for them",
    ]


def test_fp16_is_computed_in_vectors_or_converted_or_refused() -> None:
    words = 'precision="fp16"'
    assert support(SAPPHIRE_RAPIDS, words).arithmetic == "fp16, 32 numbers a vector"
    assert support(GRAVITON, words).arithmetic == "fp16, 8 numbers a vector"
    assert support(GRAVITON, words).kernels == ("streamed_fp16", "blocks_fp16")
    assert "which is slow" in support(ZEN5, words).arithmetic
    assert support(ZEN5, words).kernels == ("streamed_fp16", "blocks_fp16")
    assert "AVX512-FP16" in support(ZEN5, words).refused["baked_fp16"]
    assert support(OLD, words).kernels == ()
    assert support(OLD, words).arithmetic == "none: no kernel of ours can read fp16 here"


def test_without_avx512_what_needs_it_is_named_with_the_reason() -> None:
    fp32, int8 = support(LAPTOP, 'precision="fp32"'), support(LAPTOP, 'weights="int8"')
    assert set(fp32.refused) == {"baked", "windows_fp32", "balanced_fp32", "columns_sparse"}
    assert {"dense", "sell", "spmm", "gaps_fp32", "streamed", "gather", "scatter"} <= set(fp32.kernels)
    assert fp32.arithmetic == "fp32, 8 numbers a vector"
    assert int8.kernels == ("gaps_int8", "columns_int8", "spmv_int8")
    assert int8.arithmetic == "fp32, 8 numbers a vector; weights stored as int8 are converted"


def test_the_table_shows_instructions_precisions_and_refusals() -> None:
    rows = [(what, " ".join(words.split())) for what, words in show(examine(ZEN5)).rows]
    assert ("AMX", "no") in rows
    assert ("VNNI", 'yes: products of precision="int8"') in rows
    assert any(what == 'precision="bf16"' and "dense_bf16" in words for what, words in rows)
    assert ("", "not baked_fp16: its fp16 code is for AVX512-FP16, which this machine lacks") in rows


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", "/nowhere")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.torch.backends.mkldnn, "is_available", lambda: False)
    examination = examine(LAPTOP)
    assert "apt-get install g++" in examination.helpers["C++ compiler"]
    assert "Install PyTorch" in examination.helpers["oneDNN in PyTorch"]
    assert "Check --data DIR" in examination.data_sets["mnist"]
    assert examination.data_sets["digits"] == "part of scikit-learn"


def test_json_holds_the_same() -> None:
    stored = json.loads(json.dumps(examine(GRAVITON).to_json()))
    assert stored["machine"] == {
        "name": "Neoverse V1",
        "arch": "aarch64",
        "features": ["bf16", "fullfp16", "neon"],
        "cores": 64,
        "vector_bytes": 16,
        "cache_bytes": 1 << 20,
    }
    assert stored["instructions"]["NEON"] is True
    assert stored["precisions"]['precision="fp16"']["kernels"] == ["streamed_fp16", "blocks_fp16"]
    assert set(stored) == {"machine", "instructions", "precisions", "versions", "data_sets", "helpers"}
