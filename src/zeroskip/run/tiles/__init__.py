"""Networks of convolutions on tiles: layout, kernels, and the way from a graph to one call."""
