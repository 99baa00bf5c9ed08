"""Give the accuracy back: prune, retrain, repeat."""

from zeroskip.retrain.activation_penalties import ReluOutputs, activation_hoyer, activation_l1, raising
from zeroskip.retrain.centroids import CodebookRecipe, centroids, widths
from zeroskip.retrain.dropout import dropout_layers, rescaled_dropout
from zeroskip.retrain.loop import as_sparse, loop, train
from zeroskip.retrain.losses import penalized, taught
from zeroskip.retrain.relufication import relufied

__all__ = [
    "CodebookRecipe", "ReluOutputs", "activation_hoyer", "activation_l1", "as_sparse", "centroids",
    "dropout_layers", "loop", "penalized", "raising", "relufied", "rescaled_dropout", "taught", "train",
    "widths",
]  # fmt: skip
