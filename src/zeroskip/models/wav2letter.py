"""Wav2Letter (Collobert et al. 2016): speech to letters by convolutions along time."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

LAYERS = ((250, 48, 2, 23), *[(250, 7, 1, 3)] * 7, (2000, 32, 1, 16), (2000, 1, 1, 0))
"""Figure 1, without the layer that reads the waveform: output channels, kernel, stride, padding."""


def wav2letter(*, features: int = 80, letters: int = 40) -> nn.Sequential:
    """Wav2Letter on features of frames, with torchaudio's names, so that its checkpoints load.

    (batch, features, frames) -> (batch, letters, frames // 2 + 1), logarithms of probabilities. 23,304,540 parameters
    with 13 features, 24,108,540 with 80. As torchaudio has it, a ReLU follows the last convolution too.

    >>> wav2letter()(torch.zeros(2, 80, 20)).shape
    torch.Size([2, 40, 11])
    """
    steps: list[nn.Module] = []
    channels = features
    for out, kernel, stride, padding in (*LAYERS, (letters, 1, 1, 0)):
        steps += [nn.Conv1d(channels, out, kernel, stride, padding), nn.ReLU()]
        channels = out
    parts: OrderedDict[str, nn.Module] = OrderedDict(acoustic_model=nn.Sequential(*steps))
    parts["log_softmax"] = nn.LogSoftmax(dim=1)
    return nn.Sequential(parts)
