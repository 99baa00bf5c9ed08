"""Albericio et al.: Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing, ISCA 2016."""
