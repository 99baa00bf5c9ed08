"""The table: every network that `make zoo` tries."""

from zoo.networks import language, others, pictures, sound

NETWORKS = (*pictures.NETWORKS, *language.NETWORKS, *sound.NETWORKS, *others.NETWORKS)
