"""The 13 layers behind rectifiers: shapes, zeros, and the old way to compute them."""

from __future__ import annotations

import pytest
import torch

from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE, im2col


def test_there_are_13_layers_and_3_of_them_are_listed_in_two_ways() -> None:
    assert len(RECTIFIED) == 13
    assert set(RECTIFIED_OTHERWISE) < set(RECTIFIED)
    assert all(RECTIFIED[name] != other for name, other in RECTIFIED_OTHERWISE.items())


@pytest.mark.parametrize(("name", "side"), [("LeNet Conv2", 9), ("AlexNetI Conv2", 13), ("Inception5b.5", 7)])
def test_a_layer_has_the_listed_output(name: str, side: int) -> None:
    layer = RECTIFIED[name]
    assert layer.network()(layer.example(2)).shape == (2, layer.outputs, side, side)


def test_an_example_is_positive_but_for_its_share_of_zeros_and_the_same_at_every_call() -> None:
    layer = RECTIFIED["Inception4a.1"]
    x = layer.example(8)
    assert (x >= 0).all()
    assert (x == 0).float().mean().item() == pytest.approx(0.90, abs=0.003)
    assert torch.equal(x, layer.example(8))


@pytest.mark.parametrize("name", RECTIFIED)
def test_im2col_and_gemm_compute_what_the_network_does(name: str) -> None:
    layer = RECTIFIED[name]
    model, x = layer.network().eval(), layer.example(2)
    with torch.no_grad():
        y, expected = im2col(model, x)(), model(x)
    assert torch.allclose(y, expected, atol=1e-5)
