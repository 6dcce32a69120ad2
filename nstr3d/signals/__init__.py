"""Pictures and sounds as fields, and how near one signal is to another."""
