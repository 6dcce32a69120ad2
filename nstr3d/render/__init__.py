"""Pictures: sphere tracing, OpenGL, points, lines, panels, animations and contours."""
