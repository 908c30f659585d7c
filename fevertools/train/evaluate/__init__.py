"""Measuring: pure metrics, and the command that evaluates a weights file on the named protocols."""
