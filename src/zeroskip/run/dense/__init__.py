"""Layers computed dense by PyTorch: always possible, and what every other kernel is compared with."""
