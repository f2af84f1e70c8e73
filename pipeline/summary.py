"""Summary tables: a row an image, a row a well, and how the control wells compare.

The tables of the images are read a few columns at a time, so that what is held is at most
`VALUES` values, or one column of one well where it has more cells than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.controls import Well, control_table, nullable, scores
from cellseg.pipeline.file_names import natural
from cellseg.pipeline.gate_settings import Controls
from cellseg.pipeline.gates import Gate, values_of
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.place import Place
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.results import Results
from cellseg.pipeline.statistics import STATISTICS, statistics_of
from cellseg.pipeline.table import measurements

__all__ = ["Summary", "summarise"]

VALUES = 2**22
"""Values that are held at a time, if one column of one well is not more."""
COUNTED = ("area_px", "volume_px", "overlap_px")
QUALITY = {"background_level": "background", "saturated": "saturated", "focus": "focus"}
Columns = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What a run comes to.

    Parameters
    ----------
    images : Table
    wells : Table or None
        None where no image has a well.
    controls : Table or None
        None where no control wells are named.
    gates : dict
        What ``gates.json`` says.
    """

    images: pa.Table
    wells: pa.Table | None
    controls: pa.Table | None
    gates: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Tally:
    """What is counted of an image, or of several together.

    Parameters
    ----------
    cells : int
    covered_px : float
        Pixels under cells, of all planes; one that two cells share counts once.
    imaged_px : float
        Pixels of all planes, or of the region of interest in them; NaN where not known.
    area_mm2 : float
        Area in which cells are counted; NaN where the pixel size is not known.
    known, positive : int64 (G,)
        Of each gate: the cells that have a value, and those of them that pass.
    """

    cells: int
    covered_px: float
    imaged_px: float
    area_mm2: float
    known: NDArray[np.int64]
    positive: NDArray[np.int64]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cells + other.cells,
            self.covered_px + other.covered_px,
            self.imaged_px + other.imaged_px,
            self.area_mm2 + other.area_mm2,
            self.known + other.known,
            self.positive + other.positive,
        )

    @property
    def shares(self) -> list[float]:
        """Confluence, cells per mm2, and the share of positive cells of each gate."""
        covered = min(_ratio(self.covered_px, self.imaged_px), 1.0)
        gated = map(_ratio, self.positive.tolist(), self.known.tolist())
        return [covered, _ratio(self.cells, self.area_mm2), *gated]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


def summarise(
    results: Results, reports: Sequence[ImageReport], gates: Sequence[Gate], controls: Controls
) -> Summary:
    """Return the tables of the images that are done, of their wells and of the controls.

    Parameters
    ----------
    results : Results
        With the table of each image.
    reports : sequence of ImageReport
        The images, all done, in the order of their rows.
    gates : sequence of Gate
    controls : Controls
    """
    tables = [results.at(report.place or Place.of_image(report.name)) for report in reports]
    names = _measured(tables)
    tallies = [_count(*pair, gates) for pair in zip(reports, tables, strict=True)]
    wells, alone = _wells(reports)
    groups = [*wells.values(), *alone]
    of_images, of_groups = _statistics(groups, tables, tallies, names)
    images = _of_images(reports) | _columns(tallies, of_images, gates, names)
    together = [_sum([tallies[place] for place in places]) for places in wells.values()]
    columns = _columns(together, of_groups[: len(wells)], gates, names)
    about = _of_wells(list(wells), [len(places) for places in wells.values()])
    compared = ["cells", "confluence", *(f"{gate.name}_fraction" for gate in gates)]
    compared += [f"{name}_mean" for name in names]
    total = _sum([_nothing(gates), *tallies])
    counts = zip(gates, total.known.tolist(), total.positive.tolist(), strict=True)
    values = {name: columns[name] for name in compared}
    return Summary(
        pa.table(images | _qualities(reports)),
        pa.table(about | columns | scores(list(wells), values, controls)) if wells else None,
        control_table(list(wells), values, controls),
        {gate.name: gate.document(cells, positive) for gate, cells, positive in counts},
    )


def _wells(reports: Sequence[ImageReport]) -> tuple[dict[Well, list[int]], list[list[int]]]:
    """Return which images each well has, in order of plate, row and column; and those of none."""
    wells: dict[Well, list[int]] = {}
    alone = []
    for place, report in enumerate(reports):
        if report.well is None:
            alone.append([place])
        else:
            wells.setdefault((report.plate, report.well), []).append(place)
    return {well: wells[well] for well in sorted(wells, key=_position)}, alone


def _statistics(
    groups: Sequence[Sequence[int]],
    tables: Sequence[ImageResults],
    tallies: Sequence[Tally],
    names: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the statistics of each image and of each group of them, (N, names, statistics)."""
    shape = len(names), len(STATISTICS)
    of_images = np.full((len(tables), *shape), np.nan)
    of_groups = np.full((len(groups), *shape), np.nan)
    for number, places in enumerate(groups):
        for some, values, owner in _batches(places, tables, tallies, names):
            for place, mine in owner.items():
                of_images[place, some] = statistics_of(values[:, mine])
            of_groups[number, some] = (
                of_images[places[0], some] if len(places) == 1 else statistics_of(values)
            )
    return of_images, of_groups


def _measured(tables: Sequence[ImageResults]) -> list[str]:
    """Return the measurements that any of the images has, in order."""
    return list(dict.fromkeys(n for table in tables for n in measurements(table.cells_schema())))


def _position(well: Well) -> tuple[Any, ...]:
    """Return what wells are ordered by: plate, row, column."""
    found = re.fullmatch(r"([A-Z]+)(\d+)", well[1])
    row, column = (found[1], int(found[2])) if found else (well[1], 0)
    return natural(well[0] or ""), len(row), row, column


def _nothing(gates: Sequence[Gate]) -> Tally:
    return Tally(0, 0.0, 0.0, 0.0, *np.zeros((2, len(gates)), np.int64))


def _sum(tallies: Sequence[Tally]) -> Tally:
    total, *others = tallies
    for tally in others:
        total = total + tally
    return total


def _count(report: ImageReport, table: ImageResults, gates: Sequence[Gate]) -> Tally:
    """Count the cells of an image, a group of rows at a time."""
    cells, covered, solid = 0, 0.0, False
    known, positive = np.zeros((2, len(gates)), np.int64)
    wanted = dict.fromkeys([*COUNTED, *(gate.rule.column for gate in gates)])
    for rows in table.cell_groups(list(wanted)):
        area, volume, shared = (values_of(rows, name) for name in COUNTED)
        solid |= bool(np.isfinite(volume).any())
        # Of a pixel under two cells each counts a half.
        covered += float(np.sum(np.where(np.isnan(volume), area, volume) - shared / 2))
        cells += len(rows)
        for number, gate in enumerate(gates):
            passed, there = gate.passed(values_of(rows, gate.rule.column))
            known[number] += np.count_nonzero(there)
            positive[number] += np.count_nonzero(passed)
    return Tally(cells, covered, *_imaged(report, solid=solid), known, positive)


def _imaged(report: ImageReport, *, solid: bool) -> tuple[float, float]:
    """Return the pixels of all planes, and the area in mm2 that cells are counted in.

    Cells of a plane are counted in all of them, 3D cells once for each time point.
    """
    if report.shape is None:
        return np.nan, np.nan
    times, _, depth, height, width = report.shape
    plane = height * width if report.region is None else report.region["area_px"]
    um2 = np.nan if report.pixel_um is None else report.pixel_um[0] * report.pixel_um[1]
    counted = times * (1 if solid else depth)
    return float(plane * times * depth), plane * um2 / 1e6 * counted


def _batches(
    places: Sequence[int],
    tables: Sequence[ImageResults],
    tallies: Sequence[Tally],
    names: Sequence[str],
) -> Iterator[tuple[slice, NDArray[np.float64], dict[int, slice]]]:
    """Yield some columns of some images together, float64 (K, N), and which image has which."""
    ends = np.cumsum([0, *(tallies[place].cells for place in places)]).tolist()
    owner = {place: slice(*ends[n : n + 2]) for n, place in enumerate(places)}
    step = max(VALUES // max(ends[-1], 1), 1)
    for first in range(0, len(names) if ends[-1] else 0, step):
        some = slice(first, first + step)
        values = np.full((len(names[some]), ends[-1]), np.nan)
        for place, mine in owner.items():
            _read(tables[place], names[some], values[:, mine])
        yield some, values, owner


def _read(table: ImageResults, names: Sequence[str], out: NDArray[np.float64]) -> None:
    """Read columns of an image's table into `out` (K, N)."""
    first = 0
    for rows in table.cell_groups(names):
        for number, name in enumerate(names):
            out[number, first : first + len(rows)] = values_of(rows, name)
        first += len(rows)


def _columns(
    tallies: Sequence[Tally],
    found: NDArray[np.float64],
    gates: Sequence[Gate],
    names: Sequence[str],
) -> Columns:
    """Return the columns that images and wells both have."""
    shares = ["confluence", "cells_per_mm2", *(f"{gate.name}_fraction" for gate in gates)]
    rows = np.array([tally.shares for tally in tallies], float).reshape(len(tallies), len(shares))
    columns: Columns = {"cells": pa.array([tally.cells for tally in tallies], pa.int64())}
    columns |= {name: nullable(rows[:, n]) for n, name in enumerate(shares)}
    for number, name in enumerate(names):
        for place, statistic in enumerate(STATISTICS):
            columns[f"{name}_{statistic}"] = nullable(found[:, number, place])
    return columns


def _of_images(reports: Sequence[ImageReport]) -> Columns:
    words = {"image": "name", "plate": "plate", "well": "well", "site": "site"}
    return {
        column: pa.array([getattr(report, name) for report in reports], pa.string())
        for column, name in words.items()
    }


def _of_wells(wells: Sequence[Well], images: Sequence[int]) -> Columns:
    return {
        "plate": pa.array([plate for plate, _ in wells], pa.string()),
        "well": pa.array([well for _, well in wells], pa.string()),
        "images": pa.array(images, pa.int64()),
    }


def _qualities(reports: Sequence[ImageReport]) -> Columns:
    """Return the columns of the quality of each channel, and the flags of all."""
    known: list[Mapping[str, Any]] = [report.quality or {} for report in reports]
    columns: Columns = {}
    for channel in dict.fromkeys(name for each in known for name in each):
        for column, word in QUALITY.items():
            values = [each.get(channel, {}).get(word) for each in known]
            columns[f"{column}_{channel}"] = pa.array(values, pa.float64())
    flags = [
        ", ".join(f"{channel} {flag}" for channel in each for flag in each[channel]["flags"])
        for each in known
    ]
    texts = [text if each else None for text, each in zip(flags, known, strict=True)]
    return columns | {"flags": pa.array(texts, pa.string())}
