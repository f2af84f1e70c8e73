"""Labels that a person has corrected, put in the place of those that a run has painted.

Whole label images of theirs, or the edits of a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models import CellsegError
from cellseg.pipeline.image import Image
from cellseg.pipeline.job import Job
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.masks import MaskSource
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box


@dataclass(frozen=True, eq=False)
class TakeLabels:
    """Task: put corrected labels in the place of those of an image."""

    job: Job
    source: MaskSource

    @property
    def scene(self) -> Scene:
        """The image."""
        return self.job.scene

    def __call__(self) -> Scene:
        """Write them region by region; they keep the key of those before. Return the image.

        Raises
        ------
        CellsegError
            If they are no label images, or do not fit the image.
        """
        times, _, depth, height, width = self.scene.shape
        layers = self.source.read(times * depth).layers
        _check_layers(self.source.path, layers, (times, depth, height, width))
        labels = self.job.here.labels
        self.job.start_labels(len(layers))
        for unit in range(self.job.units("paint")):
            for plane, region in self.job.regions_in(unit):
                _paint(labels, layers, *self.scene.plane(plane), region)
        # What the log says is about the labels that go now.
        self.job.here.retire_edits()
        labels.finish(times, depth)
        return self.scene


@dataclass(frozen=True, eq=False)
class TakeEdits:
    """Task: change the labels of an image as the log of its edits says."""

    job: Job

    @property
    def scene(self) -> Scene:
        """The image."""
        return self.job.scene

    def __call__(self) -> Scene:
        """Change the parts that the edits are about; return the image."""
        if self.job.corrections is not None:
            self.job.corrections.carry_out(self.job.here.labels)
        return self.scene


def _paint(labels: LabelStore, layers: Sequence[Image], t: int, z: int, region: Box) -> None:
    for number, layer in enumerate(layers):

        def read(box: Box, layer: Image = layer) -> Any:
            (painted,) = layer.read(t, z, box, [0])
            if painted.dtype.kind == "i" and painted.min(initial=0) < 0:
                raise CellsegError(f"{layer.source}: labels below 0. Renumber them from 1 on.")
            return painted.astype(np.uint32)

        labels.paint(t, z, region, read, number)


def _check_layers(path: Path, layers: Sequence[Image], shape: tuple[int, ...]) -> None:
    """Refuse what are no label images of an image."""
    if not layers:
        raise CellsegError(f"{path}: no label images. Give TIFF or OME-Zarr label images.")
    for layer in layers:
        times, channels, depth, height, width = layer.shape
        if layer.dtype.kind not in "iu":
            raise CellsegError(f"{path}: pixels are {layer.dtype}; labels need integers.")
        if (times, depth, height, width) != shape or channels != 1:
            raise CellsegError(
                f"{path}: (T, C, Z, Y, X) = {layer.shape}; the labels of this image have one"
                f" channel and (T, Z, Y, X) = {shape}."
            )
