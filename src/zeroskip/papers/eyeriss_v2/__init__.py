"""Chen, Yang, Emer, Sze: Eyeriss v2, JETCAS 2019: cycles of one element, as counted by Sparseloop's baseline."""
