"""A saved program answers as the one that was saved, to the last bit; a damaged file is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import let_win
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from zeroskip import models, run
from zeroskip.emit import detect
from zeroskip.errors import EngineError, FileError
from zeroskip.graph import capture, graph_json
from zeroskip.run import compiler, measurement, program_bytes
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import BAKED, BAKED_FP16, BLOCKS, STREAMED, STREAMED_FP16
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import BY_NAME
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.output_difference import leaves
from zeroskip.run.program import Program
from zeroskip.run.runner import runner
from zeroskip.run.select import network_selection


class Between(nn.Module):
    """Convolutions with operations of torch in between, and several results."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(16, 8, 3, padding="same", bias=False),
        )
        self.last = nn.Linear(8, 5)
        self.register_buffer("scale", torch.arange(8.0).view(8, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = functional.relu(self.first(x))
        y = functional.silu(self.second(torch.cat([y, y], 1)) * self.scale + 1.5)
        parts = y.view(x.shape[0], 8, 144).softmax(-1).chunk(2, 1)
        return {"answer": self.last(y.mean((2, 3))), "parts": (parts[1], [parts[0]])}


def separable() -> nn.Module:
    """Depthwise convolutions and pointwise ones with batch norms, as MobileNet has them, in three kinds of blocks."""

    def norm(conv: nn.Conv2d) -> list[nn.Module]:
        return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]

    def block(into: int, out: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(into, into, 3, stride, 1, groups=into, bias=False)
        return norm(depthwise) + norm(nn.Conv2d(into, out, 1, bias=False))

    first = norm(nn.Conv2d(3, 16, 3, 2, 1, bias=False))
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)]
    return nn.Sequential(*first, *block(16, 32, 1), *block(32, 48, 2), *block(48, 48, 1), *ending)


class Words(nn.Module):
    """A network whose input are numbers of words, captured for one batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(10, 8), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.table(x).view(2, 32))


def pruned(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in [one for one in model.modules() if isinstance(one, nn.Linear | nn.Conv2d)]:
        with torch.no_grad():
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.2)
    return model.eval()


def compiled(model: Callable[[], nn.Module], x: Tensor, **asked: Any) -> tuple[Program, nn.Module]:
    network = pruned(model())
    return run.compile(network, x, **asked), network


def kept(program: Program, path: Path) -> Program:
    run.save(program, path)
    return run.load(path)


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, Any]]] = {
    "LeNet-300-100, int8": (models.LeNet300100, torch.randn(2, 784), {"weights": "int8"}),
    "LeNet-5": (models.LeNet5, torch.randn(1, 1, 28, 28), {}),
    "LeNet-5, 2 threads": (models.LeNet5, torch.randn(8, 1, 28, 28), {"threads": 2}),
    "ResNet-20, strict": (models.resnet20, torch.randn(1, 3, 16, 16), {"strict": True}),
    "depthwise and pointwise": (separable, torch.randn(1, 3, 32, 32), {}),
    "operations in between": (Between, torch.randn(2, 3, 12, 12), {}),
    "words, batches of 2": (Words, torch.randint(0, 10, (2, 4)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_program_answers_the_same_to_the_last_bit(case: str, tmp_path: Path) -> None:
    model, x, asked = CASES[case]
    program, _ = compiled(model, x, **asked)
    again = kept(program, tmp_path / "program")
    for given_x in (x, x[:1], torch.cat([x, x, x[:1]]), x[:0]):
        ours, theirs = again(given_x), program(given_x)
        assert type(ours) is type(theirs)
        assert all(torch.equal(a, b) for a, b in zip(leaves(ours), leaves(theirs), strict=True))
    assert str(again) == str(program)
    run.save(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "program").read_bytes()


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 8, 3), nn.Linear(4, 8)], ids=["sequence", "tokens"])
def test_what_is_a_convolution_on_tiles_only_keeps_its_kernel(
    layer: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_win(monkeypatch, alone={"dense"}, together={"tiles"})
    with torch.no_grad():
        layer.weight[:, 1] = 0  # blocks of 8 outputs
    x = torch.randn(2, 4, 11) if isinstance(layer, nn.Conv1d) else torch.randn(2, 11, 4)
    program = run.compile(layer.eval(), x, kernels=[BLOCKS])
    again = kept(program, tmp_path / "program")
    assert [kernel.name for kernel in again.origin.tiles.values()] == ["blocks"]
    assert torch.equal(again(x), program(x))


def test_loading_captures_and_times_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = compiled(models.LeNet5, torch.randn(1, 1, 28, 28))
    run.save(program, tmp_path / "program")
    for name in ("captured_graph", "run_on", "time_kernels", "select_network"):
        monkeypatch.setattr(compiler, name, lambda *_, **__: pytest.fail("it compiled again"))
    assert run.load(tmp_path / "program").seconds == program.seconds


def test_a_loaded_program_owns_its_weights(tmp_path: Path) -> None:
    x = torch.randn(1, 784)
    program, network = compiled(models.LeNet300100, x)
    again, before = kept(program, tmp_path / "program"), program(x)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    (tmp_path / "program").write_bytes(b"")
    assert torch.equal(again(x), before)
    with pytest.raises(EngineError, match="the network was changed after it was compiled"):
        run.save(program, tmp_path / "program")


def test_the_file_holds_the_weights_and_text_and_nothing_else(tmp_path: Path) -> None:
    program, network = compiled(models.LeNet300100, torch.randn(1, 784))
    path = run.save(program, tmp_path / "program")
    tensors = safetensors.torch.load(path.read_bytes())
    assert sum(one.numel() for one in tensors.values()) == sum(one.numel() for one in network.parameters())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()[program_bytes.KEY])["version"] == 2


class Returning(nn.Module):
    """A network that returns what `wrap` makes of its result."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


def test_an_operation_that_is_not_listed_is_refused_by_name(tmp_path: Path) -> None:
    program = run.compile(Returning(torch.special.i0), torch.randn(1, 4))
    with pytest.raises(EngineError, match=r'"aten.special_i0.default" is not among those'):
        run.save(program, tmp_path / "program")


def test_a_kernel_of_ones_own_is_refused_by_name(tmp_path: Path) -> None:
    mine = replace(sell.KERNEL, name="mine")
    program = run.compile(pruned(nn.Sequential(nn.Linear(64, 64))), torch.randn(1, 64), kernels=[mine])
    program.origin = replace(program.origin, kernels=dict.fromkeys(program.origin.kernels, mine))
    with pytest.raises(EngineError, match='"mine" is not zeroskip\'s own'):
        run.save(program, tmp_path / "program")


@pytest.mark.parametrize("op", ["aten.from_file.default", "aten.add.out", "aten.transpose_.default", "eval",
                                "aten.relu", "aten.relu.nothing", "prims.add.default", "getattr"])  # fmt: skip
def test_operations_that_touch_more_than_their_inputs_cannot_be_named(op: str) -> None:
    assert graph_json._target(op) is None


OTHERWISE: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.mT, lambda x: x.swapdims(1, 2), lambda x: x.moveaxis(1, 2), lambda x: x.ravel().view_as(x),
    lambda x: x.tensor_split(3, 1)[0], lambda x: torch.hsplit(x, 2)[0], lambda x: torch.dstack([x, x]),
    lambda x: torch.native_channel_shuffle(x, 2), lambda x: x.absolute(), lambda x: x.true_divide(2),
    lambda x: torch.special.expit(x), lambda x: functional.rrelu(x), lambda x: torch.fft.fft(x).abs(),
    lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], lambda x: torch.logaddexp(x, x),
    lambda x: functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
]  # fmt: skip


def test_less_usual_ways_to_write_an_operation_may_be_stored_too() -> None:
    x = torch.randn(2, 4, 6, 4)
    graph = capture(Returning(lambda y: [function(y) for function in OTHERWISE]).eval(), x)
    again = graph_json.from_json(*graph_json.to_json(graph))
    with torch.no_grad():
        assert all(map(torch.equal, runner(again, {})(x), runner(graph, {})(x)))


def test_all_listed_operations_exist() -> None:
    names = {*graph_json.NUMBERWISE.split(), *graph_json.OTHERS.split()}
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []


def test_without_avx512_what_was_baked_is_streamed_and_nearly_the_same(tmp_path: Path) -> None:
    machine = detect()
    if machine.vector_bytes < 64:
        pytest.skip("nothing is baked on this machine")
    x = torch.randn(1, 1, 28, 28)
    program, _ = compiled(models.LeNet5, x)
    graph = program.origin.graph
    tiles = {one.name: BAKED for one in operations_of(graph) if one.layer is not None}
    kernels = {node.name: pytorch.KERNEL for node in graph.nodes if node.layer is not None}
    program.origin = replace(program.origin, tiles=tiles, kernels=kernels)
    run.save(program, tmp_path / "program")
    features = frozenset(each for each in machine.features if not each.startswith("avx512"))
    small = replace(machine, features=features, vector_bytes=32)
    again = run.load(tmp_path / "program", machine=small)
    assert set(again.origin.tiles.values()) == {STREAMED}
    torch.testing.assert_close(again(x), program(x))
    assert "for want of" in str(again)


@pytest.fixture
def in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """run.compile finds tiles in fp16 fastest."""
    if "f16c" not in detect().features:
        pytest.skip("this processor cannot read fp16")
    monkeypatch.setattr(
        network_selection, "raced", lambda calls, *_: {one: 1.0 - (one == "tiles in fp16") for one in calls}
    )


@pytest.mark.usefixtures("in_fp16")
def test_a_program_in_fp16_is_loaded_as_one_to_the_last_bit(tmp_path: Path) -> None:
    x = torch.randn(3, 1, 28, 28)
    program, model = compiled(models.LeNet5, x, precision="fp16", kernels=[STREAMED_FP16])
    assert set(program.origin.tiles.values()) == {STREAMED_FP16}
    again = kept(program, tmp_path / "program")
    assert torch.equal(again(x), program(x))
    assert again.error == program.error > 0
    assert not torch.equal(again(x), model(x))
    assert str(again) == str(program)


@pytest.mark.usefixtures("in_fp16")
def test_a_machine_that_cannot_read_fp16_computes_all_of_it_in_fp32(tmp_path: Path) -> None:
    x = torch.randn(1, 2, 16, 16)
    network = lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    program, model = compiled(network, x, precision="fp16", kernels=[STREAMED_FP16])
    assert {kernel.name for kernel in program.origin.tiles.values()} == {"streamed_fp16", "depthwise_fp16"}
    run.save(program, tmp_path / "program")
    without = replace(detect(), features=detect().features - {"f16c"})
    again = run.load(tmp_path / "program", machine=without)
    assert {kernel.name for kernel in again.origin.tiles.values()} == {"streamed", "depthwise"}
    assert again.error == 0 == again.choices[0].error
    assert "for want of depthwise_fp16: the processor cannot read fp16" in " ".join(str(again).split())
    torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("in_fp16")
def test_without_avx512_fp16_what_was_baked_for_it_takes_its_neighbours_to_fp32(tmp_path: Path) -> None:
    x = torch.randn(1, 1, 28, 28)
    program, model = compiled(models.LeNet5, x, precision="fp16", kernels=[STREAMED_FP16])
    first, second = sorted(program.origin.tiles)
    program.origin = replace(program.origin, tiles={first: BAKED_FP16, second: STREAMED_FP16})
    run.save(program, tmp_path / "program")
    without = replace(detect(), features=detect().features - {"avx512fp16"})
    again = run.load(tmp_path / "program", machine=without)
    assert again.origin.tiles == {first: STREAMED, second: STREAMED}
    torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-6)


def test_a_program_of_a_version_with_fewer_operations_on_tiles_keeps_its_kernels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.ConvTranspose2d(8, 8, 2), nn.Conv2d(8, 4, 3))
    x = torch.randn(2, 3, 9, 9)
    program = run.compile(pruned(network), x)
    graph = program.origin.graph
    layers = [node.name for node in graph.nodes if node.layer is not None]
    program.origin = replace(program.origin, tiles={}, kernels=dict.fromkeys(layers, pytorch.KERNEL))
    content, tensors = program_bytes.opened(run.save(program, tmp_path / "program").read_bytes())
    # SiLU was no operation, so that the convolution before it had its own name; transposed ones were none.
    content["plan"]["tiles"] = dict.fromkeys([layers[0], layers[2]], "streamed")
    content["plan"]["kernels"] = {layers[1]: "dense"}
    content = {name: content[name] for name in ("network", "plan", "program", "sizes")}
    (tmp_path / "old").write_bytes(program_bytes.sealed(content, tensors))
    again = run.load(tmp_path / "old")
    assert {name: kernel.name for name, kernel in again.origin.kernels.items()} == {layers[1]: "dense"}
    assert {kernel.name for kernel in again.origin.tiles.values()} == {"streamed"}
    torch.testing.assert_close(again(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_kernel_that_cannot_run_here_is_named_with_its_reason(tmp_path: Path) -> None:
    program, _ = compiled(models.LeNet300100, torch.randn(1, 784))
    kernels = dict.fromkeys(program.origin.kernels, BY_NAME["windows_fp32"])
    program.origin = replace(program.origin, kernels=kernels)
    run.save(program, tmp_path / "program")
    small = replace(detect(), vector_bytes=16)
    with pytest.raises(
        EngineError, match='compiled for "windows_fp32", which needs the permutations of AVX-512'
    ):
        run.load(tmp_path / "program", machine=small)


def test_no_file_and_another_kind_of_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no file"):
        run.load(tmp_path / "absent")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(EngineError, match="holds no program that can run here: it is of version None"):
        run.load(tmp_path / "weights")


@cache
def example() -> bytes:
    """A file of version 1, which has no checksum, so that what it says must be looked at: a small network with tiles,
    layers of both kinds, a pool and torch in between."""
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=4),
        nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    program = run.compile(pruned(network), torch.randn(1, 2, 8, 8))
    header, tensors = graph_json.to_json(program.origin.graph)
    layers = [node.name for node in program.origin.graph.nodes if node.layer is not None]
    plan = {
        "kernels": dict.fromkeys(layers, "dense"),
        "tiles": dict.fromkeys(layers, "streamed") | {"conv2d_1": "depthwise"},
        "images": 1,
        "precision": {"arithmetic": "fp32", "weights": "fp32"},
    }
    text = {
        "version": 1,
        "network": header,
        "plan": plan,
        "program": measurement.to_json(program.measurement),
    }
    copies = {name: one.detach().clone().contiguous() for name, one in tensors.items()}
    return safetensors.torch.save(copies, {program_bytes.KEY: json.dumps(text)})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_never_end_in_anything_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(example())
    length = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, length))] = data.draw(
            st.sampled_from(b'0123456789-.,:"[]{}aelnrtu \x00\xff')
        )
    path = tmp_path_factory.getbasetemp() / "program"
    path.write_bytes(whole)
    with suppress(EngineError):  # a byte of a weight or of a name may well be another
        run.load(path)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 20))
def test_a_file_cut_off_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, where: int) -> None:
    path = tmp_path_factory.getbasetemp() / "program"
    path.write_bytes(example()[: where % len(example())])
    with pytest.raises(EngineError, match="holds no program"):
        run.load(path)


def changed(where: list[Any], value: Any) -> bytes:
    """The example with another value at a place of its header."""
    tensors = safetensors.torch.load(example())
    length = int.from_bytes(example()[:8], "little")
    header = json.loads(json.loads(example()[8 : 8 + length])["__metadata__"][program_bytes.KEY])
    place = header
    for key in where[:-1]:
        place = place[key]
    assert where[-1] in place or isinstance(place, list)
    place[where[-1]] = value
    return safetensors.torch.save(tensors, {program_bytes.KEY: json.dumps(header)})


LIES: dict[str, tuple[list[Any], Any]] = {
    "an input of another size": (["network", "inputs", 0, "shape"], [2, 9, 9]),
    "a giant input": (["network", "inputs", 0, "shape"], [2, 1 << 20, 1 << 20]),
    "an input of another type": (["network", "inputs", 0, "dtype"], "float64"),
    "a type that is a function": (["network", "inputs", 0, "dtype"], "load"),
    "a layer that makes more than it does": (["network", "nodes", 0, "shape"], [4, 80, 80]),
    "a layer with more outputs than weights": (["network", "nodes", 0, "shape"], [40, 8, 8]),
    "a pool that makes more than it does": (["network", "nodes", 2, "shape"], [4, 8, 8]),
    "a layer that is something else": (["network", "nodes", 0, "op"], "aten.relu.default"),
    "an operation that reads files": (["network", "nodes", 4, "op"], "aten.from_file.default"),
    "a value of the future": (["network", "nodes", 0, "inputs"], ["linear"]),
    "two values of one name": (["network", "nodes", 1, "name"], "conv2d"),
    "a negative padding": (["network", "nodes", 0, "layer", "padding"], [-1, -1]),
    "steps of 0": (["network", "nodes", 0, "layer", "stride"], [0, 0]),
    "a larger padding": (["network", "nodes", 0, "layer", "padding"], [9, 9]),
    "another number of groups": (["network", "nodes", 0, "layer", "groups"], 2),
    "a result that does not exist": (["network", "outputs"], ["nothing"]),
    "more results than outputs": (["network", "returns"], {"tuple": [0, 1]}),
    "an unknown kernel": (["plan", "kernels", "linear"], "fastest"),
    "a kernel of tiles for a linear layer": (["plan", "kernels", "linear"], "baked"),
    "a billion images at a time": (["plan", "images"], 10**9),
    "no threads": (["program", "threads"], 0),
    "seconds that are a list": (["program", "seconds"], []),
    "choices without dense": (["program", "choices", 0, "seconds"], {}),
    "tiles of two kinds of numbers": (["plan", "tiles", "conv2d"], "streamed_fp16"),
    "another version": (["version"], 3),
    "a version that has a checksum": (["version"], 2),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_contradicts_itself_is_refused(lie: str, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(changed(*LIES[lie]))
    with pytest.raises(EngineError, match="holds no program that can run here"):
        run.load(tmp_path / "program")


def test_the_example_of_these_lies_is_true(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(example())
    program = run.load(tmp_path / "program")
    assert program.scratch > 0
    assert program(torch.zeros(3, 2, 8, 8)).shape == (3, 3)
