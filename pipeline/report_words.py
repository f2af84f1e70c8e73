"""What a report says of warnings and failures: the same ones together, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMED = 60
"""Images that are named with a warning; more are counted."""
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
ADVICE = (
    (
        r"no cells were found",
        "Look at its picture. If it shows cells, check [model] channels and diameter_px, or lower"
        " the model's score or threshold; if it is empty, there is nothing to do.",
    ),
    (
        r"^no file of channel|lacks planes|missing in",
        "Look whether the microscope saved them elsewhere; `cellseg inspect` lists what was found.",
    ),
    (r"pixel sizes? |size of a pixel", "Set pixel_size_um in the workflow if you know better."),
    (
        r"weights were trained on \[normalise\]",
        "Use the method of the training unless a comparison showed that yours does better.",
    ),
    (
        r"out of focus",
        "Look at its picture; leave the image out of the statistics, or take it again.",
    ),
    (
        r"saturated",
        "Intensities of bright cells are too low by an unknown amount; shorten the exposure next"
        " time. Counts and areas can be used.",
    ),
    (r"empty", "Look whether the well should hold cells, and whether this channel was exposed."),
)
"""What to do about a warning that matches; the first one counts."""
ABOUT_FAILURE = (
    "Mend, replace or take out what is named, then run the same command again: what is done is"
    " not computed again."
)


def advice(text: str) -> str:
    """Return what to do about a warning; nothing where it says so itself."""
    if text.startswith("seams:"):
        return ""
    return next((what for pattern, what in ADVICE if re.search(pattern, text)), "")


def grouped(
    reports: Sequence[Mapping[str, Any]], overall: Iterable[str], state: str
) -> list[dict[str, Any]]:
    """Return what is wrong, the worst first, each once however many images it is in.

    Warnings that differ in numbers alone are the same; one of them is shown.

    Parameters
    ----------
    reports : sequence of mapping
        Lines of ``run.json``.
    overall : iterable of str
        Warnings that concern the whole run.
    state : str
        Of the run.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(level: str, text: str, what: str, number: int | None) -> None:
        key = level, NUMBER.sub("#", text.replace(_name(reports, number), "*"))
        empty = {"level": level, "text": text, "advice": what, "images": [], "count": 0}
        entry = found.setdefault(key, empty)
        if number is not None:
            entry["count"] += 1
            entry["images"] += [number] * (len(entry["images"]) < NAMED)

    if state != "done":
        add("failed", "This run has not come to its end.", "Run the same command to go on.", None)
    for text in overall:
        add("note", text, advice(text), None)
    for number, report in enumerate(reports):
        if report["state"] == "failed":
            add("failed", str(report.get("reason") or "failed"), ABOUT_FAILURE, number)
        for text in report.get("warnings") or ():
            add("warning", text, advice(text), number)
        for channel, quality in (report.get("quality") or {}).items():
            for flag in (quality or {}).get("flags") or ():
                add("warning", f"channel {channel}: {flag}", advice(flag), number)
    order = ("failed", "warning", "note")
    return sorted(found.values(), key=lambda each: order.index(each["level"]))


def _name(reports: Sequence[Mapping[str, Any]], number: int | None) -> str:
    """Return what in a text tells an image from others: its file; nothing is no text at all."""
    source = "" if number is None else str(reports[number].get("source") or "")
    return source or "\0"


SEAMS = {
    "density": ("Number of cells", "more cells", "fewer cells"),
    "size": ("Size", "larger cells", "smaller cells"),
    "straight_edge": ("Straight edges", "straighter edges", "rounder edges"),
}
SURE, OFF, NEAR = 0.001, 0.1, 0.02
"""Below which p, and from which distance to 1, a ratio is called off; and what is as good as 1."""


def judged(name: str, ratio: float, p: float) -> str:
    """Say in words what a ratio of the seam audit means."""
    if p >= SURE:
        return (
            "as it should be: chance alone differs as much"
            if abs(ratio - 1) > 0.02
            else ("as it should be")
        )
    if abs(ratio - 1) <= OFF:
        return "off by less than a tenth, and not by chance: too little to matter"
    return f"off: {SEAMS[name][1 if ratio > 1 else 2]} on tile borders, and not by chance"
