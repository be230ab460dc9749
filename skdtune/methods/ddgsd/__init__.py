"""Data-distortion guided self-distillation (DDGSD): two views of an image teach each other."""
