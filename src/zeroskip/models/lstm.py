"""A small recurrent network, whose layers read and write sequences."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMClassifier(nn.Module):
    """An LSTM reads an image row after row, a linear layer its last step. (batch, 1, h, features) -> (batch, classes).

    (batch, h, features) will do as well. Each of `layers` reads what the one before it found.

    >>> LSTMClassifier()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, features: int = 28, hidden: int = 128, classes: int = 10, *, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        steps, _ = self.lstm(x.flatten(1, -2))  # (batch, h, hidden)
        return self.fc(steps[:, -1])
