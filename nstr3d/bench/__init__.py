"""Benchmarks: races between fields, tables of the results, and speed.

No other package imports this one.
"""
