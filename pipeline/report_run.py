"""What ``run.json`` gives to a report: the facts of the run, its images, stages, seams, quality."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cellseg.pipeline.place import Place
from cellseg.pipeline.report_words import SEAMS, judged
from cellseg.pipeline.results import Results
from cellseg.pipeline.set_aside import SetAside

MOST_IMAGES = 20_000
"""Images that are listed; of more, those that failed and the first ones."""
MOST_DOTS = 4_000
Reports = Sequence[Mapping[str, Any]]


def span(seconds: float) -> str:
    """Return a time in words: ``7.0 s``, ``12 min 5 s``, ``3 h 4 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """Return an ISO time in UTC without its decorations; any other text as it is."""
    try:
        when = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except ValueError:
        return text
    return f"{when:%d %B %Y, %H:%M} UTC".lstrip("0")


def in_short(run: Mapping[str, Any], workflow: Mapping[str, Any]) -> str:
    """Return which model was run on which images, in a few words."""
    model = run.get("model") or {}
    name = " ".join(str(model[key]) for key in ("name", "weights") if model.get(key))
    inputs = [Path(str(each)).name for each in workflow.get("images") or ()]
    more = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
    return f"{name} on {inputs[0]}{more}" if name and inputs else name


def facts(run: Mapping[str, Any], workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was run on what, with which model and machine, as lists of names and values."""
    model, config = run.get("model") or {}, run.get("config") or {}
    machine, versions = run.get("machine") or {}, run.get("versions") or {}
    images = workflow.get("images") or []
    return [
        _list("Input", {"Images": "\n".join(map(str, images)), **_scale(run["images"])}),
        _list("Model", _model(model)),
        _list(
            "Machine",
            {
                "Device": run.get("device"),
                "Workers": config.get("workers"),
                "Network by": model.get("inference"),
                "Precision": model.get("precision") or config.get("precision"),
                "System": machine.get("system"),
            },
        ),
        _list("Versions", versions),
    ]


def _list(title: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    known = [[str(k), str(v)] for k, v in entries.items() if v not in (None, "", [])]
    return {"title": title, "entries": known}


def _scale(reports: Reports) -> dict[str, Any]:
    """Return size of a pixel, shape and channels, where all images have the same or how many."""
    done = [report for report in reports if report["state"] == "done"]
    shapes = {tuple(report["shape"]) for report in done if report.get("shape")}
    pixels = {tuple(r["pixel_um"]) if r.get("pixel_um") else None for r in done}
    channels = dict.fromkeys(name for r in done for name in r.get("channels") or ())
    size = shape = None
    if len(pixels) == 1 and (only := pixels.pop()) is not None:
        size = " x ".join(f"{side:.4g}" for side in dict.fromkeys(only)) + " µm"
    elif done and pixels in (set(), {None}):
        size = "unknown; set pixel_size_um for lengths in µm"
    elif pixels:
        size = f"{len(pixels)} different ones"
    if len(shapes) == 1:
        axes = zip("TCZYX", shapes.pop(), strict=True)
        shape = ", ".join(f"{axis} {length:,}" for axis, length in axes if length > 1)
    elif shapes:
        shape = f"{len(shapes)} different ones"
    return {"Pixel size": size, "Shape": shape, "Channels": ", ".join(channels)}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    diameter = model.get("diameter")
    return {
        "Name": model.get("name"),
        "Weights": model.get("weights"),
        "SHA-256": model.get("sha256"),
        "Channels": ", ".join(map(str, model.get("channels") or ())),
        "Finds": ", ".join(model.get("classes") or ()),
        "Trained on cells of": f"{model['trained_diameter_px']} px"
        if model.get("trained_diameter_px")
        else None,
        "Diameter of the cells": diameter
        if not isinstance(diameter, Mapping)
        else ", ".join(f"{k} {v}" for k, v in diameter.items() if not isinstance(v, list | dict)),
    }


COLUMNS = (
    "state", "image", "plate", "well", "site", "cells", "seconds", "notes", "picture", "source"
)  # fmt: skip


def images(results: Results, reports: Reports, places: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of images, in the order of the run.

    Parameters
    ----------
    results : Results
    reports : sequence of mapping
    places : mapping
        Plate, well and site by the name of an image, for runs whose lines do not say it.
    """
    rows = []
    failed = sum(report["state"] == "failed" for report in reports)
    left = max(MOST_IMAGES - failed, 0)
    for number, report in enumerate(reports):
        done = report["state"] != "failed"
        if done and left == 0:
            continue
        left -= done
        known = places.get(report["name"], (None, None, None))
        at = [report.get(key) or known[i] for i, key in enumerate(("plate", "well", "site"))]
        seconds = round(sum((report.get("seconds") or {}).values()), 2)
        notes = [report["reason"]] if report.get("reason") else list(report.get("warnings") or ())
        notes += [SetAside.read(tile).text for tile in report.get("tiles_set_aside", ())[1:]]
        for channel, quality in (report.get("quality") or {}).items():
            notes += [f"{channel}: {flag}" for flag in (quality or {}).get("flags") or ()]
        rows.append(
            [
                report["state"],
                report["name"],
                *at,
                report.get("cells", 0) if done else None,
                seconds or None,
                "; ".join(notes),
                picture_link(results, report),
                report.get("source"),
                number,
            ]
        )
    return {"columns": COLUMNS, "rows": rows, "left_out": len(reports) - len(rows)}


def picture_link(results: Results, report: Mapping[str, Any]) -> str | None:
    """Return the address of an image's overview from the results folder; None if there is none."""
    path = results.at(Place.read(report)).overview_path
    if report["state"] == "failed" or not path.is_file():
        return None
    return quote(path.relative_to(results.folder).as_posix())


def stages(reports: Reports) -> list[dict[str, Any]]:
    """Return the seconds of each stage over all images, and the most memory it held in any."""
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        for stage, seconds in (report.get("seconds") or {}).items():
            entry = found.setdefault(stage, {"name": stage, "seconds": 0.0, "memory_mb": None})
            entry["seconds"] += seconds
        for stage, memory in (report.get("memory_mb") or {}).items():
            if stage in found:
                found[stage]["memory_mb"] = max(found[stage]["memory_mb"] or 0, memory)
    return list(found.values())


def seams(reports: Reports) -> dict[str, Any] | None:
    """Return the audits of the seams, in numbers and words; None where no image has seams."""
    audited = [(n, r["seams"]) for n, r in enumerate(reports) if r.get("seams")]
    near = [(n, s) for n, s in audited if s.get("on_seam") or s.get("interior")]
    if not near:
        return None
    rows = []
    for name, (title, *_) in SEAMS.items():
        known = [
            (number, s[name]["ratio"], s[name]["p"], s["on_seam"], s["interior"])
            for number, s in near
            if (s.get(name) or {}).get("ratio") is not None and s[name].get("p") is not None
        ]
        words = [judged(name, ratio, p) for _, ratio, p, *_ in known]
        off = sum(word.startswith("off:") for word in words)
        entry: dict[str, Any] = {"name": name, "title": title, "judged": len(known), "off": off}
        if known:
            entry["median"] = float(np.median([ratio for _, ratio, *_ in known]))
        ranked = sorted(zip(known, words, strict=True), key=lambda each: -abs(each[0][1] - 1))
        entry["dots"] = [[*values, word] for values, word in ranked[:MOST_DOTS]]
        rows.append(entry)
    return {"rows": rows, "images": len(near), "on_seam": sum(s["on_seam"] for _, s in near)}


def quality(reports: Reports) -> dict[str, Any] | None:
    """Return background, saturation and focus of each image and channel; None if unknown."""
    channels: dict[str, list[list[Any]]] = {}
    for number, report in enumerate(reports):
        for channel, values in (report.get("quality") or {}).items():
            if values:
                shown = [values.get(key) for key in ("background", "saturated", "focus")]
                row = [number, *shown, ", ".join(values.get("flags") or ())]
                channels.setdefault(channel, []).append(row)
    if not channels:
        return None
    most = max(MOST_DOTS // len(channels), 100)
    kept = [{"name": name, "rows": _thinned(rows, most)} for name, rows in channels.items()]
    return {"channels": kept}


def _thinned(rows: list[list[Any]], most: int) -> list[list[Any]]:
    """Return at most about `most` rows: those with flags, and evenly spread others."""
    step = -(-len(rows) // most)
    return [row for place, row in enumerate(rows) if place % step == 0 or row[-1]]
