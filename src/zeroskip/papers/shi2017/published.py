"""Shi, Chu: speeding up convolution by the zeros that rectifiers leave, 2017.

The abstract states that skipping wins where sparsity is not below 0.9. The three speed-ups are handed down without a
place in a primary source. The layers are in `models/convolutions.py`.
"""

NAME = "shi2017"
NETWORK = "rectified-layers"
TITLE = "Speeding up CNNs by exploiting the sparsity of rectifier units (Shi, Chu 2017, arXiv 1704.07724)"

# Of the sparse method over im2col and a matrix product, on one thread, one picture.
SPEEDUPS = {"lowest": "1.39", "mean": "3.49", "highest": "8.11"}
WINS_FROM = 0.9
