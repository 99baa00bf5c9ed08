"""Give the accuracy back: prune, retrain, repeat."""

from zeroskip.retrain.centroids import centroids, widths
from zeroskip.retrain.dropout import dropout_layers, rescaled_dropout
from zeroskip.retrain.loop import as_sparse, loop, train
from zeroskip.retrain.losses import penalized, taught

__all__ = [
    "as_sparse",
    "centroids",
    "dropout_layers",
    "loop",
    "penalized",
    "rescaled_dropout",
    "taught",
    "train",
    "widths",
]
