"""Settings of all tests."""

from hypothesis import settings

# The same examples on every machine and every day; a longer search is a benchmark's work.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
