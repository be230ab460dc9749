"""Self-distillation from the last mini-batch (DLB): its second views are classified again."""
