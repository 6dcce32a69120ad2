"""Files in, files out: one module for each job (mesh, cloud, signal, flow), and what jobs share."""
