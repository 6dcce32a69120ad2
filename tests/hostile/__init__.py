"""Small valid files of every format, seeded mutations of them, and a worker that reads them."""
