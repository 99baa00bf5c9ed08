"""An LSTM of 5,120 weights with a head of 64, as a user's own file."""

from sequence_data import COUNTS, evaluating, sequences, training
from torch import nn

splits = sequences(steps=5, features=8)
train, evaluate = training(splits), evaluating(splits)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def model():
    return Recurrent()


def batch():
    return splits["validation"][0][:4]


def batches():
    yield splits["validation"]


def split_sizes():
    return COUNTS
