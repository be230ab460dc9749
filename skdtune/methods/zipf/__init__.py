"""Zipf's label smoothing: the other classes follow a power law of their ranks."""
