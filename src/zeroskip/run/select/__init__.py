"""Choosing kernels by measuring: layer by layer, then whole networks."""
