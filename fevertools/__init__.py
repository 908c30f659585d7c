"""fevertools: expression embeddings of faces."""

__version__ = "0.1.0"
