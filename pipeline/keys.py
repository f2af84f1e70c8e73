"""What identifies the outcome of each stage of an image, so that a run knows what it may reuse."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cellseg.pipeline.segment import Scene


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits that identify `parts`."""

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json")

    text = json.dumps(parts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Keys:
    """What identifies the outcome of each stage for one image."""

    tiles: str
    labels: str
    cells: str

    @classmethod
    def of(cls, scene: Scene, labels: str | None = None) -> Keys:
        """Derive each stage's key from the one before; with `labels`, from those that are there."""
        workflow = scene.workflow
        region = () if scene.region is None else (scene.region.identity,)
        labels = labels or digest(scene.key, workflow.stitch, *region, *_linking(scene))
        source = scene.source
        named = source.name, source.plate, source.well, source.site, scene.channels
        cells = digest(labels, workflow.measure, scene.voxel_um, *named)
        return cls(scene.key, labels, cells)


def _linking(scene: Scene) -> list[Any]:
    """Return what labels and tracks follow from, beside the cells of each plane."""
    workflow = scene.workflow
    parts: list[Any] = [workflow.link, scene.step_px] if scene.linked else []
    # Tracks are found with the labels, from masks that are gone once these are painted.
    return [*parts, "track", workflow.track, scene.voxel_um] if scene.tracked else parts
