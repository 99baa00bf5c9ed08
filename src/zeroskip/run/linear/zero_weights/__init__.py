"""Kernels for linear layers that skip zero weights."""
