"""The label term of the baseline: plain cross-entropy."""
