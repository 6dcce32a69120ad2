"""What training starts from: linear least squares, placed waves, or a nearby shape's model."""
