"""Ways to initialise a field before training: linear least squares, placed waves, or the model of a
nearby shape."""
