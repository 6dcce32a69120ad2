"""Point clouds: validation, orientation, and a signed distance without training."""
