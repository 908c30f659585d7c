"""Measurements: one module a question, one JSON object a run."""
