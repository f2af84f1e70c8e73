"""From images to cells.

workflow.toml -> Workflow, config.toml -> Config
discover      -> the images of a folder, glob or list, with well and site
segment       tile by tile -> candidates, one file a tile, the unit of resume
stitch        block by block of tiles, cells that no tile saw whole are completed, all are decided
order         cells of all blocks -> one order of position: their labels
paint         cells -> a label image with its pyramid, region by region
measure       labels and pixels -> one row a cell, run by run of labels
finish        labels, table, picture and audit in their places: the results folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellseg.models.errors import CellsegError
    from cellseg.pipeline.config import Config, read_config
    from cellseg.pipeline.result import Result
    from cellseg.pipeline.stages import run
    from cellseg.pipeline.workflow import Workflow, read_workflow

__all__ = [
    "CellsegError",
    "Config",
    "Result",
    "Workflow",
    "read_config",
    "read_workflow",
    "run",
]

_HOMES = {
    "CellsegError": "cellseg.models.errors",
    "Config": "cellseg.pipeline.config",
    "Result": "cellseg.pipeline.result",
    "Workflow": "cellseg.pipeline.workflow",
    "read_config": "cellseg.pipeline.config",
    "read_workflow": "cellseg.pipeline.workflow",
    "run": "cellseg.pipeline.stages",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `cellseg --help` must not wait for dask."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
