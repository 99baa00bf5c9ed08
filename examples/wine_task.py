"""Your own network and data, four functions: zeroskip sparsify examples/wine_task.py --out runs/wine"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

features, labels = load_wine(return_X_y=True)
rest, test = train_test_split(range(len(labels)), test_size=45, stratify=labels, random_state=0)
train_rows, validation = train_test_split(rest, test_size=45, stratify=labels[rest], random_state=0)
features = (features - features[train_rows].mean(0)) / features[train_rows].std(0)
x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


class Residual(nn.Module):
    """A network that zeroskip has never seen: two residual blocks with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 64)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(64) for _ in range(2))
        self.last = nn.Linear(64, 3)

    def forward(self, inputs):
        h = F.relu(self.first(inputs))  # (batch, 64)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            h = h + F.relu(norm(block(h)))
        return self.last(h)


def model():
    return Residual()


def train(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x[train_rows]), y[train_rows], label_smoothing=0.1).backward()
        optimizer.step()


def evaluate(model, split="validation"):  # with `split`, nothing is decided on the test set
    rows = test if split == "test" else validation
    with torch.no_grad():
        return (model.eval()(x[rows]).argmax(1) != y[rows]).float().mean().item()


def batch():
    return x[validation]


def split_sizes():  # optional: one example more or less is then no difference
    return {"train": len(train_rows), "validation": len(validation), "test": len(test)}
