"""Point clouds: checked, oriented, and turned into a signed distance without training."""
