"""Batch knowledge ensembling (BAKE): similar images of the batch teach each other."""
