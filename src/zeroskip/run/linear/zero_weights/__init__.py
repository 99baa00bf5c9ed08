"""Kernels for linear layers that skip zero weights, known when a layer is compiled.

A skipped weight's product with an infinite or NaN input is 0 here and NaN in PyTorch.
"""
