"""Teacher-free distillation, self-training (TF-KD self): a trained baseline teaches."""
