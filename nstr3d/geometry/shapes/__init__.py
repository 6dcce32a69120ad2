"""Analytic shapes and reliefs in closed form, for tests, demos and sculpting."""
