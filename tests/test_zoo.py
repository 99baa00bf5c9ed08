"""The zoo's table and its page, without the packages that its networks come from."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo import counts, page, preparation, results, stand_ins
from zoo.network import Network
from zoo.networks import NETWORKS

ROOT = Path(__file__).parent.parent


def test_the_table_holds_enough_of_each_kind_of_network() -> None:
    kinds = [kind for network in NETWORKS for kind in network.kinds]
    several = [network for network in NETWORKS if not isinstance(preparation.example(network, 1, 32), Tensor)]
    assert len(NETWORKS) >= 34
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)
    assert len(several) >= 6
    assert kinds.count("recurrent") >= 3
    assert kinds.count("sound") >= 3
    assert kinds.count("decoder") >= 2
    assert any(network.batch_axis is None for network in NETWORKS if "graph" in network.kinds)


def test_networks_without_a_second_size_say_why() -> None:
    assert all(bool(network.fixed) == (network.sizes[0] == network.sizes[1]) for network in NETWORKS)


SMALL = Network(
    "small", "none", lambda: nn.Sequential(nn.Embedding(7, 10), nn.Linear(10, 20), nn.BatchNorm1d(20)),
    lambda batch, size, generator: torch.randint(0, 7, (batch,), generator=generator), (1, 1),
)  # fmt: skip


def test_a_share_of_the_multiplied_weights_is_zero_and_the_same_each_time() -> None:
    model, again = preparation.prepared(SMALL), preparation.prepared(SMALL)
    assert model[1].weight.count_nonzero() == 20
    assert model[0].weight.count_nonzero() == 70
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_counts_are_those_by_hand() -> None:
    lstm = nn.LSTM(8, 32, batch_first=True)
    with torch.no_grad():
        lstm.weight_ih_l0[64:] = 0
    count = counts.count(lstm, torch.zeros(1, 5, 8))
    assert vars(count) == {
        "weights": 128 * 8 + 128 * 32,
        "kept": 64 * 8 + 128 * 32,
        "bytes": 4 * (128 * 8 + 128 * 32 + 2 * 128),
        "macs": 5 * (128 * 8 + 128 * 32),
    }


def record(**differs: object) -> dict[str, object]:
    costs = {"counted": {"weights": 2_000_000, "kept": 200_000, "macs": 9}, "ours": {"macs": 9}}
    shares = [{"batch": 1, "size": 8, "share": 2e-7}, {"batch": 2, "size": 8, "share": 3e-7}]
    check = {"compile_seconds": 3.2, "peak_bytes": 2**30, "differences": shares, "costs": costs}
    return {**check, "date": "2026-01-31", "versions": {"torch": "2.13.0"}, **differs}


STORED = {
    "machine": "an example, 2 cores",
    "rounds": 7,
    "networks": {
        "ResNet-18": {
            "check": record(),
            "time": {
                "seconds": {"zeroskip": 0.002, "eager": 0.008, "torch.compile": 0.006},
                "differences": {"zeroskip": 0.0, "eager": 0.0, "torch.compile": 0.0},
                "missing": {"ONNX Runtime": "no exporter"},
                "why": {
                    "timed": 1.0,
                    "won": 0.5,
                    "pieces": 3,
                    "tiles": 5,
                    "between": 0.25,
                    "cuts": [["silu", 2]],
                },
                "date": "2026-02-01",
            },
        },
        "GPT-2": {"check": {"refused": "give use_cache=False", "date": "2026-01-31"}},
    },
}


def test_a_network_is_a_line_of_the_page_with_its_losses_and_reasons() -> None:
    lines = page.text(STORED).splitlines()
    (line,) = (line for line in lines if line.startswith("| ResNet-18"))
    assert line == (
        "| ResNet-18 | timm | 2.00 M | 90.0% | 3 s, 1.0 GB | 3e-07 | equal | 100%, 50% | 3 (5); 25%: silu 2 "
        "| 2 | 8 | - | 6 | [1] | 3.00 |"
    )
    assert any(line.startswith("| GPT-2 | transformers | - | - | refused [2] |") for line in lines)
    assert "[1] no exporter  " in lines
    assert "[2] give use_cache=False  " in lines
    assert "Totals: of 2 networks 1 compile, and 1 of them equal PyTorch eager" in page.text(STORED)


def test_what_is_not_equal_is_said() -> None:
    wrong = {"costs": {"counted": {"weights": 9, "kept": 9, "macs": 9}, "ours": {"macs": 8}}}
    text = page.text({**STORED, "networks": {"GPT-2": {"check": record(**wrong)}}})
    assert "macs 8 beside 9" in text
    assert "Counts are equal for 0" in text


def test_a_network_beyond_the_limit_is_named_with_a_digit_more() -> None:
    shares = [{"batch": 1, "size": 8, "share": 1.3e-5}, {"batch": 2, "size": 8, "share": 2e-7}]
    text = page.text({**STORED, "networks": {"GPT-2": {"check": record(differences=shares)}}})
    assert "| 1.3e-05 |" in text
    assert "0 of them equal PyTorch eager within 1e-05 at every size and batch (not GPT-2);" in text


def test_the_page_in_docs_is_that_of_the_stored_results() -> None:
    (path,) = (ROOT / "benchmarks" / "results" / "zoo").glob("*.json")
    assert (ROOT / "docs" / "NETWORKS.md").read_text() == page.text(json.loads(path.read_text()))


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "machine.json"
    assert results.load(path) == {"networks": {}}
    results.store(path, STORED)
    assert results.load(path) == STORED
    assert [one.name for one in path.parent.iterdir()] == ["machine.json"]


def test_a_package_that_is_not_there_needs_no_stand_in() -> None:
    stand_ins.declare()
    assert stand_ins._loads("no_such_package", "_C")
