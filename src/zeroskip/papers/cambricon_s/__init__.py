"""Zhou et al.: Cambricon-S: Addressing Irregularity in Sparse Neural Networks, MICRO 2018."""
