"""Files in, files out: jobs on meshes, points, signals and spectra; the runner of stages."""
