"""Settings of all tests."""

import pytest
from hypothesis import settings

# The same examples on every machine and every day; a longer search is a benchmark's work.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process of `pytest -n`, and those of SLURM, which is one."""
    for item in items:
        group = "slurm" if item.get_closest_marker("slurm") else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
