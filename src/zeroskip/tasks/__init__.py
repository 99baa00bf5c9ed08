"""What can be sparsified: a model, its data, its training. A user's own file is the same thing.

A task has `model()`, `train(model)` (in place), `evaluate(model)` (a number, lower is better) and `batch()`.
"""

from zeroskip.data import digits as _digits
from zeroskip.data import mnist as _mnist
from zeroskip.models import LeNet5, LeNet300100
from zeroskip.tasks.classification import Classification
from zeroskip.tasks.load import load

digits = Classification(
    "digits", lambda: LeNet300100(inputs=64), _digits.load,
    epochs=60, batch_size=32, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
digits_conv = Classification(
    "digits-conv", lambda: LeNet5(side=8, kernel=3, padding=1, channels=(20, 50, 120)), _digits.load,
    epochs=30, batch_size=32, learning_rate=2e-3, weight_decay=0.1, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
mnist = Classification(
    "mnist", LeNet300100, _mnist.load,
    epochs=20, batch_size=128, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1,
)  # fmt: skip
mnist_conv = Classification(
    "mnist-conv", LeNet5, _mnist.load,
    epochs=8, batch_size=128, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0.1,
)  # fmt: skip

BUILT_IN = (digits, digits_conv, mnist, mnist_conv)

__all__ = ["BUILT_IN", "Classification", "digits", "digits_conv", "load", "mnist", "mnist_conv"]
