"""Han, Mao, Dally: Deep Compression, ICLR 2016."""
