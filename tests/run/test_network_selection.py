"""Combining kernels into whole networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run.drawn import let_win, sparse_
from torch import Tensor, nn
from torch.nn import functional

from zeroskip import run
from zeroskip.run.kernels import BY_NAME
from zeroskip.run.select import network_selection
from zeroskip.run.select.network_selection import off_tiles


def test_layers_off_tiles_are_joined_or_else_the_fastest_and_dense_only_where_nothing_else_is() -> None:
    dense, fastest, joined = {"fc": "dense"}, {"fc": "sell"}, {"fc": "spmm"}
    assert off_tiles({"dense": dense, "fastest": fastest, "joined": joined, "pixelwise": dense}) == joined
    # "joined" is left out where it is the same as "fastest".
    assert off_tiles({"dense": dense, "fastest": fastest, "pixelwise": dense}) == fastest
    assert off_tiles({"dense": dense}) == dense


class Mixer(nn.Module):
    """A convolution to patches, linear layers on them, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 16, 2, 2), nn.Conv2d(16, 4, 3, padding=1)
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).permute(0, 2, 3, 1)
        y = y + self.narrow(functional.gelu(self.wide(self.norm(y))))
        return self.last(y.permute(0, 3, 1, 2))


def test_linear_layers_that_are_faster_alone_leave_the_tiles_and_the_rest_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    let_win(monkeypatch, alone={"spmm"}, together={"tiles without linear layers"})
    monkeypatch.setattr(network_selection, "_batch_seconds", lambda *_: dict.fromkeys(BY_NAME, 9.0))
    torch.manual_seed(0)
    model, x = sparse_(Mixer(), 0.8), torch.randn(2, 3, 8, 12)
    program = run.compile(model, x)
    assert [choice.kernel for choice in program.choices if choice.op == "linear"] == ["spmm", "spmm"]
    assert {kernel.layout for kernel in program.origin.tiles.values()} == {"tiles"}
    assert len(program.origin.tiles) == 2
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    again = run.load(run.save(program, tmp_path / "program"))
    assert again.origin.kernels == program.origin.kernels
    assert torch.equal(again(x), program(x))
    program.add(larger := torch.randn(1, 3, 10, 10))
    torch.testing.assert_close(program(larger), model(larger), rtol=1e-4, atol=1e-5)
    assert {*program.networks[1].origin.kernels} == {*program.origin.kernels}
