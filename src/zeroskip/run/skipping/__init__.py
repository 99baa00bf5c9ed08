"""Convolutions that find the zeros of their input at every call: lists, code, and when it pays to skip them."""
