"""Networks that read series, tables, words in pictures, and graphs."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from zoo.network import Network


def series(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, size, 12, generator=generator)


def lstm_fcn() -> nn.Module:
    from sktime.networks.lstmfcn import LSTMFCNNetworkTorch

    return LSTMFCNNetworkTorch(input_size=12, num_classes=5, lstm_size=64)


def lstm_fcn_attention() -> nn.Module:
    from sktime.networks.lstmfcn import LSTMFCNNetworkTorch

    return LSTMFCNNetworkTorch(input_size=12, num_classes=5, lstm_size=64, attention=True)


def gru() -> nn.Module:
    from sktime.networks.gru import GRU

    return GRU(input_size=12, hidden_dim=128, n_layers=2, batch_first=True, num_classes=5, bidirectional=True)


def crnn() -> nn.Module:
    from doctr.models import crnn_mobilenet_v3_small

    return crnn_mobilenet_v3_small(pretrained=False, pretrained_backbone=False, exportable=True)


def line_of_text(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 3, 32, size, generator=generator)


def mlp() -> nn.Module:
    from rtdl_revisiting_models import MLP

    return MLP(d_in=54, d_out=7, n_blocks=3, d_block=512, dropout=0.1)


def row(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, size, generator=generator)


def ft_transformer() -> nn.Module:
    from rtdl_revisiting_models import FTTransformer

    options = FTTransformer.get_default_kwargs(n_blocks=2)
    return FTTransformer(n_cont_features=10, cat_cardinalities=[4, 7, 12], d_out=2, **options)


def numbers_and_classes(batch: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    classes = [torch.randint(0, count, (batch, 1), generator=generator) for count in (4, 7, 12)]
    return torch.randn(batch, size, generator=generator), torch.cat(classes, dim=1)


def graph_network(name: str) -> nn.Module:
    import torch_geometric.nn

    return getattr(torch_geometric.nn, name)(16, 64, num_layers=3, out_channels=4)


def nodes_and_edges(batch: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A graph of `size` nodes; a batch of graphs is one graph."""
    nodes = batch * size
    return torch.randn(nodes, 16, generator=generator), torch.randint(
        0, nodes, (2, nodes * 4), generator=generator
    )


COLUMNS = "the number of columns is part of the network"
NETWORKS = (
    Network("LSTM-FCN", "sktime", lstm_fcn, series, (64, 48), kinds=("recurrent",)),
    Network("LSTM-FCN with attention", "sktime", lstm_fcn_attention, series, (64, 48), kinds=("recurrent",)),
    Network("GRU classifier", "sktime", gru, series, (64, 48), kinds=("recurrent",)),
    Network("CRNN", "python-doctr", crnn, line_of_text, (128, 160), kinds=("recurrent",)),
    Network("MLP for tables", "rtdl_revisiting_models", mlp, row, (54, 54), fixed=COLUMNS),
    Network(
        "FT-Transformer",
        "rtdl_revisiting_models",
        ft_transformer,
        numbers_and_classes,
        (10, 10),
        sparsity=0.8,
        fixed=COLUMNS,
    ),
    Network(
        "GCN",
        "torch_geometric",
        lambda: graph_network("GCN"),
        nodes_and_edges,
        (200, 150),
        batch_axis=None,
        kinds=("graph",),
    ),
    Network(
        "GraphSAGE",
        "torch_geometric",
        lambda: graph_network("GraphSAGE"),
        nodes_and_edges,
        (200, 150),
        batch_axis=None,
        kinds=("graph",),
    ),
)
