"""Real handwritten digits, embedded in scikit-learn: 1,797 images of 8x8 pixels.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak).
Splits, always the same: 1,077 train, 360 validation, 360 test, classes in proportion.
"""

from __future__ import annotations

from functools import cache

import torch

from zeroskip.data.splits import Split, Splits, hold_out

HELD_OUT = 360


@cache
def load() -> Splits:
    """The three splits; inputs (count, 1, 8, 8) scaled to 0..1.

    >>> load().counts
    {'train': 1077, 'validation': 360, 'test': 360}
    """
    from sklearn.datasets import load_digits  # a second to import

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16  # pixels are 0..16
    whole = Split(inputs, torch.from_numpy(labels).long())
    rest, test = hold_out(whole, HELD_OUT)
    train, validation = hold_out(rest, HELD_OUT)
    return Splits(train, validation, test)
