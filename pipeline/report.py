"""The report of a run: one page, complete in itself, made of what lies in the results folder."""

from __future__ import annotations

import html
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from cellseg.pipeline.crops import Crops
from cellseg.pipeline.files import DAMAGED
from cellseg.pipeline.gate_settings import Controls
from cellseg.pipeline.histograms import histograms
from cellseg.pipeline.report_pictures import cell_pictures, overviews
from cellseg.pipeline.report_run import (
    facts,
    images,
    in_short,
    moment,
    quality,
    seams,
    span,
    stages,
)
from cellseg.pipeline.report_wells import (
    KINDS,
    control_statistics,
    grouping,
    plates,
)
from cellseg.pipeline.report_words import grouped
from cellseg.pipeline.results import Results
from cellseg.pipeline.table import measurements
from cellseg.pipeline.table_files import read_columns, read_table

PAGE = "cellseg.pipeline.report_page"
SCRIPTS = ("base.js", "charts.js", "plates.js", "sections.js")
"""In the order in which they build on each other."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a results folder.

    Parameters
    ----------
    folder : Path
        Of a run, finished or not.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    CellsegError
        If it is no results folder.
    """
    results = Results(folder)
    results.write_report(page(document(results)))
    return results.report_path


def try_report(folder: Path) -> str | None:
    """Write the report of a run that is through; return what went wrong, None if nothing did.

    Whatever it is, it must not cost the run: everything else is written.
    """
    try:
        write_report(folder)
    except Exception as error:
        results = Results(folder)
        results.drop_report()
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"report.html was not written: {reason}; `cellseg report {folder}` tries again"
    return None


def document(results: Results) -> dict[str, Any]:
    """Return what the page shows, as JSON.

    Raises
    ------
    CellsegError
        If there is no ``run.json``, or it is damaged.
    """
    run, text = _read_run(results), _read_text(results.folder / "workflow.toml")
    workflow = _parsed(text)
    reports: list[dict[str, Any]] = run["images"]
    controls = Controls.model_validate(workflow.get("controls") or {})
    crops = Crops(results.folder, {report["name"]: report for report in reports})
    done = sum(report["state"] == "done" for report in reports)
    gates = _read_json(results.folder / "gates.json")
    return {
        "title": results.folder.resolve().name,
        "what": in_short(run, workflow),
        "state": run.get("state"),
        "started": moment(str(run.get("started", ""))),
        "took": span(float(run.get("seconds") or 0)),
        "cells": int(run.get("cells") or 0),
        "done": done,
        "failed": len(reports) - done,
        "facts": facts(run, workflow),
        "workflow": text,
        "issues": grouped(reports, run.get("warnings") or (), str(run.get("state"))),
        "images": images(results, reports, _places(results, crops)),
        "names": [report["name"] for report in reports],
        "pixel_um": [(report.get("pixel_um") or (None, None))[-1] for report in reports],
        "plates": _plates(results, controls),
        "distributions": _distributions(results, controls),
        "gates": gates,
        "controls": _controls(results),
        "kinds": KINDS,
        "pictures": _cell_pictures(results, crops, reports),
        "overviews": overviews(crops, reports),
        "quality": quality(reports),
        "seams": seams(reports),
        "stages": stages(reports),
    }


def page(document: Mapping[str, Any]) -> str:
    """Return the page that shows a document.

    What comes from images and workflows is data for its scripts, and never becomes markup.
    """
    parts = files(PAGE)
    scripts = "\n".join(parts.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    data = json.dumps(_finite(document), ensure_ascii=False, separators=(",", ":"))
    # "</script>" and "<!--" within the data would end it.
    filled = {
        "title": html.escape(str(document["title"])),
        "style": parts.joinpath("page.css").read_text("utf-8"),
        "data": data.replace("<", "\\u003c").replace("\u2028", "\\u2028"),
        "script": scripts,
    }
    text = parts.joinpath("page.html").read_text("utf-8")
    before, *pieces = text.split("{{")
    for piece in pieces:
        name, rest = piece.split("}}", 1)
        before += filled[name] + rest
    return before


def _finite(value: Any) -> Any:
    """Return a document without NaN and infinity, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return value


def _read_run(results: Results) -> dict[str, Any]:
    run = results.read_run()
    run["images"] = [report for report in run["images"] if report["name"] and report["state"]]
    return run


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except DAMAGED:
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_read_text(path) or "{}"))
    except (ValueError, TypeError):
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _places(results: Results, crops: Crops) -> dict[str, tuple[Any, Any, Any]]:
    """Return plate, well and site of each image, as far as its table or its file name says it."""
    sources = crops.sources.items()
    found = {name: (field.plate, field.well, field.site) for name, field in sources}
    table = read_table(results.folder / "images.parquet")
    keys = ("image", "plate", "well", "site")
    if table is not None and set(keys) <= set(table.column_names):
        for name, *place in zip(*(table[key].to_pylist() for key in keys), strict=True):
            found[name] = (place[0], place[1], place[2])
    return found


def _plates(results: Results, controls: Controls) -> dict[str, Any] | None:
    wells = read_table(results.folder / "wells.parquet")
    return None if wells is None else plates(wells, controls)


def _controls(results: Results) -> list[dict[str, Any]] | None:
    table = read_table(results.folder / "controls.parquet")
    return None if table is None else control_statistics(table)


def _distributions(results: Results, controls: Controls) -> dict[str, Any] | None:
    if not results.cells_path.is_file():
        return None
    names = measurements(read_columns(results.cells_path))
    kinds = len(KINDS)
    group = grouping(controls)
    return histograms(results.cells_path, names, ("plate", "well"), group, kinds)


def _cell_pictures(
    results: Results, crops: Crops, reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    numbers = {report["name"]: n for n, report in enumerate(reports) if report["state"] == "done"}
    if not results.cells_path.is_file() or not numbers:
        return {"kinds": [], "missing": 0, "of_overviews": 0}
    names = read_columns(results.cells_path).names
    intensity = next((name for name in names if name.startswith("mean_")), None)
    return cell_pictures(crops, results.cells_path, intensity, numbers)
