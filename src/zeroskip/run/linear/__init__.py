"""Linear layers: kernels that skip zero weights, kernels that skip zero inputs, and how weights are stored."""
