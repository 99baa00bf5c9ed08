"""Convolutions and what surrounds them on tiles: maps cut into a grid, one tile in each lane of a vector."""
