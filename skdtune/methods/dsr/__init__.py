"""Distillation with shape-wise regularization (DSR): ranked outputs follow the batch before."""
