"""What tests of windows need."""

import os
from importlib import import_module
from importlib.util import find_spec

import pytest


def need_napari() -> None:
    """Skip a module where napari is not installed; a gate must have it."""
    if find_spec("napari") is None and os.environ.get("CI") != "true":
        pytest.skip('napari is missing: pip install "cellseg[review]"', allow_module_level=True)
    # Before any window is drawn: see what it loads.
    import_module("cellseg.pipeline.review.widget")
