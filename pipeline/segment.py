"""A segmenter over tiles: what one image looks like to it, and what it finds in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import (
    CellsegError,
    FitsImage,
    Instances,
    Overlap,
    Placed,
    Segmenter,
)
from cellseg.models.normalise import Normalisation, decide
from cellseg.models.timing import part
from cellseg.pipeline.answers import checked, distinct, on_signal
from cellseg.pipeline.assembled import open_field
from cellseg.pipeline.background import Background, find_background, side_at
from cellseg.pipeline.image import Image
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.interest import Interest, Survey
from cellseg.pipeline.measured import Measured
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.place import Place
from cellseg.pipeline.plate import Field
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.source import Shape
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel, enlarged, step_px
from cellseg.pipeline.within import reach_px
from cellseg.pipeline.workflow import Tiling, Workflow


@lru_cache(maxsize=4)
def opened(source: Field) -> Image:
    """Return the image of a field, opened once in a process.

    Raises
    ------
    CellsegError
        If it cannot be opened, or its files do not make an image.
    """
    return open_field(source)


@dataclass(frozen=True, eq=False)
class Scene:
    """One image as the model sees it; small, and sent to the workers.

    Parameters
    ----------
    source : Field
        Which image.
    workflow : Workflow
        What is done with it.
    segmenter : Segmenter
        The model; once `prepare` is through, fitted to this image.
    key : str
        Identifies the input and everything that decides its instances.
    shape : (T, C, Z, Y, X)
    channels : tuple of str
    voxel : (z, y, x) or None
    remarks : tuple of str
        What the image says of itself; see `cellseg.pipeline.image.Image`. It is not
        opened again to be asked, as it may be gone by then.
    level : int
        Level of the pyramid that is read, 0 the full resolution; all else is in px of this level.
    reduced : (y, x)
        Px of the full resolution in a px of that level.
    diameter_px : float or None
        Typical diameter of its cells, if it is known.
    zoom : float
        Magnification at which the model sees that level; see `cellseg.models.scale`.
    overlap : "resolve" or "keep"
        What is done where two of the model's cells claim a pixel.
    stated_place : Place or None
        Where its results lie, if not in a folder of their own.
    normalisation : Normalisation or None
        Set by `prepare`.
    background : Background or None
        What the image shows where nothing is; set by `prepare`. None where it
        shows that nowhere, or where the workflow has every tile looked at.
    region : Interest or None
        Where the cells are that are kept; None for everywhere.
    """

    source: Field
    workflow: Workflow
    segmenter: Segmenter = field(repr=False)
    key: str
    shape: Shape
    channels: tuple[str, ...]
    voxel: Voxel | None = None
    remarks: tuple[str, ...] = ()
    level: int = 0
    reduced: tuple[float, float] = (1.0, 1.0)
    diameter_px: float | None = None
    zoom: float = 1.0
    overlap: Overlap = "resolve"
    stated_place: Place | None = None
    normalisation: Normalisation | None = None
    background: Background | None = None
    region: Interest | None = None

    @property
    def name(self) -> str:
        """Name of the image in the results."""
        return self.source.name

    @property
    def place(self) -> Place:
        """Where its results lie."""
        return self.stated_place or Place.of_image(self.name)

    @property
    def image(self) -> Image:
        """The lazy image, at the level that is read."""
        return opened(self.source).at_level(self.level)

    @property
    def voxel_um(self) -> tuple[float, float, float] | None:
        """Size of a voxel (z, y, x) in um, if the workflow or the image says so."""
        side = self.workflow.pixel_size_um
        if side is None:
            return self.voxel
        return enlarged((self.voxel[0] if self.voxel else 1.0, side, side), self.reduced)

    @property
    def labels_voxel_um(self) -> Voxel | None:
        """Size of a voxel of the labels: the image's own where they lie in its group."""
        in_its_group = self.place.inside is not None or (
            self.place.plate is not None and self.workflow.output.images == "link"
        )
        return self.voxel if in_its_group else self.voxel_um

    @property
    def extent(self) -> tuple[Box, Voxel | None, tuple[float, float]]:
        """A plane, the size of its pixels, and how many px of the full resolution one is across."""
        return self.grid.plane, self.voxel_um, self.reduced

    @property
    def planes(self) -> int:
        """Number of planes, t by t and in them z by z."""
        return self.shape[0] * self.shape[2]

    @property
    def linked(self) -> bool:
        """Whether the cells of its planes are linked to 3D cells."""
        return self.shape[2] > 1 and self.workflow.link.z

    @property
    def tracked(self) -> bool:
        """Whether its cells are followed over time."""
        return self.shape[0] > 1 and self.workflow.track.enabled

    @property
    def step_px(self) -> float | None:
        """Distance of two planes in px along x and y; None if it is not known."""
        return step_px(self.voxel_um) if self.voxel and self.voxel_um else None

    @property
    def tiles(self) -> int:
        """Number of tiles of all planes that are looked at."""
        return self.planes * len(self.looked_at)

    @property
    def looked_at(self) -> Sequence[int]:
        """Positions of the tiles of each plane that are looked at: all, or those near the region.

        Cells may ask for a few more.
        """
        grid = self.grid
        if self.focus is None:
            return range(len(grid))
        return self.focus.survey(grid).tiles(reach_px(grid))

    @property
    def focus(self) -> Interest | None:
        """The region that the work on each plane is restricted to, None for all of it.

        Where planes are linked, that a 3D cell's centre lies in the region is known only then.
        """
        return None if self.linked else self.region

    @property
    def survey(self) -> Survey | None:
        """What of the region of interest lies in which tile, if there is one."""
        return None if self.region is None else self.region.survey(self.grid)

    @property
    def tiling(self) -> Tiling:
        """The workflow's tiling, in px of this image."""
        return self.workflow.tiling.at_zoom(self.zoom)

    @property
    def grid(self) -> Grid:
        """The tiles of each plane."""
        height, width = self.shape[3:]
        tiling = self.tiling
        return Grid(Box(0, 0, height, width), tiling.size, tiling.halo)

    @property
    def inputs(self) -> Inputs:
        """What the model sees of the image's channels."""
        entries, source = self.workflow.model.channels, self.source
        return Inputs.of(entries, self.channels, self._said, source.numbering)

    @property
    def _said(self) -> str:
        return self.source.name if self.source.parts else str(self.source.path)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of what is measured: the image's channels, and the planes made of them."""
        return self._measured.names

    @property
    def _measured(self) -> Measured:
        about = self.inputs, self.channels, self._said, self.source.numbering
        return Measured.of(self.workflow.measure.channels, *about)

    @property
    def tops(self) -> tuple[float, ...]:
        """The highest grey level that each of these can have, by the type of the image."""
        return self._measured.tops(self.image.dtype)

    def plane(self, number: int) -> tuple[int, int]:
        """Return t and z of a plane."""
        return divmod(number, self.shape[2])

    def prepare(self) -> Scene:
        """Decide, once for the whole image, its normalisation, background and what the model asks.

        The samples follow from the image alone, never from the tiling.
        """
        sample: list[NDArray[np.generic]] = []
        for number in sorted({0, self.planes // 2, self.planes - 1}):
            t, z = self.plane(number)
            for window in sample_windows(self.image, self.inputs.channels, t, z):
                self.check_finite(window, self.inputs.channels, "a sample of the image")
                sample.append(self.inputs.see(window))
        normalisation = decide(self.workflow.normalise, sample)
        segmenter = self.segmenter
        model = segmenter
        if isinstance(segmenter, NamedModel):
            model = segmenter.loaded()
        if isinstance(model, FitsImage):
            segmenter = model.fit_image([normalisation.apply(window) for window in sample])
        background = None
        if self.workflow.tiling.skip_background:
            background = find_background(sample, side_at(self.zoom))
        return replace(
            self, normalisation=normalisation, segmenter=segmenter, background=background
        )

    def segment(self, plane: int, window: Box) -> Instances:
        """Return what there is in a window of a plane: `look`, or nothing where it is background.

        Raises
        ------
        CellsegError
            If the image cannot be read, or holds NaN or infinite pixels there.
        """
        found = self.look(plane, window)
        return Instances.empty() if found is None else found

    def look(self, plane: int, window: Box) -> Instances | None:
        """Return what the model finds in a window of a plane, boxes in px of the plane.

        Masks share no pixel, unless overlap is kept. What it finds on nothing but
        background is left out, as it is where the model is not asked.

        Returns
        -------
        Instances or None
            None where all of the window is background: the model was not asked.

        Raises
        ------
        CellsegError
            If the image cannot be read, or holds NaN or infinite pixels there.
        """
        pixels, signal = self._shown(plane, window)
        if signal is not None and not signal.any():
            return None
        found = checked(self._asked(pixels, window), window)
        if signal is not None:
            found = on_signal(found, signal)
        found = found.disjoint() if self.overlap == "resolve" else distinct(found)
        return found.shifted(window.y0, window.x0)

    def _shown(self, plane: int, window: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return what the model sees of a window (C, h, w), and where it is not background."""
        (t, z), around = self.plane(plane), window
        if self.background is not None:
            around = window.grow(self.background.reach, self.grid.plane)
        inside = window.within(around)
        with part("read"):
            read = self.image.read(t, z, around, self.inputs.channels)
        self._check_window(read[:, *inside.slices], t, z, window)
        wide = self.inputs.see(read)
        pixels = np.ascontiguousarray(wide[:, *inside.slices])
        if self.background is None:
            return pixels, None
        with part("background"):
            return pixels, self.background.signal(wide, inside)

    def _asked(self, pixels: NDArray[Any], window: Box) -> list[Instances]:
        """Return what the model says to a window (C, h, w), not normalised."""
        assert self.normalisation is not None  # noqa: S101 - `prepare` comes first
        model = self.segmenter
        if isinstance(model, NamedModel):
            model = model.at_zoom(self.zoom)
        with part("normalise"):
            planes = [self.normalisation.apply(pixels)]
        with part("model"):
            if isinstance(model, Placed):
                return model.segment_at(planes, [(window.y0, window.x0)])
            return model.segment(planes)

    def read(self, t: int, z: int, window: Box) -> NDArray[np.float32]:
        """Return a window of a plane as the model gets it: its channels, normalised.

        Raises
        ------
        CellsegError
            If the image cannot be read, or holds NaN or infinite pixels there.
        """
        assert self.normalisation is not None  # noqa: S101 - `prepare` comes first
        pixels = self.image.read(t, z, window, self.inputs.channels)
        self._check_window(pixels, t, z, window)
        return self.normalisation.apply(self.inputs.see(pixels))

    def read_measured(self, t: int, z: int, window: Box) -> NDArray[Any]:
        """Return what is measured of a window of a plane, (N, h, w), as `measured` names it.

        Raises
        ------
        CellsegError
            If the image cannot be read, or holds NaN or infinite pixels there.
        """
        measured = self._measured
        if not measured.names:
            return np.zeros((0, *window.shape), np.uint8)
        pixels = self.image.read(t, z, window, measured.channels)
        where = f"t={t}, z={z}, y={window.y0}:{window.y1}, x={window.x0}:{window.x1}"
        self.check_finite(pixels, measured.channels, where)
        return measured.see(pixels)

    def _check_window(self, pixels: NDArray[Any], t: int, z: int, window: Box) -> None:
        where = f"t={t}, z={z}, y={window.y0}:{window.y1}, x={window.x0}:{window.x1}"
        self.check_finite(pixels, self.inputs.channels, where)

    def check_finite(self, pixels: NDArray[Any], channels: Sequence[int], where: str) -> None:
        """Refuse NaN and infinite pixels (C, H, W), and say where they are.

        Raises
        ------
        CellsegError
            If there are any.
        """
        if pixels.dtype.kind != "f":
            return
        bad = ~np.isfinite(pixels)
        if bad.any():
            channel, y, x = (int(axis[0]) for axis in bad.nonzero())
            name = self.channels[channels[channel]]
            raise CellsegError(
                f"{self.image.source}: {np.count_nonzero(bad)} NaN or infinite pixels in {where},"
                f" the first in channel {name} at y={y}, x={x} from there."
                " Replace them before the run."
            )
