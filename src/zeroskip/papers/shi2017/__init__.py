"""Shi, Chu: speeding up convolution by the zeros that rectifiers leave, 2017."""
