"""Fields without training: cosines for complete samples, spectra carried across gaps."""
