"""Han et al.: EIE: Efficient Inference Engine on Compressed Deep Neural Network, ISCA 2016."""
