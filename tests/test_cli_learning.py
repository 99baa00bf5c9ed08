"""Commands that learn: pruning while training, shared values, files of others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zeroskip import pack, run_folder, tasks
from zeroskip.tasks import built_in

DIGITS = "digits"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = tasks.digits.model()
    tasks.digits.train(model, epochs=5)
    return run_folder.save_tensors(tmp_path_factory.mktemp("dense") / "dense.safetensors", model.state_dict())


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training of digits takes 4 epochs: 136 steps."""
    short = replace(tasks.digits, epochs=4)
    monkeypatch.setattr(tasks, "digits", short)
    monkeypatch.setattr(built_in, "BUILT_IN", (short,))


@pytest.mark.usefixtures("brief")
def test_pruned_while_training_then_packed_with_16_values_a_layer(
    call: Call,
    dense: Path,
    tmp_path: Path,
) -> None:
    sparse, small = tmp_path / "sparse.safetensors", tmp_path / "small.zs"
    status, out, _ = call(
        "prune", DIGITS, "--weights", dense, "--sparsity", 0.9, "--while-training", "--out", sparse, "--json"
    )
    assert status == 0
    assert json.loads(out)["history"][-1]["weights_kept"] == 5_020
    status, out, _ = call(
        "pack", DIGITS, sparse, "--bits", 4, "--epochs", 1, "--coder", "arithmetic", "--out", small, "--json"
    )
    assert status == 0
    printed = json.loads(out)
    assert printed["stored_bytes"] == small.stat().st_size < 6_000
    assert 0 <= printed["error_shared"] <= 1
    unpacked = pack.decode(pack.load(small))
    before = run_folder.load_tensors(sparse)
    for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
        assert len(unpacked[name].unique()) <= 17
        assert torch.equal(unpacked[name] == 0, before[name] == 0)


@pytest.mark.usefixtures("brief")
def test_index_bits_are_obeyed_and_escapes_counted(call: Call, dense: Path, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in run_folder.load_tensors(dense).items()}
    for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
        state[name][torch.rand(state[name].shape, generator=torch.Generator().manual_seed(1)) < 0.97] = 0
    sparse = run_folder.save_tensors(tmp_path / "sparse.safetensors", state)
    words = (
        "pack",
        DIGITS,
        sparse,
        "--coder",
        "fixed",
        "--index-bits",
        3,
        "--out",
        tmp_path / "x.zs",
        "--json",
    )
    status, out, _ = call(*words)
    assert status == 0
    zeros = {name: int((state[name] == 0).sum()) for name in ("fc1.weight", "fc2.weight")}
    escapes = json.loads(out)["escapes"]
    assert all(zeros[name] / 14 < escapes[name] < zeros[name] / 7 for name in zeros)  # an escape steps over 7


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--while-training",), "--while-training goes with --sparsity"),
        (("--while-training", "--sparsity", "0.9", "--pattern", "2:4"), "fixes the sparsity at 0.5"),
        (("--while-training", "--sparsity", "0.9", "--rounds", "2"), "without --rounds"),
        (("--sparsity", "0.9", "--max-error-rise", "0.01"), "not both"),
        (("--sparsity", "0.9", "--cost-on", "eie"), "--cost-on goes with --max-error-rise"),
        (("--cost-on", "eie,scnn"), "eie,scnn names 2"),
        (("--cost-on", "eie", "--cost", "euros"), '--cost is cycles or joules, not "euros"'),
        (("--cost", "joules"), "--cost goes with --cost-on"),
    ],
)
def test_ways_that_do_not_go_together_are_refused_before_training(
    call: Call,
    tmp_path: Path,
    words: tuple[str, ...],
    sentence: str,
) -> None:
    status, _, err = call("prune", DIGITS, *words, "--out", tmp_path / "x.safetensors")
    assert status == 1
    assert sentence in err
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture
def their_file() -> tuple[Path, Path]:
    """The SqueezeNet of Deep Compression's authors, and its prototxt."""
    folder = Path(os.environ.get("ZEROSKIP_DATA", "/nowhere")) / "weights"
    paths = folder / "squeezenet_v10_deep_compression.net", folder / "squeezenet_v10_deploy.prototxt"
    if not all(path.is_file() for path in paths):
        pytest.skip("the authors' SqueezeNet is absent: set ZEROSKIP_DATA to the folder that holds weights/")
    return paths


@pytest.mark.real_data
def test_the_authors_file_of_676_kb_becomes_a_smaller_one_with_the_same_values(
    call: Call,
    their_file: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    plain, small = tmp_path / "plain.safetensors", tmp_path / "small.zs"
    net, prototxt = their_file
    assert call("unpack", net, "--prototxt", prototxt, "--out", plain)[0] == 0
    packed = pack.encode(run_folder.load_tensors(plain), coder="huffman")
    pack.save(packed, small)
    assert small.stat().st_size < 550_000 < net.stat().st_size
    decoded = pack.decode(pack.load(small))
    assert all(torch.equal(tensor, decoded[name]) for name, tensor in run_folder.load_tensors(plain).items())


def test_a_file_that_is_no_net_is_refused_in_one_sentence(call: Call, tmp_path: Path) -> None:
    net, prototxt = tmp_path / "x.net", tmp_path / "x.prototxt"
    net.write_bytes(b"nothing of the kind")
    prototxt.write_text('layer { name: "conv1" type: "Convolution" }')
    status, _, err = call("unpack", net, "--prototxt", prototxt, "--out", tmp_path / "x.safetensors")
    assert status == 1
    assert "Traceback" not in err
    assert err.count("\n") <= 3
