"""Fields in closed form, without training: a cosine basis for complete samples, and spectra that
transport carries across gaps."""
