"""Pictures: sphere traced, by OpenGL, of points, of lines; panels, animations, contours."""
