"""What to see in each section of the page, how it was measured, and the figure it is drawn after."""

from __future__ import annotations

CAPTIONS = {
    "Time on this machine": (
        "All engines took turns in the same rounds, on the same inputs and threads. Where a dense "
        "engine beats zeroskip, its row says so in amber."
    ),
    "Layer by layer": (
        "Which kernel runs each layer of the compiled program, and why. Zeros in the weight are what "
        "pruning left, zeros in the input are what the layer is fed."
    ),
    "Where the zeros are": (
        "First, on a log axis, the weights of every layer before (grey) and after (coloured). Then the "
        "share of exact zeros in what each layer reads and writes, as the profile measured it before "
        "pruning."
    ),
    "How much each layer minds": (
        "One layer at a time loses its smallest weights, all others are untouched and nothing is "
        "retrained. A line that leaves the dotted level early is a layer that needs its weights. Drawn "
        "after Han et al. 2015, fig. 6."
    ),
    "Error against weights kept": (
        "Each mark is one prune-and-retrain step, measured on the validation split: further right is "
        "sparser, further down is better. Green stayed within the error budget, red did not; the ring is"
        " the network that was kept, the last good one. Drawn after Han et al. 2015, fig. 5."
    ),
    "Weights before and after": (
        "Where a layer was pruned and retrained, its single peak around zero becomes two. The grey and "
        "the coloured curve each sum to 100 % of the weights they show; the removed weights are no part "
        "of the coloured one. At most the 12 largest layers. Drawn after Han et al. 2015, fig. 7."
    ),
    "What the first layer keeps": (
        "Coloured is kept, blank is removed. Where the inputs are the pixels of a square image, the "
        "second picture counts the connections left at each pixel: pixels that hardly matter, such as "
        "the borders of handwritten digits, lose theirs. Drawn after Han et al. 2015, fig. 4."
    ),
    "Where the bytes go": (
        "Exact bytes of the stored file: the values of the weights that are left (or their codes, and the"
        " codebook that the codes number), the positions that say where they belong, the tables of Huffman"
        " codes, and headers. At most the 24 largest tensors have a row of their own."
    ),
    "Comparison": (
        "One colour per run: the open mark is its dense network, the full one what pruning made of it. "
        "Further left is smaller, further down is better. Errors are on each run's own test split."
    ),
}
