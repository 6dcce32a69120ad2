"""What one asks of a signed distance: a mesh of it, where rays meet it, how accurate it is."""
