"""The figures that need training: what to train on which network, and the findings that come of it.

recipes.py           per network: its task and how long everything is trained
stages.py            dense, continued, pruned, shared: each stored once, read back when it is there
han2015.py           findings for the tables and figures of Han et al. 2015
deep_compression.py  findings for those of Deep Compression
fc_layers.py         seconds of single layers, which need no training
minerva.py           Minerva's networks, and the thresholds that their spread allows
accelerators.py      cycles of simulated chips on real zeros, where a paper's own cycles are known
sparten.py           cycles of pruned networks on SparTen
matrices.py          real sparse matrices on ExTensor
shi2017.py           seconds of convolutions whose inputs are sparse
frontier.py          how far zeroskip's own recipe gets on the same networks

Everything is decided before: no figure of the test split leads to another training.
"""

from zeroskip.reproduce.trained import deep_compression, fc_layers, han2015, minerva, shi2017
from zeroskip.reproduce.trained.recipes import RECIPES

__all__ = ["RECIPES", "deep_compression", "fc_layers", "han2015", "minerva", "shi2017"]
