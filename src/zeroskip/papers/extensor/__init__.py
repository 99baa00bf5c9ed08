"""Hegde et al.: ExTensor: An Accelerator for Sparse Tensor Algebra, MICRO 2019."""
