"""The figures that need training, on a plan so short that nothing is learned: what is found, once, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zeroskip import papers, prune, run_folder, task_api
from zeroskip.concepts import silent
from zeroskip.papers import Setup
from zeroskip.papers.common import frontier_rows, trainings
from zeroskip.papers.common.training_plans import PLANS, FrontierPlan, gradual
from zeroskip.papers.deep_compression import rows as deep_compression
from zeroskip.papers.deep_compression import train as trained_dc
from zeroskip.papers.han2015 import rows as han2015
from zeroskip.papers.han2015 import train as trained_han

LONG = PLANS["digits"]
SHORT = replace(
    LONG,
    task=replace(LONG.task, epochs=3, batch_size=128),
    frontiers={
        "frontier": FrontierPlan({8: 5}, {"epochs": 3}),
        "frontier_shifts": FrontierPlan({16: 3}, {"epochs": 3}, {"shift": 1}),
    },
    rounds=1,
    curve=(1 / 2, 1 / 4),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "digits"


@pytest.fixture(scope="module")
def han(out: Path) -> Any:
    return trained_han.of_plan(SHORT, out, Setup(out, 2))


@pytest.fixture(scope="module")
def dc(out: Path, han: dict[str, Any]) -> Any:
    return trained_dc.of_plan(SHORT, out, Setup(out, 2))


def test_the_published_method_keeps_1_weight_in_6_by_quality_thresholds(
    out: Path, han: dict[str, Any]
) -> None:
    seed = trainings.seeds(SHORT, out, 1, silent)[0]
    kept = {
        name: int((weight != 0).sum()) for name, weight in prune.weights(trained_han.iterative(seed)).items()
    }
    assert sum(kept.values()) == pytest.approx(50_200 / 6, rel=0.001)
    assert han["weights_kept"] == pytest.approx(50_200 / 6, rel=0.001)
    shares = {name: found["kept"] for name, found in han["layers"].items()}
    assert shares["fc3"] > shares["fc1"], "the layer that minds most keeps most"


def test_totals_are_weighted_by_weights_flop_and_activations(han: dict[str, Any]) -> None:
    layers, sizes = han["layers"], {"fc1": 19_200, "fc2": 30_000, "fc3": 1_000}
    wanted = sum(layers[name]["kept"] * size for name, size in sizes.items()) / 50_200
    assert han["total"]["kept"] == pytest.approx(wanted)
    outputs = {"fc1": 300, "fc2": 100, "fc3": 10}
    wanted = sum(layers[name]["output"] * size for name, size in outputs.items()) / 410
    assert han["total"]["output"] == pytest.approx(wanted)
    for before, after in (("fc1", "fc2"), ("fc2", "fc3")):
        assert layers[after]["work"] == pytest.approx(
            layers[after]["kept"] * layers[before]["output"], rel=0.05
        )


def test_five_curves_have_a_point_for_each_share_kept(han: dict[str, Any]) -> None:
    assert set(han["figure5"]) == {"L1", "L2", "L1 retrained", "L2 retrained", "L2 iterative"}
    assert all([kept for kept, _ in curve] == [0.5, 0.25] for curve in han["figure5"].values())


def test_curves_come_with_the_errors_of_the_very_networks_they_start_from(
    out: Path, han: dict[str, Any], dc: dict[str, Any]
) -> None:
    seed = trainings.seeds(SHORT, out, 1, silent)[0]
    for name in ("L1", "L2"):
        model = task_api.model(seed.task, run_folder.load_tensors(seed.folder / f"dense-{name}.safetensors"))
        assert han["figure5_dense"][name] == task_api.evaluate(seed.task, model, "test")
    assert dc["figures_dense"] == task_api.evaluate(seed.task, trainings.dense(seed), "test")


def test_the_survivors_of_figure_7_are_as_many_as_are_left_and_none_is_small(han: dict[str, Any]) -> None:
    survivors, after = han["figure7_survivors"], han["figure7"]["after"]
    assert sum(survivors["counts"]) == sum(after["counts"])
    middle = len(survivors["counts"]) // 2
    assert survivors["counts"][middle] == 0
    assert survivors["edges"] == han["figure7"]["before"]["edges"], "the largest weight is never removed"


def test_what_a_plan_makes_no_figure_of_is_not_trained_for_it(tmp_path: Path) -> None:
    plan = replace(SHORT, figures=("figure7",), frontiers={})
    found = trained_han.of_plan(plan, tmp_path / "digits", Setup(tmp_path, 1))
    assert "figure7_survivors" in found
    assert "figure5_dense" not in found
    assert not list(tmp_path.glob("**/dense-L*"))


def test_figures_have_one_entry_per_pixel_layer_and_bin(han: dict[str, Any]) -> None:
    assert len(han["figure4"]["kept_by_pixel"]) == 64
    assert set(han["figure6"]) == {"fc1", "fc2", "fc3"}
    assert sum(han["figure7"]["before"]["counts"]) == 19_200
    assert sum(han["figure7"]["after"]["counts"]) < 19_200 / 3
    assert han["dead_neurons"]["largest_difference"] < 1e-9
    assert set(han["dropout"]) == {"rule", "unchanged"}


def test_the_frontier_has_errors_of_every_seed_and_bytes_of_both_coders(han: dict[str, Any]) -> None:
    found = han["frontier"]
    assert found["stored_bytes_dense"] == 202_440
    point = found["points"][0]
    assert point["times_fewer"] == 8
    assert point["weights_kept"] == 6_275
    assert len(point["errors"]) == len(found["errors_continued"]) == 2
    assert point["error"] == pytest.approx(sum(point["errors"]) / 2)
    assert point["stored_bytes"]["arithmetic"] < point["stored_bytes"]["huffman"] < 6_275 * 2
    assert han["frontier_shifts"]["points"][0]["weights_kept"] == round(50_200 / 16)


def test_deep_compression_counts_bits_by_layer(dc: dict[str, Any]) -> None:
    for found in (*dc["layers"].values(), dc["total"]):
        assert found["bits_huffman"] <= found["bits"] + 0.01 <= 6.02  # the last byte is filled up
        assert found["stored_huffman"] <= found["stored"]
    whole = sum(
        found["stored_huffman"] * size
        for found, size in zip(dc["layers"].values(), (19_200, 30_000, 1_000), strict=True)
    )
    assert dc["total"]["stored_huffman"] == pytest.approx(whole / 50_200)
    assert dc["stored_bytes"] < dc["stored_bytes_dense"] / 10
    assert set(dc["figure8"]) == {"linear", "density", "random"}
    assert list(dc["figure8"]["linear"]) == [str(bits) for bits in range(2, 9)]
    sizes = [size for size, _ in dc["figure6"]["both"]]
    assert sizes == sorted(sizes, reverse=True)


def test_everything_found_fits_into_json_and_into_rows(han: dict[str, Any], dc: dict[str, Any]) -> None:
    assert json.loads(json.dumps(han)) == han
    for rows in (han2015.measured_rows("digits", han), deep_compression.measured_rows("digits", dc)):
        assert rows
        assert all(row.ours is not None for row in rows)
    beyond = frontier_rows.weights_rows("han2015", "lenet-300-100", frontier_rows.read_frontiers(han), "1.64")
    assert [row.row for row in beyond][:2] == ["dense, trained as long", "8x fewer weights"]
    assert {row.table for row in beyond} == {
        "Beyond the paper: LeNet-300-100, images with noise",
        "Beyond the paper: LeNet-300-100, images with noise and moved by up to a pixel",
    }
    packed = frontier_rows.bytes_rows(
        "deep-compression", "lenet-300-100", frontier_rows.read_frontiers(dc), "1.64", "40"
    )
    times = [row.ours for row in packed if row.column == "times smaller, Huffman codes"]
    assert times[0] == pytest.approx(202_440 / dc["frontier"]["points"][0]["stored_bytes"]["huffman"])


def test_found_once_it_is_read_and_not_trained_again(
    out: Path, han: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("zeroskip.task_api.train", never)
    assert trained_han.of_plan(SHORT, out, Setup(out, 2)) == han


def test_the_dense_network_beside_a_pruned_one_has_had_as_many_steps() -> None:
    for plan in PLANS.values():
        for frontier in plan.frontiers.values():
            (dense,), (pruned,) = gradual(frontier, 1).rounds, gradual(frontier, 40).rounds
            assert dense.train == pruned.train == frontier.retraining
            assert dense.sparsity == 0
            assert pruned.sparsity == 0.975


def test_each_way_trains_its_own_dense_network_on_its_own_images(out: Path, han: dict[str, Any]) -> None:
    assert (out.parent / "digits-shifts" / "seed-1" / "dense.safetensors").exists()
    assert han["frontier_shifts"]["errors_dense"] != han["frontier"]["errors_dense"]


def test_every_network_with_a_recipe_can_be_measured_for_both_papers() -> None:
    for paper in ("han2015", "deep-compression"):
        assert set(PLANS) | {"fc-layers"} == set(papers.named(paper).measure) | {"fc-layers"}
