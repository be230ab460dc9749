"""Feature refinement via self-knowledge distillation (FRSKD): a pyramid network teaches."""
