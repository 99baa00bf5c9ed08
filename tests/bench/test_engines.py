"""Who races in which case, where its interpreter is, and what described machines cannot do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zeroskip.bench import (
    ACTIVATIONS,
    CASES,
    ENTRANTS,
    QUICK,
    QUICK_ENTRANTS,
    Case,
    Entrant,
    Environments,
    entrants,
)
from zeroskip.bench.engines import refusal
from zeroskip.concepts import Machine

BASE = frozenset({"avx2", "fma", "f16c"})
MACHINES = {
    "plain": Machine("plain", "x86_64", frozenset(), 1, 16),
    "avx2": Machine("avx2", "x86_64", BASE, 4, 32),
    "avx512": Machine("avx512", "x86_64", BASE | {"avx512f", "avx512bw"}, 4, 64),
    "bf16": Machine("bf16", "x86_64", BASE | {"avx512f", "avx512bf16"}, 4, 64),
    "amx": Machine("amx", "x86_64", BASE | {"avx512f", "amx-bf16"}, 4, 64),
    "fp16": Machine("fp16", "x86_64", BASE | {"avx512f", "avx512fp16"}, 4, 64),
}
RECORDED = Case("ResNet-20/layer1.0.conv1", 0.0, input_sparsity=0.5, clock="cpu")


class Everywhere(Environments):
    """Interpreters that are all there."""

    def python(self, word: str) -> Path:
        return Path(sys.executable)


@pytest.fixture(autouse=True)
def a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


def refused(machine: str, case: Case, folder: Path) -> set[str]:
    """Words of the engines that a machine refuses in a case."""
    return {
        entrant.word
        for entrant in entrants(case)
        if refusal(entrant, case, MACHINES[machine], Everywhere(folder)) is not None
    }


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("plain", {"openvino-bf16", "zeroskip-fp16"}),
        ("avx2", {"openvino-bf16", "zeroskip-fp16"}),
        ("avx512", {"openvino-bf16", "zeroskip-fp16"}),
        ("bf16", {"zeroskip-fp16"}),
        ("amx", {"zeroskip-fp16"}),
        ("fp16", {"openvino-bf16"}),
    ],
)
def test_what_a_described_machine_refuses_follows_from_its_features(
    machine: str, words: set[str], tmp_path: Path
) -> None:
    assert refused(machine, CASES[0], tmp_path) == words


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_case_on_more_threads_than_cores_refuses_everybody(machine: str, tmp_path: Path) -> None:
    case = replace(CASES[0], threads=MACHINES[machine].cores + 1)
    assert refused(machine, case, tmp_path) == {entrant.word for entrant in entrants(case)}


@pytest.mark.parametrize("machine", ["plain", "avx512", "fp16"])
def test_torch_eager_and_our_fp32_are_refused_nowhere(machine: str, tmp_path: Path) -> None:
    for case in (*QUICK, *ACTIVATIONS, RECORDED):
        words = {entrant.word for entrant in entrants(case)} - refused(machine, case, tmp_path)
        assert "torch-fp32" in words
        assert any(word.startswith("zeroskip-") for word in words)


def test_an_environment_that_was_not_made_is_named_with_what_makes_it(tmp_path: Path) -> None:
    entrant = next(entrant for entrant in ENTRANTS if entrant.word == "deepsparse")
    reason = refusal(entrant, CASES[0], MACHINES["fp16"], Environments(tmp_path))
    assert reason is not None
    assert str(tmp_path / "deepsparse") in reason
    assert "make bench" in reason


@pytest.mark.parametrize("case", [*CASES, *ACTIVATIONS, RECORDED], ids=lambda case: case.key)
def test_in_every_case_labels_are_unique_and_fp32_has_a_peer_and_one_of_ours(case: Case) -> None:
    labels = [entrant.label for entrant in entrants(case)]
    assert len(set(labels)) == len(labels)
    assert "torch eager fp32" in labels
    assert ("zeroskip int8" if case.in_int8 else "zeroskip fp32") in labels


@pytest.mark.parametrize("case", ACTIVATIONS, ids=lambda case: case.key)
def test_where_inputs_are_sparse_the_kernel_that_skips_races_and_the_compiled_network_does_not(
    case: Case,
) -> None:
    words = {entrant.word for entrant in entrants(case)}
    assert "zeroskip-skipping" in words
    assert not words & {"zeroskip-fp32", "zeroskip-tiles", "compile-fp32", "deepsparse"}
    assert ("zeroskip-skipping-fp16" in words) == (not case.cold)


def test_a_layer_of_a_trained_network_is_raced_by_what_is_fastest_there() -> None:
    words = {entrant.word for entrant in entrants(RECORDED)}
    assert "zeroskip-chosen" in words
    assert not {word for word in words if word.endswith("bf16")}


def test_networks_of_maps_are_raced_in_both_layouts_and_a_single_layer_or_a_sequence_in_one() -> None:
    both = {
        case.network
        for case in CASES
        if "torch-contiguous-fp32" in {entrant.word for entrant in entrants(case)}
    }
    assert both == {
        "resnet50", "vgg16", "alexnet", "mobilenet_v1", "mobilenet_v3_large", "efficientnet_b0", "dcgan_generator",
    }  # fmt: skip


def test_an_lstm_is_raced_as_fully_connected_layers_are_with_8_bits_at_run_time_and_without_fp16() -> None:
    def words(network: str) -> set[str]:
        return {entrant.word for entrant in entrants(Case(network, 0.9))}

    assert words("lstm") == words("ffn_down")
    assert {"torch-int8", "onnxruntime-int8"} <= words("lstm")
    assert "zeroskip-fp16" not in words("lstm")


def test_in_eight_bits_a_network_is_raced_in_fp32_too_and_a_layer_by_what_computes_in_int8() -> None:
    def words(network: str) -> set[str]:
        return {one.word for one in entrants(Case(network, 0.9, pattern="1x4", precision="int8"))}

    both = {"torch-fp32", "openvino-int8", "onnxruntime-static", "zeroskip-quantised"}
    assert words("3x3_64_64_56") == both | {"zeroskip-tiles-int8"}
    fp32 = {"onnxruntime-fp32", "openvino-f32", "deepsparse", "zeroskip-free", "zeroskip-free-fp16"}
    assert words("resnet50") == both | fp32 | {"torch-fx-int8", "deepsparse-int8"}


def test_a_transformer_is_raced_in_fp32_and_bf16_by_one_case_and_in_int8_by_another() -> None:
    def words(**options: str) -> set[str]:
        return {one.word for one in entrants(Case("minilm", 0.9, tokens=128, **options))}

    dense = {"torch-fp32", "torch-bf16", "onnxruntime-fp32", "openvino-f32", "openvino-bf16"}
    assert words() == dense | {"deepsparse", "zeroskip-fp32", "zeroskip-fp16"}
    int8 = {"torch-fp32", "openvino-int8", "onnxruntime-int8", "zeroskip-quantised"}
    assert words(pattern="1x4", precision="int8") == int8


def test_a_quick_race_has_no_engine_that_needs_a_compiler() -> None:
    assert {engine.name for engine in ENTRANTS} - {engine.name for engine in QUICK_ENTRANTS} == {
        "torch.compile"
    }


def test_scatter_races_where_weights_come_from_memory_alone() -> None:
    racing = {
        case.network for case in ACTIVATIONS if "zeroskip-scatter" in {one.word for one in entrants(case)}
    }
    assert racing == {"AlexNetI Conv3", "AlexNetI Conv4", "AlexNetI Conv5", "Inception5b.3"}
    assert all(
        case.cold for case in ACTIVATIONS if "zeroskip-scatter" in {one.word for one in entrants(case)}
    )


def test_8_bit_weights_are_ours_only_in_cases_that_ask_for_them() -> None:
    for case in CASES:
        assert ("zeroskip-int8" in {one.word for one in entrants(case)}) == (case.weights == "int8")


def test_an_engine_of_one_s_own_enters_what_it_says() -> None:
    mine = Entrant("mine", "fp32", "mine", 1e-3, lambda case: case.batch > 1)
    assert [case.batch for case in CASES if entrants(case, [mine])] == [16] * 7


def test_a_worker_is_started_by_its_interpreter_with_its_word_and_threads(tmp_path: Path) -> None:
    python, file, word, threads = Environments(tmp_path).command("torch-fp32", 3)
    assert (python, word, threads) == (sys.executable, "torch-fp32", "3")
    assert Path(file).name == "worker.py"
    assert Path(file).is_file()


def test_tolerances_follow_the_bits() -> None:
    limits = {precision: set() for precision in ("fp32", "bf16", "int8")}
    for entrant in ENTRANTS:
        if entrant.precision in limits:
            limits[entrant.precision].add(entrant.tolerance)
    assert limits == {"fp32": {1e-3}, "bf16": {0.03}, "int8": {0.1}}
