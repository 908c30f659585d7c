"""Contestants, each a process of its own (see `benchmarks._peer`). Only `ours` imports fevertools."""
