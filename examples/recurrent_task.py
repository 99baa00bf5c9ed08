"""A recurrent network reads a digit row by row: zeroskip sparsify examples/recurrent_task.py --out runs/rows"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

pixels, labels = load_digits(return_X_y=True)
rest, test = train_test_split(range(len(labels)), test_size=360, stratify=labels, random_state=0)
train_rows, validation = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=0)
x, y = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(labels)


class RowByRow(nn.Module):
    """A GRU over 8 rows of 8 pixels; what it holds after the last row says which digit it was."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, rows):
        states, _ = self.gru(rows)  # (batch, 8, 64)
        return self.head(states[:, -1])


def model():
    return RowByRow()


def train(model):
    epochs, batches = 30, torch.tensor(train_rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for rows in batches[torch.randperm(len(batches))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows], label_smoothing=0.1).backward()
            optimizer.step()
        schedule.step()


def evaluate(model, split="validation"):  # with `split`, nothing is decided on the test set
    rows = test if split == "test" else validation
    with torch.no_grad():
        return (model.eval()(x[rows]).argmax(1) != y[rows]).float().mean().item()


def batch():
    return x[validation][:64]


def split_sizes():
    return {"train": len(train_rows), "validation": len(validation), "test": len(test)}
