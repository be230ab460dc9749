"""Distillation with reverse guidance (DRG): shallow classifiers teach the final one."""
