"""Where two segmentations of the same images differ, cell by cell, and how.

Label images are read window by window, so memory grows with the cells and not with the pixels.
Of two cells that share pixels the IoU counts; see `cellseg.pipeline.score`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import replace_file
from cellseg.pipeline.image import Image
from cellseg.pipeline.masks import MaskSource, find_masks
from cellseg.pipeline.results import Results
from cellseg.pipeline.scan import Scan, T, X, Y, Z
from cellseg.pipeline.score import Overlaps
from cellseg.pipeline.table_files import write_table
from cellseg.pipeline.tiles import Box, Grid

WINDOW_PX = 2048
KINDS = ("split", "merged", "outline", "only_a", "only_b")
SAME_IOU = 0.75
"""Two cells agree from this IoU on."""
LEAST_IOU = 0.1
"""Two cells that share less are not the same cell drawn otherwise."""
INSIDE, PIECE = 0.5, 0.1
"""A cell is a piece of another if more than half of it lies in that, and makes up a tenth of it."""
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("t", pa.int32()),
        ("z", pa.int32()),
        *((name, pa.float64()) for name in ("y_px", "x_px")),
        *((name, pa.int32()) for name in ("y0_px", "x0_px", "y1_px", "x1_px")),
        ("kind", pa.string()),
        ("iou", pa.float64()),
        ("label_a", pa.uint32()),
        ("label_b", pa.uint32()),
        ("others", pa.string()),
    ]
)
"""Where: centre and box, of both cells together. `iou` is that of `label_a` and `label_b`, null
where there is one alone; of a split or merged cell that of its largest piece, and `others` are the
labels of the other pieces, with spaces between."""
Row = dict[str, Any]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Differences:
    """How two segmentations differ.

    Parameters
    ----------
    table : Table
        Of `SCHEMA`, by image and place.
    same : int
        Pairs of cells that agree.
    unpaired : tuple of str
        Images that only one side has.
    """

    table: pa.Table
    same: int
    unpaired: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind, `same` first."""
        found = Counter(self.table["kind"].to_pylist())
        return {"same": self.same} | {kind: found[kind] for kind in KINDS}

    @property
    def text(self) -> str:
        """The counts in words."""
        said = {
            "same": f"cells agree (IoU {SAME_IOU} or more)",
            "split": "cells of A are several in B",
            "merged": "cells of B are several in A",
            "outline": "cells have another outline",
            "only_a": "cells are only in A",
            "only_b": "cells are only in B",
        }
        return "\n".join(f"  {count:8} {said[kind]}" for kind, count in self.counts.items())

    def write(self, path: Path) -> None:
        """Write the table, as text where the name ends in ``.csv``, else as Parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".csv":
            replace_file(path, lambda partial: pyarrow.csv.write_csv(self.table, partial))
        else:
            write_table(path, [self.table], SCHEMA)


class Comparison:
    """The comparison of two results; `steps` does it, and `result` is what came of it.

    Parameters
    ----------
    one, other : Path
        What `cellseg.pipeline.masks.find_masks` reads, results folders above all: A and B.
        Images belong together by name.

    Raises
    ------
    CellsegError
        If no image is in both.
    """

    def __init__(self, one: Path, other: Path) -> None:
        self.sides = find_masks(one), find_masks(other)
        names = [set(side) for side in self.sides]
        self.names = sorted(names[0] & names[1])
        self.unpaired = tuple(sorted(names[0] ^ names[1]))
        if not self.names:
            raise CellsegError(
                f"{one}, {other}: no image is in both. Give two results of the same images."
            )
        self.rows: list[Row] = []
        self.same = 0

    def steps(self) -> Iterator[str]:
        """Compare image by image; yield the name of each."""
        for name in self.names:
            rows, same = compare(*(side[name] for side in self.sides))
            self.rows += [{"image": name} | row for row in rows]
            self.same += same
            yield name

    def result(self) -> Differences:
        """Return what was found so far."""
        table = pa.Table.from_pylist(self.rows, schema=SCHEMA)
        return Differences(table, self.same, self.unpaired)


def differences_path(results: Path) -> Path:
    """Return where the differences to a results folder are looked for by the review."""
    return Results(results).differences_path


def compare(one: MaskSource, other: MaskSource) -> tuple[list[Row], int]:
    """Return the differences in one image, and how many pairs of cells agree.

    Raises
    ------
    CellsegError
        If the label images differ in shape.
    """
    scans, overlaps = _overlaps(_Side.of(one), _Side.of(other))
    return _rows(scans, overlaps)


@dataclass(frozen=True)
class _Side:
    """The label images of one side, read window by window."""

    path: Path
    shape: tuple[int, int, int, int]
    read: Callable[[int, int, Box], list[NDArray[Any]]]

    @classmethod
    def of(cls, source: MaskSource) -> _Side:
        masks = source.read(source.planes())
        if not masks.layers:
            layers, _ = masks.label_layers()
            height, width = layers.shape[1:]
            return cls(
                source.path, (1, 1, height, width), lambda _t, _z, box: [*layers[:, *box.slices]]
            )
        times, _, depth, height, width = masks.layers[0].shape
        return cls(
            source.path,
            (times, depth, height, width),
            lambda t, z, box: [_labels(layer, t, z, box) for layer in masks.layers],
        )


def _labels(layer: Image, t: int, z: int, box: Box) -> NDArray[Any]:
    (labels,) = layer.read(t, z, box, [0])
    if labels.dtype.kind not in "iu":
        raise CellsegError(
            f"{layer.source}: pixels are {labels.dtype}, label images need integers."
        )
    return np.asarray(labels)


def _overlaps(one: _Side, other: _Side) -> tuple[tuple[Scan, Scan], Overlaps]:
    """Read both sides once; return what lies where on each, and what is shared."""
    if one.shape != other.shape:
        raise CellsegError(
            f"{one.path}, {other.path}: shapes {one.shape} and {other.shape} (T, Z, Y, X) differ."
            " Give results of the same images, read at one level."
        )
    times, depth, height, width = one.shape
    grid = Grid(Box(0, 0, height, width), WINDOW_PX, 0)
    scans: tuple[list[Scan], list[Scan]] = [], []
    pairs = [np.zeros((0, 3), np.int64)]
    for t, z in np.ndindex(times, depth):
        for position in range(len(grid)):
            window = grid.core(position)
            layers = [side.read(t, z, window) for side in (one, other)]
            for found, own in zip(scans, layers, strict=True):
                found.append(Scan.of(own, window, t, z))
            pairs += [_pairs(a, b) for a in layers[0] for b in layers[1]]
    whole = Scan.merged(scans[0]), Scan.merged(scans[1])
    return whole, _joined(np.concatenate(pairs), *whole)


def _pairs(a: NDArray[Any], b: NDArray[Any]) -> Integers:
    """Return the labels that share pixels and how many, int64 (P, 3)."""
    both = (a > 0) & (b > 0)
    keys, counts = np.unique(
        (a[both].astype(np.int64) << 32) + b[both].astype(np.int64), return_counts=True
    )
    return np.stack([keys >> 32, keys & 0xFFFFFFFF, counts], axis=1)


def _joined(pairs: Integers, one: Scan, other: Scan) -> Overlaps:
    """Return the pairs of all windows, by the rank of their labels."""
    keys, at = np.unique((pairs[:, 0] << 32) + pairs[:, 1], return_inverse=True)
    shared = np.zeros(len(keys), np.int64)
    np.add.at(shared, at, pairs[:, 2])
    rows = np.searchsorted(one.labels, keys >> 32) + 1
    columns = np.searchsorted(other.labels, keys & 0xFFFFFFFF) + 1
    own, true = np.append(0, one.sizes), np.append(0, other.sizes)
    iou = shared / (own[rows] + true[columns] - shared)
    return Overlaps(rows, columns, iou, own, true)


def _rows(scans: tuple[Scan, Scan], overlaps: Overlaps) -> tuple[list[Row], int]:
    """Return the differences by place, and how many pairs agree."""
    rows, columns = overlaps.rows, overlaps.columns
    shared = _shared(overlaps)
    split = _pieces(rows, columns, shared, overlaps.own_areas, overlaps.true_areas)
    merged = _pieces(columns, rows, shared, overlaps.true_areas, overlaps.own_areas)
    found = [_group(scans, "split", overlaps, pairs, 0) for pairs in split.values()]
    found += [_group(scans, "merged", overlaps, pairs, 1) for pairs in merged.values()]
    told = np.concatenate([np.zeros(0, np.intp), *split.values(), *merged.values()]).astype(int)
    taken = np.isin(rows, rows[told]) | np.isin(columns, columns[told])
    left = replace(overlaps, rows=rows[~taken], columns=columns[~taken], iou=overlaps.iou[~taken])
    pairs = left.matched(LEAST_IOU)
    differ = pairs[left.iou[pairs] < SAME_IOU]
    found += [_row(scans, "outline", left, pair) for pair in differ.tolist()]
    for side, (kind, own, scan) in enumerate(
        (("only_a", rows, scans[0]), ("only_b", columns, scans[1]))
    ):
        partners = (left.rows, left.columns)[side][pairs]
        alone = np.setdiff1d(np.arange(1, len(scan) + 1), [*own[told], *partners])
        found += [_alone(scan, kind, rank - 1, side) for rank in alone.tolist()]
    order = ("t", "z", "y_px", "x_px")
    return sorted(found, key=lambda row: [row[name] for name in order]), len(pairs) - len(differ)


def _shared(overlaps: Overlaps) -> NDArray[np.float64]:
    """Return how many pixels each pair shares."""
    both = overlaps.own_areas[overlaps.rows] + overlaps.true_areas[overlaps.columns]
    return np.asarray(overlaps.iou * both / (1 + overlaps.iou))


def _pieces(
    owners: Integers, others: Integers, shared: NDArray[np.float64], areas: Integers, own: Integers
) -> Mapping[int, NDArray[np.intp]]:
    """Return, for each cell that is several on the other side, the pairs with its pieces."""
    inside = (shared > INSIDE * own[others]) & (shared >= PIECE * areas[owners])
    counts = np.bincount(owners[inside], minlength=len(areas))
    pairs = np.flatnonzero(inside & (counts[owners] > 1))
    pairs = pairs[np.argsort(owners[pairs], kind="stable")]
    cells, first = np.unique(owners[pairs], return_index=True)
    return dict(zip(cells.tolist(), np.split(pairs, first[1:]), strict=False))


def _group(
    scans: tuple[Scan, Scan], kind: str, overlaps: Overlaps, pairs: NDArray[np.intp], owner: int
) -> Row:
    """Return the row of a cell and its pieces: of `owner`, 0 for A, the cell is."""
    best = int(pairs[overlaps.iou[pairs].argmax()])
    ranks = (overlaps.rows, overlaps.columns)[1 - owner][pairs[pairs != best]]
    others = scans[1 - owner].labels[ranks - 1].tolist()
    return _row(scans, kind, overlaps, best) | {"others": " ".join(map(str, others))}


def _row(scans: tuple[Scan, Scan], kind: str, overlaps: Overlaps, pair: int) -> Row:
    """Return the row of a pair."""
    ranks = int(overlaps.rows[pair]) - 1, int(overlaps.columns[pair]) - 1
    low = np.min([scan.low[rank] for scan, rank in zip(scans, ranks, strict=True)], axis=0)
    high = np.max([scan.high[rank] for scan, rank in zip(scans, ranks, strict=True)], axis=0)
    side = int(kind == "merged")
    where = _where(low, high, _centre(scans[side], ranks[side]))
    labels = {
        name: int(scan.labels[rank])
        for name, scan, rank in zip(("label_a", "label_b"), scans, ranks, strict=True)
    }
    return where | labels | {"kind": kind, "iou": float(overlaps.iou[pair])}


def _alone(scan: Scan, kind: str, rank: int, side: int) -> Row:
    """Return the row of a cell without a partner."""
    where = _where(scan.low[rank], scan.high[rank], _centre(scan, rank))
    return where | {"kind": kind, ("label_a", "label_b")[side]: int(scan.labels[rank])}


def _centre(scan: Scan, rank: int) -> NDArray[np.float64]:
    return np.asarray(scan.sums[rank] / scan.sizes[rank])


def _where(low: NDArray[np.int32], high: NDArray[np.int32], centre: NDArray[np.float64]) -> Row:
    """Return centre, plane and box."""
    z, y, x = centre.tolist()
    return {
        "t": int(low[T]),
        "z": min(max(round(z), int(low[Z])), int(high[Z]) - 1),
        "y_px": y,
        "x_px": x,
        "y0_px": int(low[Y]),
        "x0_px": int(low[X]),
        "y1_px": int(high[Y]),
        "x1_px": int(high[X]),
    }
