"""LSTM, GRU and RNN: all steps of a layer in one call, products with sparse matrices and activations together."""
