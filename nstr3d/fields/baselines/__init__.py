"""The fields that NSTR is compared with: SIREN, FINER, Fourier features and Instant-NGP."""
