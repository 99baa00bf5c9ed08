"""Albericio et al.: Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing, ISCA 2016."""

NAME = "cnvlutin"
TITLE = "Cnvlutin (Albericio et al., ISCA 2016)"

# Times faster than DaDianNao: mean of six networks, the least (GoogLeNet) and the most (CNN-S).
MEAN, LEAST, MOST = "1.37", 1.24, 1.55
