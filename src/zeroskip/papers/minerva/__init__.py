"""Reagen et al.: Minerva: Enabling Low-Power, Highly-Accurate Deep Neural Network Accelerators, ISCA 2016."""
