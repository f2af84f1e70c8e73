"""What a segmenter answers for one window: checked, and freed of what no cell can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline.tiles import Box


def on_signal(found: Instances, signal: NDArray[np.bool_]) -> Instances:
    """Return the objects that have a pixel where there is more than background."""
    if signal.all():
        return found
    places = found.places(signal.shape[1])
    on = np.zeros(len(found), bool)
    on[places.crop[signal.ravel()[places.id]]] = True
    return found if on.all() else found.take(np.flatnonzero(on))


def distinct(found: Instances) -> Instances:
    """Return the objects without doubles: of equal masks that of the highest score, then the first.

    Two cells are not told apart by anything if not by their pixels.
    """
    best: dict[tuple[bytes, bytes], int] = {}
    for index in np.argsort(-found.scores, kind="stable").tolist():
        best.setdefault((found.boxes[index].tobytes(), found.masks[index].tobytes()), index)
    return found if len(best) == len(found) else found.take(sorted(best.values()))


def checked(found: Sequence[Instances], window: Box) -> Instances:
    """Return the instances of one window with tight boxes inside it and at least a pixel each.

    Raises
    ------
    CellsegError
        If a segmenter does not keep its contract.
    """
    if len(found) != 1:
        raise CellsegError(f"The segmenter returned {len(found)} results for one plane, not 1.")
    (instances,) = found
    if not np.isfinite(instances.scores).all():
        raise CellsegError("The segmenter returned a score that is not a number from 0 to 1.")
    (height, width), boxes = window.shape, instances.boxes
    inside = bool((boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (height, width)).all())
    if inside and all(mask.dtype == bool for mask in instances.masks) and instances.tight:
        return instances
    return Instances.stack(list(_clipped(instances, height, width)))


def _clipped(
    instances: Instances, height: int, width: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.bool_], float, int]]:
    """Yield the objects as far as they lie in a window."""
    for index, (y0, x0, y1, x1) in enumerate(instances.boxes.tolist()):
        top, left = max(-y0, 0), max(-x0, 0)
        mask = instances.masks[index].astype(bool, copy=False)
        mask = mask[top : max(min(y1, height) - y0, 0), left : max(min(x1, width) - x0, 0)]
        described = float(instances.scores[index]), int(instances.classes[index])
        yield (y0 + top, x0 + left), mask, *described
