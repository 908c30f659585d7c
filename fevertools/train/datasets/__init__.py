"""Readers of data sets in the layouts people have, and the protocols by which they are split and scored."""
