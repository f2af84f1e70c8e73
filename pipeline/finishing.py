"""The last stages of an image: its copy, its table and its picture, put in their places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.timing import noted, part
from cellseg.pipeline.job import Job
from cellseg.pipeline.linked import clear_image, link_pixels
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.overview import overview
from cellseg.pipeline.pixel_size import area_counts, doubt_median, median_diameter_px
from cellseg.pipeline.quality import image_quality, quality_warnings
from cellseg.pipeline.region_report import region_facts, region_notes
from cellseg.pipeline.table import (
    AUDITED,
    schema,
    seam_counts,
)
from cellseg.pipeline.table_files import row_groups
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.worker import side_by_side


def frame(job: Job, _unit: int) -> None:
    """Make the arrays that take a copy of the image, in place of an earlier one."""
    job.work.restart("copy")
    clear_image(job.copied.path)
    job.copied.start(job.scene.image.dtype)
    job.copied.claim(job.image_key)
    job.work.mark("frame", 0)


def copy_regions(job: Job, unit: int) -> None:
    """Copy some regions of the image."""
    for plane, channel, region in job.copies_in(unit):
        t, z = job.scene.plane(plane)

        def read(box: Box, t: int = t, z: int = z, c: int = channel) -> NDArray[Any]:
            (pixels,) = job.scene.image.read(t, z, box, [c])
            return np.asarray(pixels)

        job.copied.copy(t, channel, z, region, read)
    job.work.mark("copy", unit)


def finish(job: Job, _unit: int) -> None:
    """Put image, labels, table and picture in their places, and remove the working files."""
    scene, here, keys = job.scene, job.here, job.keys
    if here.field is not None and not job.placed:
        if job.copying:
            about = scene.channels, scene.voxel_um, scene.name, job.image_key
            job.copied.finish(*about)
        else:
            link_pixels(scene.source.path, here.field, job.image_key)
    if here.labels.key() != keys.labels:
        times, _, depth, *_ = scene.shape
        with part("pyramid"):
            here.labels.finish(times, depth)
    here.labels.rescale(scene.labels_voxel_um)
    anew = job.again or not here.cells_done(keys.cells)
    pictured = scene.workflow.output.overview and (anew or not here.overview_path.is_file())
    paths = [job.work.rows_path(number) for number in range(job.runs or 0)]
    wanted: list[Callable[[], Any] | None] = [
        (lambda: _facts(job, paths)) if anew else None,
        (lambda: _picture(job)) if pictured else None,
    ]
    facts, picture = side_by_side(lambda make: make and make(), wanted)
    if facts is not None:
        columns = schema(scene.workflow.measure, scene.measured)
        here.overview_path.unlink(missing_ok=True)
        tables = (rows for path in paths for rows in row_groups(path))
        with part("table"):
            here.write_cells(keys.cells, keys.labels, tables, columns, facts)
    if picture is not None:
        caption = f"{here.count_cells():,} cells; {here.facts()['seams_text']}"
        with part("overview"):
            here.write_overview(picture, caption)
    job.work.clear()
    here.sweep()


@noted("overview")
def _picture(job: Job) -> NDArray[np.uint8]:
    """Return the picture of an image with its cells."""
    return overview(job.scene, job.here.labels)


@noted("facts")
def _facts(job: Job, paths: list[Path]) -> dict[str, Any]:
    """Return what ``run.json`` says of an image beside its table."""
    counts = seam_counts(job.scene, schema(Measure(groups=()), ()).empty_table())
    areas = area_counts(np.zeros(0, np.int64))
    for path in paths:
        for rows in row_groups(path, AUDITED):
            counts += seam_counts(job.scene, rows)
            areas += area_counts(rows["area_px"].to_numpy())
    audit = counts.finish(within_region=job.scene.region is not None)
    doubt = doubt_median(job.scene, median_diameter_px(areas))
    background = job.work.count_background(job.numbers("segment"))
    links = job.work.links.get("links")
    if job.here.measured_on(job.keys.labels):
        before = job.here.facts()
        background, links = before["background_tiles"], before.get("links")
    scene, quality = job.scene, image_quality(job.scene)
    region, notes = None, tuple[str, ...]()
    if scene.region is not None and scene.survey is not None:
        region = region_facts(scene.region, scene.survey, scene.voxel_um, paths)
        notes = region_notes(scene.region, scene.survey)
    return {
        "links": links,
        "labels_state": job.labels_state,
        "background_tiles": background,
        "seams": audit.document,
        "seams_text": audit.text,
        "region": region,
        "quality": {channel: found.document for channel, found in quality.items()},
        "warnings": [
            *scene.remarks,
            *notes,
            *quality_warnings(quality),
            *([doubt] if doubt else []),
            *audit.warnings,
            *_left_out(job, links),
        ],
    }


def _left_out(job: Job, links: dict[str, int] | None) -> list[str]:
    """Say what was left out as too short."""
    if not links or not links["short"]:
        return []
    least = job.scene.workflow.link.least_planes
    return [
        f"{links['short']} cells in fewer than {least} planes were left out ([link] least_planes)"
    ]
