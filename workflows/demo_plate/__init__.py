"""Twelve fields of the real plate BBBC039, to run the shipped workflows on (see README.md here)."""
