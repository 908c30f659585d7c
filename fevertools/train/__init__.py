"""PyTorch code that reproduces the weights. Needs `pip install "fevertools[train]"`; nothing outside imports it."""
