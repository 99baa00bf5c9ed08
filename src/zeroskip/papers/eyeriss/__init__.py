"""Chen, Krishna, Emer, Sze: Eyeriss, JSSC 52(1), 2017: its code, its traffic to DRAM, its latencies."""
