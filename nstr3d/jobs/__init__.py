"""Files in, files out: jobs on meshes, points, signals, spectra, and the runner of their stages."""
