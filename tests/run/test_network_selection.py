"""Combining kernels into whole networks."""

from __future__ import annotations

from zeroskip.run.select.network_selection import off_tiles


def test_layers_off_tiles_are_joined_or_else_the_fastest_and_dense_only_where_nothing_else_is() -> None:
    dense, fastest, joined = {"fc": "dense"}, {"fc": "sell"}, {"fc": "spmm"}
    assert off_tiles({"dense": dense, "fastest": fastest, "joined": joined, "pixelwise": dense}) == joined
    # "joined" is left out where it is the same as "fastest".
    assert off_tiles({"dense": dense, "fastest": fastest, "pixelwise": dense}) == fastest
    assert off_tiles({"dense": dense}) == dense
