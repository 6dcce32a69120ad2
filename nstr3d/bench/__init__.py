"""Races between fields, their tables, and speed. No other package imports this one."""
