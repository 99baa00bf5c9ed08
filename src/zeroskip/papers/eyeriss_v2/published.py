"""Chen, Yang, Emer, Sze: Eyeriss v2, JETCAS 2019: cycles of one element, as counted by Sparseloop's baseline."""

NAME = "eyeriss-v2"
ELEMENT = "mobilenet-element"
TITLE = "Eyeriss v2 (Chen, Yang, Emer, Sze, JETCAS 2019, arXiv 1807.07928): cycles by Sparseloop's baseline"

# Layer of MobileNet v1 0.5, pruned -> cycles on its real zeros (Wu et al., MICRO 2022, artifact).
CYCLES = {"L07": "1,702,140", "L09": "1,499,682", "L19": "1,457,458", "L23": "1,821,557", "L25": "948,572"}
