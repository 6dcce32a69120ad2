"""Jobs on meshes, point clouds, signals and spectra, and the runner of their stages.

Each job reads input files and writes result files.
"""
