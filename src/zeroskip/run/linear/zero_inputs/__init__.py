"""Kernels for linear layers that skip zero inputs, found at every call."""
