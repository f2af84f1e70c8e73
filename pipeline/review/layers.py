"""A results folder as layers of a viewer; no Qt and no napari."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LayerData = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: the data, the layer's settings, and its kind."""


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return what reads a path for napari; None if it is nothing of cellseg."""
    if isinstance(path, list) or not (Path(path) / "run.json").is_file():
        return None
    return None
