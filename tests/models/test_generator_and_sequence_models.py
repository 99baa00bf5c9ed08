"""DCGAN's generator, Wav2Letter, an LSTM of several layers: sizes that others count, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroskip.models import LSTMClassifier, dcgan_generator, wav2letter

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build().eval()


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (dcgan_generator, 3_576_704),  # PyTorch's example of DCGAN
        (partial(wav2letter, features=13), 23_304_540),  # torchaudio's, on 13 coefficients
        (wav2letter, 23_304_540 + 67 * 48 * 250),
        # Each layer has 4 gates, for each unit with 256 + 256 weights and 2 biases.
        (partial(LSTMClassifier, 256, 256, layers=2), 2 * 4 * 256 * (256 + 256 + 2) + 10 * 257),
    ],
)
def test_parameters_are_as_many_as_others_count(build: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(one.numel() for one in meta(build).parameters()) == parameters


def test_a_picture_of_64_pixels_grows_from_one() -> None:
    sides = []
    model, x = meta(dcgan_generator), torch.zeros(2, 100, 1, 1, device="meta")
    for step in model.get_submodule("main"):
        x = step(x)
        sides.append(x.shape[-1])
    assert list(dict.fromkeys(sides)) == [4, 8, 16, 32, 64]
    assert x.shape == (2, 3, 64, 64)
    assert isinstance(step, nn.Tanh)


def test_names_are_those_of_published_checkpoints() -> None:
    assert {name.split(".")[0] for name in meta(dcgan_generator).state_dict()} == {"main"}
    names = list(meta(wav2letter).state_dict())
    places = range(0, 22, 2)
    assert names == [f"acoustic_model.{place}.{kind}" for place in places for kind in ("weight", "bias")]


def test_wav2letter_halves_the_frames_and_gives_probabilities() -> None:
    y = meta(wav2letter)(torch.zeros(2, 80, 200, device="meta"))
    assert y.shape == (2, 40, 101)  # torchaudio's padding of 16 beside a kernel of 32 adds one
    torch.manual_seed(0)
    small = wav2letter(features=3, letters=5)
    torch.testing.assert_close(small(torch.randn(1, 3, 8)).exp().sum(1), torch.ones(1, 5))


def test_each_layer_of_an_lstm_reads_the_steps_of_the_one_before_it() -> None:
    torch.manual_seed(0)
    model, x = LSTMClassifier(5, 3, 2, layers=2), torch.randn(4, 6, 5)
    steps = x
    for number in range(2):
        parameters = [model.lstm.get_parameter(f"{name}_l{number}") for name in PARAMETERS]
        steps = layer(steps, *parameters)
    torch.testing.assert_close(model(x), model.fc(steps[:, -1]))
    assert meta(partial(LSTMClassifier, 256, 256, layers=2))(
        torch.zeros(2, 64, 256, device="meta")
    ).shape == (2, 10)


def layer(steps: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    """One layer, gate after gate. (batch, steps, features) -> (batch, steps, hidden)."""
    from_input, from_state, bias_input, bias_state = parameters
    state = cell = torch.zeros(len(steps), from_state.shape[1])
    outputs = []
    for step in steps.unbind(1):
        gates = F.linear(step, from_input, bias_input) + F.linear(state, from_state, bias_state)
        enter, forget, value, leave = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * value.tanh()
        state = leave.sigmoid() * cell.tanh()
        outputs.append(state)
    return torch.stack(outputs, 1)
