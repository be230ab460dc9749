"""Teacher-free distillation, regularization (TF-KD reg): the target is made by hand."""
