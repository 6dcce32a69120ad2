"""Pictures and sounds as fields, and measures of the difference between two signals."""
