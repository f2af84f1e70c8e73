"""COCO: the cells of a results folder as annotations of instances, in one file of JSON.

Of an image it needs, at a time, the masks of a few thousand cells and the labels around some of
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cellseg.pipeline.coco import rle_of
from cellseg.pipeline.exported import ExportedImage, ExportedPlane
from cellseg.pipeline.files import whole


def write_coco(images: Sequence[ExportedImage], path: Path) -> Iterator[str]:
    """Write one COCO file; yield the name of each image that is in it.

    A plane is an image there. Each cell has its run lengths (compressed), box,
    area, class as ``category_id``, and, beside the format, ``score`` and ``label``.
    """
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        planes = [(image, t, z) for image in images for t, z in image.planes]
        ids = {(image.name, t, z): number for number, (image, t, z) in enumerate(planes, 1)}
        listed = [_coco_image(number, *plane) for number, plane in enumerate(planes, 1)]
        file.write(f'{{"images": {json.dumps(listed)},\n"annotations": [')
        most, number = 1, 0
        for image in images:
            for plane in image.cells():
                most = max(most, int(plane.cells.classes.max(initial=0)))
                at = ids[image.name, plane.t, plane.z]
                number = _write_annotations(file, image, plane, at, number)
            yield image.name
        names = ["cell"] if most == 1 else [f"class {number}" for number in range(1, most + 1)]
        categories = [{"id": rank, "name": name} for rank, name in enumerate(names, 1)]
        file.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


def _coco_image(number: int, image: ExportedImage, t: int, z: int) -> dict[str, Any]:
    _, _, height, width = image.shape
    return {"id": number, "file_name": image.plane_name(t, z), "height": height, "width": width}


def _write_annotations(
    file: IO[str], image: ExportedImage, plane: ExportedPlane, image_id: int, number: int
) -> int:
    """Append some cells; return the number of the last."""
    cells, areas = plane.cells, plane.cells.areas().tolist()
    _, _, height, width = image.shape
    for i, (label, (y0, x0, y1, x1)) in enumerate(
        zip(plane.labels.tolist(), cells.boxes.tolist(), strict=True)
    ):
        number += 1
        annotation = {
            "id": number,
            "image_id": image_id,
            "category_id": int(cells.classes[i]),
            "segmentation": rle_of((y0, x0), cells.masks[i], (height, width)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": areas[i],
            "iscrowd": 0,
            "score": float(cells.scores[i]),
            "label": label,
        }
        file.write(f"{',' * (number > 1)}\n{json.dumps(annotation)}")
    return number
