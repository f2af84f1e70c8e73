"""Plate index: what the files that a microscope writes beside its images say of a plate.

Harmony (Opera Phenix, Operetta) writes ``Index.idx.xml``, CellVoyager ``MeasurementDetail.mrf`` and
``MeasurementData.mlf``; read here as Bio-Formats' OperettaReader and CV7000Reader do. Which file
is which well and field the file names say too, so only the rest is taken from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

from cellseg.pipeline.voxel import to_um

__all__ = ["PlateIndex", "read_index"]

RECORDS = 5000
"""Images of an index that are looked at: one field has all channels and planes, and an index of a
screen has hundreds of megabytes."""
Attributes = dict[str, str]


@dataclass(frozen=True)
class PlateIndex:
    """What an index says of a plate.

    Parameters
    ----------
    path : Path or None
        The index.
    plate : str or None
        Name of the plate.
    channels : dict of str to str
        Names of channels, by what file names call them.
    spacing_um : (z, y, x)
        Size of a pixel and distance of planes in um, each None if unknown.
    note : str or None
        What the user should know.
    """

    path: Path
    plate: str | None
    channels: dict[str, str]
    spacing_um: tuple[float | None, float | None, float | None]
    note: str | None = None


def read_index(folder: Path, preset: str) -> PlateIndex | None:
    """Return what the index of a plate's folder says, or None where there is none.

    An index that cannot be read costs no image: a note says so.

    Parameters
    ----------
    folder : Path
    preset : str
        Which microscope; see `cellseg.pipeline.file_names.PRESETS`.
    """
    if preset not in INDEXES:
        return None
    names, read = INDEXES[preset]
    places = [folder / name for name in names]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    try:
        return read(path)
    except (ElementTree.ParseError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        note = f"{path}: cannot be read ({reason}): channels are named as the files are"
        return PlateIndex(path, None, {}, (None, None, None), note)


def _elements(path: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    """Yield tag and element as they end, without namespaces; what was seen is let go."""
    above: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(path, ("start", "end")):  # noqa: S314
        if event == "start":
            above.append(element)
            continue
        above.pop()
        yield _bare(element.tag), element
        if _bare(element.tag) in ("Image", "MeasurementRecord"):
            above[-1].remove(element)


def _bare(name: str) -> str:
    return name.rpartition("}")[2]


def _harmony(path: Path) -> PlateIndex:
    plate, channels = None, dict[str, str]()
    y = x = None
    heights: dict[str, float] = {}
    images = 0
    for tag, element in _elements(path):
        if tag == "PlateID" or (tag == "Name" and plate is None):
            plate = (element.text or "").strip() or plate
        if tag not in ("Image", "Entry"):
            continue
        said = {_bare(child.tag): (child.text or "").strip() for child in element}
        units = {_bare(child.tag): child.get("Unit", "m") for child in element}
        said |= {_bare(key): value for key, value in element.attrib.items()}
        if said.get("ChannelID", "").isdecimal() and said.get("ChannelName"):
            channels.setdefault(said["ChannelID"], said["ChannelName"])
        x = x or to_um(said.get("ImageResolutionX"), units.get("ImageResolutionX"))
        y = y or to_um(said.get("ImageResolutionY"), units.get("ImageResolutionY"))
        if tag == "Image":
            images += 1
            if "PlaneID" in said and "PositionZ" in said:
                height = float(said["PositionZ"]) * (to_um(1.0, units["PositionZ"]) or 1.0)
                heights.setdefault(said["PlaneID"], height)
        if images >= RECORDS:
            break
    # Harmony writes ch1, or ch01 since 5.2.
    named = {f"ch{int(key):0{width}d}": name for key, name in channels.items() for width in (1, 2)}
    return PlateIndex(path, plate, _told_apart(named, channels), (_step(heights), y, x))


def _cellvoyager(path: Path) -> PlateIndex:
    y = x = None
    for tag, element in _elements(path):
        if tag == "MeasurementChannel":
            said = {_bare(key): value for key, value in element.attrib.items()}
            x = x or to_um(said.get("HorizontalPixelDimension"), "um")
            y = y or to_um(said.get("VerticalPixelDimension"), "um") or x
    return PlateIndex(path, None, {}, (_step(_heights(path.with_name(DATA))), y, x))


def _heights(path: Path) -> dict[str, float]:
    """Return the height of each plane of one field and channel, in um."""
    heights: dict[str, float] = {}
    if not path.is_file():
        return heights
    records = (element for tag, element in _elements(path) if tag == "MeasurementRecord")
    first = None
    for record in islice(records, RECORDS):
        said = {_bare(key): value for key, value in record.attrib.items()}
        place = tuple(said.get(key) for key in ("Row", "Column", "FieldIndex", "TimePoint", "Ch"))
        first = first or place
        if place == first and said.get("Type", "IMG") == "IMG" and "Z" in said:
            heights.setdefault(said["ZIndex"], float(said["Z"]))
    return heights


def _step(heights: dict[str, float]) -> float | None:
    """Return the distance of planes."""
    steps = [abs(after - before) for before, after in pairwise(sorted(heights.values()))]
    return round(median(steps), 6) or None if steps else None


def _told_apart(named: dict[str, str], channels: dict[str, str]) -> dict[str, str]:
    """Return names by channel, none where two channels have the same."""
    return named if len(set(channels.values())) == len(channels) else {}


DATA = "MeasurementData.mlf"
HARMONY = ("Index.idx.xml", "Index.xml", "Index.ref.xml")
INDEXES: dict[str, tuple[tuple[str, ...], Callable[[Path], PlateIndex]]] = {
    "harmony": ((*HARMONY, *(f"Images/{name}" for name in HARMONY)), _harmony),
    "cellvoyager": (("MeasurementDetail.mrf",), _cellvoyager),
}
"""Files of an index below a plate's folder, and how each is read."""
