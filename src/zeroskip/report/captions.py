"""What to see in each section of the page, how it was measured, and the figure it is drawn after."""

from __future__ import annotations

CAPTIONS = {
    "Time on this machine": (
        "All engines took turns in the same rounds, on the same inputs and threads. Where a dense engine beats "
        "zeroskip, its row says so in amber."
    ),
    "Why it is not faster": (
        "Which zeros of the network a kernel skips, and why the others are computed; how the time of one call divides "
        "between compiled pieces and what PyTorch computes between them; what a single change would gain at most."
    ),
    "Layer by layer": (
        "Every weight of the network by its name, which kernel runs it, and why, or why none does. Zeros in the weight "
        "are what pruning left, zeros in the input are what the layer is fed; MACs are those of all its runs."
    ),
    "Where the zeros are": (
        "First, on a log axis, the weights of every layer before (grey) and after (coloured). Then the share of exact "
        "zeros in what each layer reads and writes, as the profile measured it before pruning."
    ),
    "How much each layer minds": (
        "One layer at a time loses its smallest weights, all others are untouched and nothing is retrained. A line "
        "that leaves the dotted level early is a layer that needs its weights. Drawn after Han et al. 2015, fig. 6."
    ),
    "Error against weights kept": (
        "Each mark is one prune-and-retrain step, measured on the validation split: further right is sparser, further "
        "down is better. Green stayed within the error budget, red did not; the ring is the network that was kept, the "
        "last good one. Drawn after Han et al. 2015, fig. 5."
    ),
    "Weights before and after": (
        "Where a layer was pruned and retrained, its single peak around zero becomes two. The grey and the coloured "
        "curve each sum to 100 % of the weights they show; the removed weights are no part of the coloured one. At "
        "most the 12 largest layers. Drawn after Han et al. 2015, fig. 7."
    ),
    "What the first layer keeps": (
        "Coloured is kept, blank is removed. Where the inputs are the pixels of a square image, the second picture "
        "counts the connections left at each pixel: pixels that hardly matter, such as the borders of handwritten "
        "digits, lose theirs. Drawn after Han et al. 2015, fig. 4."
    ),
    "Where the bytes go": (
        "Exact bytes of the stored file: the values of the weights that are left (or their codes, and the codebook "
        "that the codes number), the positions that say where they belong, the tables of Huffman codes, and headers. "
        "At most the 24 largest tensors have a row of their own."
    ),
    "Comparison": (
        "One colour per run: the open mark is its dense network, the full one what pruning made of it. Further left is "
        "smaller, further down is better. Errors are on each run's own test split."
    ),
    "Trade-off": (
        "Error on the test split against the share of weights kept, by the penalty of the training (L1 or L2) and by "
        "what follows the cut: nothing, one retraining, or cuts and retrainings in turn (iterative). Further right is "
        "sparser, further down is better. The curves are those of one seed; the dotted and the dashed level are the "
        "dense networks that the L1 and the L2 curves start from. Drawn after Han et al. 2015, fig. 5."
    ),
    "Sensitivity": (
        "One layer at a time loses its smallest weights, all others are untouched and nothing is retrained. A line "
        "that climbs early is a layer that needs its weights. Measured on the validation split, as the thresholds are "
        "chosen by it. Drawn after Han et al. 2015, fig. 6."
    ),
    "Histogram of weights": (
        "The weights of the first linear layer that are not zero: one peak at zero before, two beside it after pruning "
        "and retraining, further out. Both panels reach equally far. Drawn after Han et al. 2015, fig. 7."
    ),
    "Mask of the first layer": (
        "Connections that the first layer keeps per input: as the image itself, and row after row of the image. Each "
        "hump between two lines of the grid is one row of pixels: its middle is kept, its ends, at the border of the "
        "image, are cut. A convolution's inputs are the pixels of its kernel. Drawn after Han et al. 2015, fig. 4."
    ),
    "Error against size": (
        "Error on the test split against the bytes of the file with codes of fixed width: pruning alone, sharing alone "
        "with codes ever narrower, and both. Further right is smaller, further down is better. Drawn after Deep "
        "Compression, fig. 6."
    ),
    "Error against bits": (
        "Error on the test split of the pruned network when only the codes of one kind of layer narrow, down to one "
        "bit. Drawn after Deep Compression, fig. 7."
    ),
    "Starts of the centroids": (
        "Error on the test split after training the centroids, by where k-means places them at the start and by the "
        "width of the codes. Drawn after Deep Compression, fig. 8."
    ),
    "Frontier: weights": (
        "Beyond the papers: how many times fewer weights zeroskip's own recipe reaches. Faint dots are single seeds, "
        "marks on a line their means. The fair level is the dense network continued: trained as long, on the same "
        "images. A star is what the paper reports. Further right and further down is better."
    ),
    "Frontier: bytes": (
        "The same networks with shared values, as files: four times the parameters of the dense network by all bytes "
        "of the file. Faint dots are the errors of single seeds at the mean size. A star is what Deep Compression "
        "reports. Further right and further down is better."
    ),
    "Every table": (
        "Published figures beside what zeroskip finds, row by row: rows that fail and rows that were not measured are "
        "listed like all others. Click on a table to open it."
    ),
}
