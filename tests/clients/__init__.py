"""Readers of a turnwire stream that others wrote, and one that forgives nothing: see `run.py`."""
