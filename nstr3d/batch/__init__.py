"""Data sets: thousands of shapes, fitted by workers that may die, in a catalogue that does not."""
