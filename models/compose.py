"""Images composed of real cells that overlap, with the full mask of each: to learn overlap from.

Copy-paste of instances (Ghiasi et al., "Simple Copy-Paste is a Strong Data
Augmentation Method for Instance Segmentation", CVPR 2021), but light adds up as
in fluorescence or is absorbed (Beer and Lambert): of two cells, both stay visible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.models.arrange import Arrangement, Placed, arrange, visible
from cellseg.models.augment import mild
from cellseg.models.blend import (
    Drawn,
    absorbed,
    fluorescence,
    sum_of_density,
    sum_of_light,
    transmission,
)
from cellseg.models.compose_settings import ComposeSettings
from cellseg.models.cut import CellLibrary, cut_cells
from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers, to_layers
from cellseg.models.normalise import decide
from cellseg.models.pose import pose
from cellseg.models.settings import Percentile

__all__ = ["CellLibrary", "Composed", "compose", "cut_cells"]

FloatImage = NDArray[np.float32]
Random = np.random.Generator

LEAST_PIXELS = 4
"""A sliver of a cell at the crop's border with fewer pixels teaches nothing."""
KINDS = 12
"""Fewest different cells a crop is made of; images with fewer share theirs."""
CASTS = 6
"""Images tried to find one whose cells are about as large as those of a base."""
LEAST_CELLS = 4
"""Fewest cells to add."""
LEAST_DIAMETER = 6.0
"""Px; what is made smaller is no cell any more."""
LEAST_CONTRAST = 0.1
"""Cells added to a base are at least so much brighter than its background."""
BLACK = -0.3
"""No light at all, on the normalised scale of an image with dark cells, whose 0 are the cells."""


@dataclass(frozen=True, eq=False)
class Composed:
    """An image and the cells in it, which may overlap.

    Parameters
    ----------
    image : float32 (C, side, side)
        Normalised as images are for the network.
    labels : int32 (L, side, side)
        Labels 1..N, each whole in one layer.
    classes : uint8 (N + 1,)
        The class of each label; that of 0 is 0.
    """

    image: FloatImage
    labels: NDArray[np.int32]
    classes: NDArray[np.uint8]


def compose(
    library: CellLibrary,
    side: int,
    random: Random,
    settings: ComposeSettings,
    base: Composed | None = None,
) -> Composed:
    """Compose an image of cells that overlap.

    Parameters
    ----------
    library : CellLibrary
    side : int
        Of the square image, in px.
    random : numpy Generator
        The same state gives the same bytes.
    settings : ComposeSettings
    base : Composed, optional
        A real crop of that side: its cells stay, and others are added beside
        and onto them, by light or by absorption as the base's own cells have it.
        Its labels may have gaps; in the result they come first, in their order.

    Raises
    ------
    CellsegError
        If the library has no cells, or the base another shape than the result.
    """
    _check(library, side, base)
    kept = Instances.empty() if base is None else from_layers(base.labels)
    members, zoom = _cast(library, kept, side, settings, random)
    chosen = random.choice(members, _count(library, members, zoom, kept, side, settings, random))
    poses = [pose(library.cells[index], zoom, settings, random) for index in chosen]
    poses = [posed for posed in poses if np.count_nonzero(posed.mask) >= LEAST_PIXELS]
    scene = Arrangement(side, settings.covered)
    for (y0, x0, _, _), mask in zip(kept.boxes.tolist(), kept.masks, strict=True):
        scene.keep(Placed(y0, x0, mask, int(np.count_nonzero(mask))))
    places = arrange(scene, [posed.mask for posed in poses], settings, random)
    drawn = [(place, poses[number]) for number, place in places]
    brightness = float(np.median(library.brightness[members]))
    if base is not None:
        image = _onto(base, drawn, brightness)
    else:
        absorbing = random.random() < settings.transmission
        image = (transmission if absorbing else fluorescence)(
            drawn, len(library.cells[0].light), side, brightness, random
        )
        image = decide(Percentile(), [image]).apply(image)
    return Composed(image, *_labelled(base, kept, drawn, side))


def _check(library: CellLibrary, side: int, base: Composed | None) -> None:
    if not len(library):
        raise CellsegError(
            "compose: the library holds no cells. Cut them from images that show whole cells."
        )
    expected = (len(library.cells[0].light), side, side)
    if base is not None and base.image.shape != expected:
        raise CellsegError(
            f"compose: a base of {base.image.shape} does not fit cells and side, {expected}."
            " Cut both from images with the same channels."
        )


def _cast(
    library: CellLibrary, kept: Instances, side: int, settings: ComposeSettings, random: Random
) -> tuple[NDArray[np.intp], float]:
    """Return the cells to choose from, of an image or a few, and their magnification."""
    sizes = library.diameters
    source = int(random.integers(len(sizes)))
    exponent = mild(random)
    zoom = float(settings.zoom[exponent > 0] ** abs(exponent))
    if len(kept):
        # Beside a base's cells, those of another size would look strange.
        wanted = float(np.median(2 * np.sqrt(kept.areas() / np.pi)))
        tried = random.integers(len(sizes), size=CASTS)
        source = int(tried[np.abs(np.log(wanted / sizes[tried])).argmin()])
        zoom = float(np.clip(wanted / sizes[source] * zoom**0.25, *settings.zoom))
    zoom = float(np.clip(zoom, LEAST_DIAMETER / sizes[source], side / 4 / sizes[source]))
    alike = np.argsort(np.abs(np.log(sizes / sizes[source])), kind="stable")
    together = np.cumsum([len(library.sources[i]) for i in alike])
    enough = int(np.searchsorted(together, KINDS)) + 1
    return np.concatenate([library.sources[i] for i in alike[:enough]]), zoom


def _count(
    library: CellLibrary,
    members: NDArray[np.intp],
    zoom: float,
    kept: Instances,
    side: int,
    settings: ComposeSettings,
    random: Random,
) -> int:
    """Return how many cells to add."""
    density = np.exp(random.uniform(*np.log(settings.density)))
    total = density * side**2 / (float(np.median(library.areas[members])) * zoom**2)
    # A base that is crowded already gets some cells all the same, or it would teach nothing new.
    return int(np.clip(total - len(kept), LEAST_CELLS + 0.3 * len(kept), settings.most_cells))


def _onto(base: Composed, drawn: Drawn, brightness: float) -> FloatImage:
    """Return the image of a base with cells added, as bright or dark as its own."""
    channels, side = base.image.shape[:2]
    inside = base.labels.any(axis=0)
    outside = base.image[:, ~inside] if not inside.all() else base.image[:, inside]
    background = np.median(outside, axis=1)
    contrast = np.ones(channels, np.float32)
    if inside.any():
        contrast = np.median(base.image[:, inside], axis=1) - background
    if contrast.mean() > 0:
        gain = max(float(contrast.mean()), LEAST_CONTRAST) / brightness
        image = base.image + np.float32(gain) * sum_of_light(drawn, channels, side)
        # Overlaps outshine all; as in a real image with them, the others come out darker for it.
        before, after = (np.percentile(each, 99.8, axis=(1, 2)) for each in (base.image, image))
        scale = np.maximum(before, 1) / np.maximum(np.maximum(before, after), 1)
        return np.asarray(image * scale[:, None, None], np.float32)
    left = np.clip((background + contrast - BLACK) / (background - BLACK), 0.05, 1)
    density = sum_of_density(drawn, side, brightness, 0.7, -np.log(left))
    return BLACK + absorbed(base.image - BLACK, density)


def _labelled(
    base: Composed | None, kept: Instances, drawn: Drawn, side: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the layers of labels of all cells, and their classes."""
    found = [
        ((y0, x0), mask, 1.0, int(class_))
        for (y0, x0, _, _), mask, class_ in zip(
            kept.boxes.tolist(), kept.masks, _classes(base), strict=True
        )
    ]
    for place, posed in drawn:
        window, part = visible(place, side)
        if np.count_nonzero(posed.mask[part]) >= LEAST_PIXELS:
            corner = window[0].start, window[1].start
            found.append((corner, posed.mask[part], 1.0, posed.class_))
    cells = Instances.stack(found)
    return to_layers(cells, (side, side)), np.append(np.uint8(0), cells.classes)


def _classes(base: Composed | None) -> NDArray[np.uint8]:
    """Return the class of each cell of a base, in the order of its labels."""
    if base is None:
        return np.zeros(0, np.uint8)
    present = np.unique(base.labels[base.labels > 0])
    return np.asarray(base.classes[present], np.uint8)
