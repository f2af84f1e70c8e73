"""How large the cells are, as the workflow says or a few images show, and how a model sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.models.scale import LARGEST, SMALLEST, estimate_diameter
from cellseg.models.settings import DetectorSettings
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box

IMAGES = 4
"""Images that "auto" looks at: a second and later ones make up for one without cells."""
SIDE_PX = 512
"""Side of the window it looks at in each, in px."""
ACROSS = 8
"""Windows to choose from, at most, along each side of an image."""


@dataclass(frozen=True)
class Estimated:
    """What `[model] diameter_px = "auto"` came to.

    Parameters
    ----------
    px : float or None
        Typical diameter of the cells, to 0.1; None if none were found.
    images : tuple of str
        Names of the images that were looked at.
    """

    px: float | None
    images: tuple[str, ...]


def given_px(scene: Scene) -> float | None:
    """Return the diameter that the workflow gives for the cells of an image, in px as it is read.

    What a workflow gives in px is in px of the full resolution. None where it gives none, or one
    that is still to be estimated.

    Raises
    ------
    CellsegError
        If it is in um and the image's pixel size is unknown.
    """
    settings = scene.workflow.model
    if not isinstance(settings, DetectorSettings):
        return None
    if settings.diameter_um is None:
        px = settings.diameter_px
        return px / math.sqrt(math.prod(scene.reduced)) if isinstance(px, float) else None
    if scene.voxel_um is None:
        raise CellsegError(
            f"{scene.source.path}: does not say how large its pixels are, which [model]"
            f" diameter_um = {settings.diameter_um:g} needs. Set pixel_size_um, or diameter_px."
        )
    return settings.diameter_um / math.sqrt(scene.voxel_um[1] * scene.voxel_um[2])


def estimate_from(scenes: Sequence[Scene]) -> Estimated:
    """Estimate the diameter of the cells from one window of each of up to 4 images.

    Which ones follows from the images alone, never from the tiling or the
    workers. An image that cannot be read is passed over.

    Parameters
    ----------
    scenes : sequence of Scene
        The images, in the order of the workflow; their model knows a diameter.
    """
    names, windows = [], []
    for scene in _spread(scenes):
        window = _try_telling_window(scene)
        if window is not None:
            names.append(scene.name)
            windows.append(window)
        if len(names) == IMAGES:
            break
    px = estimate_diameter(_model(scenes[0]), windows)
    return Estimated(None if px is None else round(px, 1), tuple(names))


def _spread(scenes: Sequence[Scene]) -> Iterator[Scene]:
    """Yield the images evenly spread over all of them, then the others."""
    first = sorted({(2 * i + 1) * len(scenes) // (2 * IMAGES) for i in range(IMAGES)})
    yield from (scenes[i] for i in first)
    yield from (scene for i, scene in enumerate(scenes) if i not in first)


def _model(scene: Scene) -> Any:
    return scene.segmenter.loaded() if isinstance(scene.segmenter, NamedModel) else scene.segmenter


def _try_telling_window(scene: Scene) -> NDArray[np.float32] | None:
    try:
        return _telling_window(scene.prepare())
    # Whatever it is, it is said when the turn of that image comes.
    except Exception:
        return None


def _telling_window(scene: Scene) -> NDArray[np.float32]:
    """Return the window (C, h, w) of an image's middle plane that differs most from background."""
    times, _, depth, height, width = scene.shape
    boxes = [
        Box(y, x, min(y + SIDE_PX, height), min(x + SIDE_PX, width))
        for y in _starts(height)
        for x in _starts(width)
    ]
    return max((scene.read(times // 2, depth // 2, box) for box in boxes), key=_contrast)


def _starts(length: int) -> list[int]:
    """Return where windows begin that are spread evenly over a length."""
    count = min(-(-length // SIDE_PX), ACROSS)
    return [max(length - SIDE_PX, 0) * i // max(count - 1, 1) for i in range(count)]


def _contrast(window: NDArray[np.float32]) -> float:
    """Return the mean distance from the median: a few hot pixels count for less than in squares."""
    return float(np.abs(window - np.median(window)).mean(dtype=np.float64))


@dataclass(frozen=True)
class Diameter:
    """How large the cells of a run are taken to be, and how its model sees them.

    Parameters
    ----------
    settings : DetectorSettings
        They ask for it.
    trained_px : float
        Diameter of the cells that the model was trained on.
    scenes : tuple of Scene
        With their magnifications.
    estimated : Estimated or None
        What "auto" came to; None before.
    """

    settings: DetectorSettings
    trained_px: float
    scenes: tuple[Scene, ...]
    estimated: Estimated | None = None

    @property
    def zooms(self) -> list[float]:
        """The different magnifications, smallest first."""
        return sorted({scene.zoom for scene in self.scenes})

    @property
    def text(self) -> str:
        """All of it in words."""
        settings, estimated = self.settings, self.estimated
        if settings.diameter_um is not None:
            return f"cells are {settings.diameter_um:g} um across; {self._seen}"
        if settings.diameter_px != "auto":
            return f"cells are {settings.diameter_px:g} px across; {self._seen}"
        if estimated is None:
            return 'cells: diameter_px = "auto", estimated when the run starts'
        count = f"{len(estimated.images)} image{'s' * (len(estimated.images) != 1)}"
        if estimated.px is None:
            return f"cells: none to estimate a diameter from in {count}; {self._seen}"
        return f"cells are about {estimated.px:g} px across, estimated from {count}; {self._seen}"

    @property
    def _seen(self) -> str:
        least, most = self.zooms[0], self.zooms[-1]
        if least == most == 1:
            return "seen as they are"
        span = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        return f"seen at {span} times their size"

    @property
    def document(self) -> dict[str, Any]:
        """What ``run.json`` says of it; the magnification where all images have the same."""
        settings, estimated = self.settings, self.estimated
        told: dict[str, Any] = {"px": settings.diameter_px}
        if settings.diameter_um is not None:
            told = {"um": settings.diameter_um}
        if estimated is not None:
            told = {"px": estimated.px, "estimated_from": list(estimated.images)}
        return told | ({"zoom": self.zooms[0]} if len(self.zooms) == 1 else {})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of it."""
        found = []
        estimated = self.estimated
        if estimated is not None and estimated.px is None and estimated.images:
            found.append(
                f'diameter_px = "auto": no cells were found in {", ".join(estimated.images)};'
                " all images are seen as they are. If there are cells, give diameter_px a number"
            )
        return (*found, *self._limited())

    def _limited(self) -> Iterator[str]:
        """Yield a line if cells stay larger or smaller than those the model was trained on."""
        sized = [(scene, scene.diameter_px) for scene in self.scenes if scene.diameter_px]
        far = [one for one in sized if not SMALLEST <= self.trained_px / one[1] <= LARGEST]
        if far:
            scene, px = far[0]
            others = f" and {len(far) - 1} more" * (len(far) > 1)
            yield (
                f"{scene.name}{others}: cells {px:.3g} px across are seen at {scene.zoom:g} times"
                f" their size, the {'most' if scene.zoom == LARGEST else 'least'} there is, and not"
                f" at the {self.trained_px:g} px that the model was trained on"
            )
