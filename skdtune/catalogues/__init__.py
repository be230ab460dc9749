"""What there is of everything that a study names: a line for each, and what packages add to it."""
