"""Which region belongs to an image: the box or the file that a workflow means for it, checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import READERS
from cellseg.pipeline.interest import Interest, Outlines, state_of
from cellseg.pipeline.plate import Field
from cellseg.pipeline.region_settings import Region
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel

IMAGE = "{image}"
ENDINGS = {
    "geojson": (".geojson", ".json", ".geojson.zip"),
    "mask": (*READERS, ".ome.tif", ".ome.tiff", ".ome.zarr"),
}


def find_interest(
    settings: Region,
    source: Field,
    plane: Box,
    voxel_um: Voxel | None,
    reduced: tuple[float, float] = (1.0, 1.0),
) -> Interest | None:
    """Return the region of interest of an image, None for all of it.

    Parameters
    ----------
    settings : Region
        With absolute paths.
    source : Field
        The image.
    plane : Box
    voxel_um : (z, y, x) or None
        Of the plane's pixels.
    reduced : (y, x)
        How many px of the full resolution, in which regions count, one of the plane is across.

    Raises
    ------
    CellsegError
        If there is none and must be one, or it is damaged, makes no sense, or lies
        outside the image.
    """
    kind = settings.kind
    if kind is None:
        return None
    if kind == "box_px" and settings.box_px is not None:
        (y0, x0, y1, x1), (y, x) = settings.box_px, reduced
        found = Interest(plane, "box", (y0 / y, x0 / x, y1 / y, x1 / x))
    elif kind == "box_um" and settings.box_um is not None:
        found = Interest(plane, "box", _to_px(settings.box_um, source, voxel_um))
    else:
        path = _find_file(str(settings.geojson or settings.mask), kind, source)
        if path is None:
            return _without_file(settings, kind, source, plane)
        classes = settings.classes
        found = Interest(plane, kind, None, path, classes, state_of(path, kind), reduced)
    _check_inside(found, settings)
    return found


def _to_px(
    sides: tuple[float, float, float, float], source: Field, voxel_um: Voxel | None
) -> tuple[float, float, float, float]:
    if voxel_um is None:
        raise CellsegError(
            f"{source.path}: [region] box_um needs the size of a pixel, which the image does not"
            " say. Set pixel_size_um, or give box_px."
        )
    (_, y, x), (y0, x0, y1, x1) = voxel_um, sides
    return y0 / y, x0 / x, y1 / y, x1 / x


def _find_file(entry: str, kind: str, source: Field) -> Path | None:
    """Return the file of an image's region, or None if it has none.

    Raises
    ------
    CellsegError
        If what is given for all images is not there.
    """
    if IMAGE in entry:
        path = Path(entry.replace(IMAGE, source.name))
        return path if path.exists() else None
    path = Path(entry)
    if path.is_file() or (path.is_dir() and _is_image(path)):
        return path
    if not path.is_dir():
        raise CellsegError(
            f"{path}: no such file or folder. [region] {kind} is a file, a folder, or a path"
            f" with {IMAGE} in it."
        )
    names = (source.name, source.path.name, source.path.stem)
    tries = (path / f"{name}{ending}" for name in names for ending in ENDINGS[kind])
    return next((each for each in tries if each.exists()), None)


def check_found(settings: Region, found: Sequence[Interest | None]) -> None:
    """Refuse region files of which no image has one, whatever is said of missing ones.

    Raises
    ------
    CellsegError
        If there is none: the path must be wrong.
    """
    if settings.geojson is None and settings.mask is None:
        return
    if found and not any(each is not None and each.kind != "none" for each in found):
        raise CellsegError(
            f"[region] {settings.kind} = {settings.geojson or settings.mask}: no image has such a"
            f" file. Check the path; {IMAGE} in it stands for an image's name."
        )


def _is_image(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def _without_file(settings: Region, kind: str, source: Field, plane: Box) -> Interest | None:
    """Return the region of an image without a file, as the workflow has it."""
    if settings.missing != "error":
        return None if settings.missing == "all" else Interest(plane, "none")
    where = str(settings.geojson or settings.mask).replace(IMAGE, source.name)
    raise CellsegError(
        f"{source.path}: no region file: looked for {where}"
        + ("" if IMAGE in str(settings.geojson or settings.mask) else f"/{source.name}.*")
        + f', by [region] {kind}. Add it, or set [region] missing = "all" (all of such an'
        ' image) or "none" (nothing of it).'
    )


def _check_inside(interest: Interest, settings: Region) -> None:
    """Refuse a region that lies outside the image altogether."""
    area, (height, width) = interest.area(), interest.plane.shape
    if not isinstance(area, Outlines):
        return
    boxes = [Box(*sides) for sides in area.bounds.tolist()]
    if any(box.intersect(interest.plane) for box in boxes):
        return
    box = boxes[0]
    spans = f"y {box.y0} to {box.y1} and x {box.x0} to {box.x1}"
    which = (
        f"{interest.path}: all features lie" if interest.path else f"[region] {settings.kind} lies"
    )
    first = "the first one spans" if len(boxes) > 1 else "it spans"
    raise CellsegError(
        f"{which} outside the image of {height} x {width} px: {first} {spans} px. Coordinates"
        " count px of the full resolution from the upper left corner."
    )
