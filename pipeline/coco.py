"""COCO's annotations of instances in JSON: cells as polygons or run lengths, from and to masks.

Sources: the format, https://cocodataset.org/#format-data; the string of run
lengths, `rleToString` and `rleFrString` of ``common/maskApi.c`` in
https://github.com/cocodataset/cocoapi, here written anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.pipeline.annotations import Annotations, Drawn, Shape, Skipped
from cellseg.pipeline.areas import Mask, Stencil

Corner = tuple[int, int]
MOST_CLASSES = 255
LISTS = "images", "annotations"


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file, and what is annotated in it.

    Parameters
    ----------
    where : str
        The file and the image, for messages.
    file_name : str
        As the file has it.
    shape : (H, W)
        In px.
    annotations : tuple of mapping
        As the file has them, in its order; not those of crowds.
    classes : mapping
        Of a ``category_id``, the class from 1 on.
    names : mapping
        Of a ``category_id``, what it is called.
    crowds : int
        Annotations of crowds.
    """

    where: str
    file_name: str
    shape: tuple[int, int]
    annotations: tuple[Mapping[str, Any], ...]
    classes: Mapping[int, int]
    names: Mapping[int, str] = field(default_factory=dict)
    crowds: int = 0

    def instances(self) -> Instances:
        """Return the cells in the order of the file; one without a pixel is left out.

        Raises
        ------
        CellsegError
            If a segmentation cannot be read.
        """
        found = []
        for number, annotation in enumerate(self.annotations):
            where = f"{self.where}, annotation {annotation.get('id', number)}"
            corner, mask = mask_of(annotation.get("segmentation"), self.shape, where)
            score = annotation.get("score")
            class_ = self.classes.get(annotation.get("category_id", 0), 1)
            found.append((corner, mask, 1.0 if score is None else float(score), class_))
        return Instances.stack(found)

    def over(self, _shape: tuple[int, int]) -> CocoImage:
        """Return the same: the file says how large the image is."""
        return self

    def drawn(self, classes: Sequence[str] = ()) -> Drawn:
        """Return the cells, and what is none; see `Annotations.drawn`."""
        found, skipped = [], []
        if self.crowds:
            skipped.append(Skipped(self.where, f"{self.crowds} crowds, which are no single cells"))
        for number, annotation in enumerate(self.annotations):
            where = f"{self.where}, annotation {annotation.get('id', number)}"
            try:
                stencil = Stencil(*mask_of(annotation.get("segmentation"), self.shape, ""))
            except CellsegError as error:
                skipped.append(Skipped(where, str(error).removeprefix(": ").rstrip(".")))
                continue
            name = self.names.get(annotation.get("category_id", 0), "")
            found.append(Shape(where, stencil, name))
        every = Annotations(self.where, self.file_name, self.shape, tuple(found), tuple(skipped))
        return every.drawn(classes)


def read_coco(path: Path) -> list[CocoImage]:
    """Return the images of a COCO file; memory grows with the file.

    Classes are the ranks, from 1 on, of the ids of the ``categories``, or of
    those in use where none are listed. Annotations with ``iscrowd`` mark
    regions, not cells, and are left out; so are annotations of an image that
    the file does not list.

    Raises
    ------
    CellsegError
        If it is no COCO file, or an image has no size.
    """
    document = _document(path)
    annotated: dict[Any, list[Mapping[str, Any]]] = {}
    crowds = Counter[Any]()
    for annotation in document["annotations"]:
        if annotation.get("iscrowd"):
            crowds[annotation.get("image_id")] += 1
        else:
            annotated.setdefault(annotation.get("image_id"), []).append(annotation)
    categories = document.get("categories") or ()
    classes = _classes(path, categories, annotated)
    names = {each["id"]: str(each.get("name", "")) for each in categories if "id" in each}
    return [
        replace(
            _image(path, image, annotated.get(image.get("id"), ()), classes),
            names=names,
            crowds=crowds[image.get("id")],
        )
        for image in document["images"]
    ]


def read_unlisted(path: Path) -> tuple[Skipped, ...]:
    """Return what a COCO file annotates in images that it does not list."""
    document = _document(path)
    listed = [image.get("id") for image in document["images"]]
    lost = Counter(
        each.get("image_id")
        for each in document["annotations"]
        if each.get("image_id") not in listed
    )
    return tuple(
        Skipped(f"{path}: image_id {number}", f"{count} annotations, and no such image is listed")
        for number, count in lost.items()
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CellsegError(f"{path}: not JSON ({error}).") from error
    if not isinstance(document, dict) or not all(map(_entries, map(document.get, LISTS))):
        raise CellsegError(
            f'{path}: no COCO file of instances; it needs "images" and "annotations" with'
            ' a "segmentation" each.'
        )
    return document


def _entries(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _classes(
    path: Path,
    categories: Sequence[Mapping[str, Any]],
    annotated: Mapping[Any, Sequence[Mapping[str, Any]]],
) -> dict[int, int]:
    """Return the class of each category."""
    listed = {category["id"] for category in categories if "id" in category}
    used = {
        one["category_id"] for each in annotated.values() for one in each if "category_id" in one
    }
    if listed and used - listed:
        raise CellsegError(f"{path}: category {min(used - listed)} is in use and not listed.")
    known = sorted(listed or used)
    if len(known) > MOST_CLASSES:
        raise CellsegError(f"{path}: {len(known)} categories; up to {MOST_CLASSES} are possible.")
    return {category: rank for rank, category in enumerate(known, 1)}


def _image(
    path: Path,
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    classes: Mapping[int, int],
) -> CocoImage:
    name = str(image.get("file_name", image.get("id")))
    try:
        shape = int(image["height"]), int(image["width"])
    except (KeyError, TypeError, ValueError):
        raise CellsegError(f"{path}: image {name} has no height and width in px.") from None
    return CocoImage(f"{path}: image {name}", name, shape, tuple(annotations), classes)


def mask_of(segmentation: object, shape: tuple[int, int], where: str) -> tuple[Corner, Mask]:
    """Return the first row and column of a segmentation's window, and its mask there.

    Parameters
    ----------
    segmentation : list or mapping
        Polygons, each ``x, y, x, y, ...`` in px from the corner of the image's
        first pixel: they cover what any of them covers (COCO has no holes), a
        pixel where its centre lies inside. Or run lengths: ``size`` and
        ``counts``, as a list or as COCO's string.
    shape : (H, W)
        Of the image; what reaches beyond is cut.
    where : str
        For messages.

    Raises
    ------
    CellsegError
        If it is neither, or does not fit the image.
    """
    if isinstance(segmentation, list):
        return _filled(segmentation, shape, where)
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise CellsegError(
            f'{where}: its segmentation is neither a list of polygons nor "size" and "counts".'
        )
    counts = segmentation["counts"]
    try:
        counts = parse_counts(counts) if isinstance(counts, str) else [int(c) for c in counts]
    except (IndexError, TypeError, ValueError):
        raise CellsegError(f"{where}: its run lengths are damaged.") from None
    size = tuple(segmentation["size"])
    if size != shape or min(counts, default=0) < 0 or sum(counts) != shape[0] * shape[1]:
        raise CellsegError(
            f"{where}: run lengths of {sum(counts)} px and size {size} do not fit the image's"
            f" {shape}."
        )
    return _unrolled(counts, shape[0])


def _filled(polygons: list[Any], shape: tuple[int, int], where: str) -> tuple[Corner, Mask]:
    """Return the window and mask of some polygons."""
    from skimage.draw import polygon

    rings = [_ring(each, where) for each in polygons]
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return (0, 0), np.zeros((1, 1), bool)
    points = np.concatenate(rings)
    low = np.clip(np.floor(points.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low, shape).astype(int)
    mask = np.zeros(tuple(high - low), bool)
    for ring in rings:
        # The centre of the first pixel lies at one half in COCO, and at zero here.
        y, x = (ring - low - 0.5).T
        mask[polygon(y, x, mask.shape)] = True  # type: ignore[no-untyped-call]
    return (int(low[0]), int(low[1])), mask


def _ring(flat: object, where: str) -> NDArray[np.float64]:
    """Return the corners (N, 2) of a polygon as y, x."""
    try:
        ring = np.asarray(flat, np.float64).reshape(-1, 2)[:, ::-1]
    except (TypeError, ValueError):
        raise CellsegError(f"{where}: a polygon is not x, y, x, y, ... in px.") from None
    if not np.isfinite(ring).all():
        raise CellsegError(f"{where}: a polygon has a corner that is no number.")
    return ring


def _unrolled(counts: Sequence[int], height: int) -> tuple[Corner, Mask]:
    """Return the window and mask of run lengths down the columns of an image, gaps first."""
    ends = np.cumsum(np.asarray(counts, np.int64))
    starts, stops = ends[0:-1:2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(stops):
        return (0, 0), np.zeros((1, 1), bool)
    (first, top), (last, bottom) = (np.divmod(ends, height) for ends in (starts, stops - 1))
    left, right = int(first[0]), int(last[-1]) + 1
    # Rows can be left out only where no run goes on in the next column.
    inside = bool((first == last).all())
    low, high = (int(top.min()), int(bottom.max()) + 1) if inside else (0, height)
    change = np.zeros((right - left) * (high - low) + 1, np.int8)
    change[(first - left) * (high - low) + top - low] += 1
    change[(last - left) * (high - low) + bottom + 1 - low] -= 1
    columns = np.cumsum(change[:-1], dtype=np.int8).astype(bool).reshape(-1, high - low)
    return (low, left), columns.T


def rle_of(corner: Corner, mask: Mask, shape: tuple[int, int]) -> dict[str, Any]:
    """Return a mask as COCO's compressed run lengths, ``size`` and ``counts``.

    Parameters
    ----------
    corner : (y0, x0)
        Of the mask's first pixel in an image of `shape`.
    mask : bool (h, w)
    shape : (H, W)
    """
    height, width = shape
    # With a gap over and under every column, runs begin and end inside it.
    apart = np.pad(mask.T, ((0, 0), (1, 1))).view(np.int8)
    column, row = np.nonzero(np.diff(apart, axis=1))
    flat = (column + corner[1]) * height + row + corner[0]
    # Where a run reaches the bottom and the next begins at the top, they are one.
    joined = np.flatnonzero(flat[1:-1:2] == flat[2::2]) * 2 + 1
    flat = np.delete(flat, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], flat, [height * width]])).tolist()
    if counts[-1] == 0:
        counts.pop()
    return {"size": [height, width], "counts": format_counts(counts)}


def format_counts(counts: Iterable[int]) -> str:
    """Return run lengths as COCO's string.

    Of each from the fourth on, its difference to the one two before is written:
    in groups of five bits, the lowest first, each a character from ``0`` on. The
    sixth bit says that another group follows; the highest bit of the last group
    is the sign.
    """
    lengths = list(counts)
    text = []
    for index, length in enumerate(lengths):
        left = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            group, left = left & 31, left >> 5
            more = left != (-1 if group & 16 else 0)
            text.append(chr(48 + group + 32 * more))
    return "".join(text)


def parse_counts(text: str) -> list[int]:
    """Return the run lengths of COCO's string; see `format_counts`.

    Raises
    ------
    ValueError, IndexError
        If it is none, or cut off.
    """
    lengths: list[int] = []
    at = 0
    while at < len(text):
        length, bits, more = 0, 0, True
        while more:
            group = ord(text[at]) - 48
            if not 0 <= group < 64:
                raise ValueError(text[at])
            more = group >= 32
            length |= (group & 31) << bits
            at, bits = at + 1, bits + 5
            if not more and group & 16:
                length -= 1 << bits
        lengths.append(length + lengths[-2] if len(lengths) > 2 else length)
    return lengths
