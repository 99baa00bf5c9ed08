"""Parashar et al.: SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks, ISCA 2017."""
