"""Progressive self-knowledge distillation (PS-KD): labels and remembered predictions."""
