"""Annotations as other programs write them, of masks that are known to the pixel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from cellseg.models.instances import Instances
from cellseg.pipeline.outline import outlines

Rings = list[list[NDArray[np.int32]]]


def parts(cells: Instances) -> Iterator[Rings]:
    """For each cell its parts, each as the ring around it and those of its holes, x and y."""
    yield from outlines(cells.boxes[:, :2], cells.masks).polygons()


def labelme(path: Path, shapes: list[dict[str, Any]], shape: tuple[int, int], image: str) -> Path:
    """A file of labelme, with the pixels that nobody should decode."""
    document = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"flags": {}, "group_id": None, "label": "cell"} | each for each in shapes],
        "imagePath": image,
        "imageData": "no PNG",
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }
    path.write_text(json.dumps(document))
    return path


def labelme_of(path: Path, cells: Instances, shape: tuple[int, int], image: str) -> Path:
    """Cells as polygons; the parts of one share its group. Holes are left out."""
    shapes = [
        {"points": part[0].tolist(), "shape_type": "polygon", "group_id": number}
        for number, each in enumerate(parts(cells))
        for part in each
    ]
    return labelme(path, shapes, shape, image)


def geojson_of(path: Path, cells: Instances) -> Path:
    """Cells as QuPath writes detections."""
    features = []
    for each in parts(cells):
        rings = [[[*ring.tolist(), ring[0].tolist()] for ring in part] for part in each]
        geometry = {"type": "MultiPolygon", "coordinates": rings}
        if len(rings) == 1:
            geometry = {"type": "Polygon", "coordinates": rings[0]}
        properties = {"objectType": "detection", "classification": {"name": "Tumor"}}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def rois_of(path: Path, cells: Instances) -> Path:
    """Cells as ImageJ's ROI Manager saves them."""
    with zipfile.ZipFile(path, "w") as packed:
        for number, each in enumerate(parts(cells)):
            packed.writestr(f"{number:04}.roi", roi_of([r for part in each for r in part]))
    return path


def roi_of(rings: list[NDArray[np.int32]]) -> bytes:
    """A traced selection, or a composite of several rings."""
    roi = ImagejRoi.frompoints(rings[0])
    roi.roitype = ROI_TYPE.TRACED
    if len(rings) > 1:
        path = [np.insert(ring.astype(np.float32), 0, 1, axis=1) for ring in rings]
        for each in path:
            each[0, 0] = 0
        roi = ImagejRoi(roitype=ROI_TYPE.RECT)
        roi.multi_coordinates = np.concatenate([np.append(each.ravel(), 4) for each in path])
        roi.multi_coordinates = roi.multi_coordinates.astype(np.float32)
        roi.shape_roi_size = len(roi.multi_coordinates)
    return bytes(roi.tobytes())
