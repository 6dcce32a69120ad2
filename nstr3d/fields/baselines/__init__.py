"""The peers: SIREN, FINER, Fourier features and Instant-NGP."""
