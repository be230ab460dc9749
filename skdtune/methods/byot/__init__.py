"""Be your own teacher (BYOT): the final classifier teaches auxiliary classifiers."""
