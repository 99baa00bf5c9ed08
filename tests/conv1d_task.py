"""A network of Conv1d layers on sequences, as a user's own file."""

from sequence_data import COUNTS, evaluating, sequences, training
from torch import nn

splits = {
    name: (x.transpose(1, 2).contiguous(), y) for name, (x, y) in sequences(steps=12, features=4).items()
}
train, evaluate = training(splits), evaluating(splits)


def model():
    pooled = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 16, 3, stride=2), nn.ReLU(), *pooled)


def batch():
    return splits["validation"][0][:4]


def split_sizes():
    return COUNTS
