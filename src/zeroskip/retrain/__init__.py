"""Give the accuracy back: prune, retrain, repeat."""

from zeroskip.retrain.loop import as_sparse, loop, train

__all__ = ["as_sparse", "loop", "train"]
