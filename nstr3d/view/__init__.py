"""Windows and pages: Open3D on the desktop, viser in the browser, and one file to send away."""
