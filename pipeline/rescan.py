"""The stages that take cells from label images on disk, corrected or not, in place of tiles.

A cell of which label, box and size are those of the table it had keeps its score, class, seam
and track; another one is ``edited``: no model said how sure it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.candidate import SEAMS
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.corrections import Corrections
from cellseg.pipeline.job import Job
from cellseg.pipeline.order import RUN, runs
from cellseg.pipeline.overlaps import Overlaps
from cellseg.pipeline.pyramid import shards
from cellseg.pipeline.scan import LAYER, Scan, T, X, Y, Z
from cellseg.pipeline.table import BOX
from cellseg.pipeline.touched import SCANNED, read_touched, scan_of_rows
from cellseg.pipeline.track import Tracks
from cellseg.pipeline.volumes import Volumes

KEPT = ("label", *BOX, "z0_px", "z1_px", "area_px", "volume_px", "class", "score", "seam")
TRACKED = ("track", "parent")


def scan_region(job: Job, unit: int) -> None:
    """Find what the label images hold in a region, of several planes if they are small."""
    labels, found = job.here.labels, []
    for plane, region in job.regions_in(unit):
        t, z = job.scene.plane(plane)
        for part in shards(region):
            layers = [labels.read(t, z, part, layer=layer) for layer in range(labels.layers)]
            found.append(Scan.of(layers, part, t, z))
    job.work.write_scan(unit, Scan.merged(found))


def order_scanned(job: Job) -> None:
    """Write the cells that were scanned in runs, in the order of their labels."""
    job.work.restart("measure")
    scene, count = job.scene, 0
    for number, found in enumerate(runs(_found(job), Found.none())):
        labels = found.scan.labels.astype(np.uint32)
        job.work.write_ids(number, labels)
        job.work.write_overlaps(number, found.overlaps)
        if scene.linked:
            job.work.write_volumes(number, found.volumes)
        else:
            job.work.write_run(number, found.cells(scene.shape[2]))
        if scene.tracked:
            job.work.write_tracks(number, found.tracks)
        count = number + 1
    job.work.write_links({"runs": count, "links": job.here.facts_or_none().get("links")})
    job.work.write_runs(count)


@dataclass(frozen=True, eq=False)
class Found:
    """Some cells of label images, in the order of their labels.

    Parameters
    ----------
    scan : Scan
        Of these alone; its pairs and what is shared are not used.
    overlaps : Overlaps
    classes : uint8 (N,), scores : float32 (N,), seam : uint8 (N,)
        NaN is the score of a cell that no model saw so.
    track, parent : uint32 (N,)
        0 for none.
    """

    scan: Scan
    overlaps: Overlaps
    classes: NDArray[np.uint8]
    scores: NDArray[np.float32]
    seam: NDArray[np.uint8]
    track: NDArray[np.uint32]
    parent: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.scan)

    @classmethod
    def none(cls) -> Found:
        """Return no cells."""
        return cls.edited(Scan.none())

    @classmethod
    def edited(cls, scan: Scan) -> Found:
        """Return cells of which nothing else is known."""
        count = len(scan)
        return cls(
            scan,
            _overlaps(scan),
            np.ones(count, np.uint8),
            np.full(count, np.nan, np.float32),
            np.full(count, SEAMS.index("edited"), np.uint8),
            np.zeros(count, np.uint32),
            np.zeros(count, np.uint32),
        )

    @staticmethod
    def concatenate(parts: Sequence[Found]) -> Found:
        """Return the cells of all parts, each part of higher labels than the one before."""
        return Found(
            Scan.merged([part.scan for part in parts]),
            Overlaps.concatenate([part.overlaps for part in parts]),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS),
        )

    def take(self, chosen: slice) -> Found:
        """Return consecutive cells."""
        labels = self.scan.labels[chosen]
        first, last = (int(labels[0]), int(labels[-1]) + 1) if len(labels) else (0, 0)
        columns = (getattr(self, name)[chosen] for name in _COLUMNS)
        return Found(self.scan.between(first, last), self.overlaps.take(chosen), *columns)

    def cells(self, depth: int) -> Cells:
        """Return them as cells of planes; their masks are in no tile."""
        scan, unknown = self.scan, np.zeros(len(self), np.int32)
        return Cells(
            plane=scan.low[:, T] * depth + scan.low[:, Z],
            tile=unknown,
            index=unknown,
            boxes=np.concatenate([scan.low[:, Y:], scan.high[:, Y:]], axis=1),
            centres=scan.centres[:, 1:],
            areas=scan.sizes,
            scores=self.scores,
            classes=self.classes,
            seam=self.seam,
            digests=np.zeros(len(self), np.uint64),
        )

    @property
    def volumes(self) -> Volumes:
        """The same as 3D cells."""
        scan = self.scan
        return Volumes(
            t=scan.low[:, T],
            boxes=np.concatenate([scan.low[:, Z:], scan.high[:, Z:]], axis=1),
            centres=scan.centres,
            sizes=scan.sizes,
            scores=self.scores,
            classes=self.classes,
            seam=self.seam,
        )

    @property
    def tracks(self) -> Tracks:
        """Their tracks."""
        return Tracks(self.track, self.parent)


_COLUMNS = ("classes", "scores", "seam", "track", "parent")


def _found(job: Job) -> Iterator[Found]:
    """Yield all cells, some range of labels at a time."""
    for first, last, scan in _touched(job) if job.in_part else _scanned(job):
        _check(job, scan)
        found = Found.edited(scan.between(first, last))
        names = (*KEPT, *TRACKED) if job.scene.tracked else KEPT
        table = job.here.rows_of(first, last, names)
        rows = {name: table[name].to_numpy() for name in table.column_names}
        if job.corrections is not None:
            rows = job.corrections.rows_before(rows, first, last)
        yield _corrected(_as_before(found, rows, linked=job.scene.linked), job.corrections)


def _scanned(job: Job) -> Iterator[tuple[int, int, Scan]]:
    """Yield ranges of labels, and what the label images hold of each."""
    units = range(job.units("scan"))
    ranges = [np.unique(job.work.read_scanned_labels(unit) // RUN) for unit in units]
    for number in np.unique(np.concatenate(ranges)).tolist():
        first, last = number * RUN, (number + 1) * RUN
        yield (
            first,
            last,
            Scan.merged(job.work.read_scan(unit).between(first, last) for unit in units),
        )


def _touched(job: Job) -> Iterator[tuple[int, int, Scan]]:
    """Yield the same where edits have touched a few of the cells, and rows say what others are."""
    touched = read_touched(job)
    highest = max(job.here.highest_label(), int(touched.scan.labels.max(initial=0)))
    for first in range(0, highest + 1, RUN):
        last = first + RUN
        rows = job.here.rows_of(first, last, SCANNED)
        kept = rows.filter(pa.array(~np.isin(rows["label"].to_numpy(), touched.looked_for)))
        known = scan_of_rows(kept, linked=job.scene.linked)
        yield first, last, Scan.merged([known, touched.scan.between(first, last)])


def _check(job: Job, scan: Scan) -> None:
    """Refuse a label that lies where one cell cannot be."""
    for column, what in ((T, "time points"), (LAYER, "label layers"), (Z, "planes")):
        apart = scan.high[:, column] - scan.low[:, column] > 1
        if column == Z and job.scene.linked:
            continue
        if apart.any():
            label = int(scan.labels[apart][0])
            low, high = (int(side[apart][0, column]) for side in (scan.low, scan.high))
            raise CellsegError(
                f"{job.here.labels.path}: label {label} lies in {what} {low} and {high - 1};"
                " a cell has one label and lies in one of them. Give one of the two a label of"
                " its own."
            )


def _as_before(found: Found, before: Mapping[str, NDArray[Any]], *, linked: bool) -> Found:
    """Return cells with what an earlier table says of those that are as they were."""
    scan = found.scan
    place = np.searchsorted(before["label"], scan.labels)
    known = place < len(before["label"])
    known[known] = before["label"][place[known]] == scan.labels[known]
    own, old = np.flatnonzero(known), place[known]
    same = np.ones(len(own), bool)
    sides = [(Y, "y"), (X, "x"), *([(Z, "z")] if linked else [])]
    for column, axis in sides:
        same &= before[f"{axis}0_px"][old] == scan.low[own, column]
        same &= before[f"{axis}1_px"][old] == scan.high[own, column]
    same &= before["volume_px" if linked else "area_px"][old] == scan.sizes[own]
    found.classes[own] = before["class"][old]
    found.scores[own[same]] = before["score"][old[same]]
    found.seam[own[same]] = [SEAMS.index(word) for word in before["seam"][old[same]]]
    for name in TRACKED:
        if name in before:
            getattr(found, name)[own] = np.nan_to_num(before[name][old].astype(float))
    return found


def _corrected(found: Found, corrections: Corrections | None) -> Found:
    """Return cells with what a person has said of them."""
    if corrections is not None:
        edited = corrections.edited_among(found.scan.labels)
        found.scores[edited] = np.nan
        found.seam[edited] = SEAMS.index("edited")
        corrections.set_classes(found.scan.labels, found.classes)
    return found


def _overlaps(scan: Scan) -> Overlaps:
    """Return how labels overlap, each with any label of the image."""
    pairs = np.concatenate([scan.pairs, scan.pairs[:, ::-1]])
    pairs = pairs[np.isin(pairs[:, 0], scan.labels)]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    covered = np.zeros(len(scan), np.int64)
    mine = np.isin(scan.sharing, scan.labels)
    place = np.searchsorted(scan.labels, scan.sharing[mine])
    np.add.at(covered, place, scan.covered[mine])
    counts = np.bincount(np.searchsorted(scan.labels, pairs[:, 0]), minlength=len(scan))
    return Overlaps(
        layer=scan.low[:, LAYER].astype(np.uint16),
        covered=covered,
        counts=counts.astype(np.int64),
        others=pairs[:, 1].astype(np.uint32),
    )
