"""Gondimalla et al.: SparTen: A Sparse Tensor Accelerator for Convolutional Neural Networks, MICRO 2019."""
