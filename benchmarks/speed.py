"""How fast cellseg is, and how fast it could be: floor, network, tile, whole run.

    python benchmarks/speed.py --slide SLIDE --json speed.json

The table has, for each of four inputs (a slide, a plate, a slide with next to nothing on it, a
crowd of 20,000 cells in 2048 x 2048 px) and each configuration:

- floor: what the network's operations and bytes take at the machine's ceilings, on all cores;
- network, its dense part (backbone, pyramid, proposal head) and whole, on a few tiles;
- tile: read, normalise, network, masks, write, as a run does it, and by parts;
- run: the command line in a process of its own, by stages, without start-up, and whole.

All are medians of `--repeats`; Mpx are those of the image, not of what tiles see of their
neighbours. Parts and stages count in seconds of a core, as several are at work at a time.

`--config precision=bfloat16,workers=2` adds a configuration of keys of config.toml; each choice
of `--precisions` and `--inference` is one too. `--growth` runs images of 1, 4 and 16 times the
pixels, and the cells; `--agreement` compares the cells of the configurations with each other,
and, given `--images DIR --labels DIR --list val.txt`, with the truth. See docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import machine, speed_scenes
from benchmarks.agreement import agreement, crop_of
from benchmarks.floor import Ceilings, ceilings, described
from benchmarks.growth import MODELS, SIDE, growth
from benchmarks.machine import cores
from benchmarks.pairs import find_pairs
from benchmarks.speed_parts import Timed, sample
from benchmarks.speed_runs import Configuration
from benchmarks.speed_scenes import Input
from benchmarks.speed_table import (
    COLUMNS,
    Row,
    Rows,
    facts_of_runs,
    floor_of,
    markdown,
    plain,
    rows_of_parts,
    rows_of_runs,
    run_often,
)

SCENES = ("slide", "plate", "nearly empty", "crowd")
TILES = 3
"""Of which network and parts are timed; so many that no one of them decides."""
QUICK_SIZES, QUICK_COPIED = (64, 128), 2**20
FACTS = ("input", "configuration", "megapixels", "cells", "images", "start_seconds", "images_s")
SHARES = ("network_share", "all_else_share", "peak_mb", "tiles", "tiles_computed")


def makers(arguments: argparse.Namespace) -> dict[str, Callable[[Path], Input]]:
    """Return how to come by each input, given a folder to write in."""
    slide, plate = arguments.slide, arguments.plate
    if arguments.quick:
        return {"crowd": lambda folder: speed_scenes.crowd(folder, 160, 60)}
    every: dict[str, Callable[[Path], Input]] = {
        "plate": lambda folder: (
            speed_scenes.of_folder(plate) if plate else speed_scenes.demo_plate(folder)
        ),
        "nearly empty": speed_scenes.nearly_empty,
        "crowd": speed_scenes.crowd,
    }
    if slide is not None:
        every = {"slide": lambda _: speed_scenes.of_file(slide)} | every
    return {name: make for name, make in every.items() if name in arguments.inputs}


def measured(
    given: Input,
    configuration: Configuration,
    limits: Ceilings,
    repeats: int,
    tiles: int,
    folder: Path,
) -> tuple[list[Row], Row, list[Row]]:
    """Return the rows of an input, what else is known of its runs, and what the network does."""
    rows = Rows(given, configuration)
    chosen = sample(given, configuration, tiles, folder)
    precision = limits.precision(configuration.config.precision)
    runs = run_often(given, configuration, repeats, folder)
    facts = facts_of_runs(given, configuration, runs) | {"floor_precision": precision}
    floor, document = None, list[Row]()
    if chosen is not None:
        work = chosen.work()
        rows_of_parts(rows, chosen, work, limits, precision, repeats)
        part = facts["tiles_computed"] / max(facts["tiles"], 1)
        times = given.megapixels * part / chosen.megapixels
        least = floor_of(limits, work, precision)
        floor = Timed(least.seconds * times, least.core_seconds * times)
        facts |= {"seen_px": chosen.seen}
        document = [{"input": given.name} | row for row in described(work, limits, cores())]
    rows_of_runs(rows, runs, given, floor)
    return rows.rows, facts, document


def configurations(arguments: argparse.Namespace) -> list[Configuration]:
    """Return the configurations that are asked for; the shipped one where none is."""
    short = {"precision": arguments.precisions, "inference": arguments.inference}
    asked = Configuration.product(**short) if any(short.values()) else []
    return [*asked, *map(Configuration.read, arguments.config)] or [Configuration()]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for; print each table once it is there; return all for JSON."""
    document: dict[str, Any] = {"machine": machine.described(), "repeats": arguments.repeats}
    print(machine.text(document["machine"]))
    chosen = configurations(arguments)
    if arguments.inputs:
        document |= speeds(arguments, chosen)
    if arguments.growth:
        document["growth"] = [
            {"configuration": each.name} | row
            for each in chosen
            for row in growth(each, arguments.repeats, arguments.growth_side, arguments.growth)
        ]
        show("Growth, without start-up", document["growth"])
    if arguments.agreement:
        document |= agreements(arguments, chosen)
    document["machine"]["load_after"] = machine.described()["load"]
    return document


def speeds(arguments: argparse.Namespace, chosen: Sequence[Configuration]) -> dict[str, Any]:
    """Measure every input under every configuration."""
    quick = (QUICK_SIZES, QUICK_COPIED, 1) if arguments.quick else ()
    limits = ceilings(*quick)
    found: dict[str, Any] = {"ceilings": limits.document(), "rows": [], "facts": [], "work": []}
    print(ceilings_text(limits))
    for make in makers(arguments).values():
        with tempfile.TemporaryDirectory() as name:
            given = make(Path(name))
            for each in chosen:
                about = limits, arguments.repeats, arguments.tiles, Path(name)
                rows, facts, work = measured(given, each, *about)
                found["rows"] += rows
                found["facts"].append(facts)
                found["work"] += [{"configuration": each.name} | row for row in work]
                show(f"What the network does, {given.name}, {each.name}", work)
                show(f"{given.name}, {each.name}", rows, COLUMNS)
    if found["facts"]:
        show("Start, shares and memory of the runs", found["facts"], {n: n for n in FACTS + SHARES})
    return found


def ceilings_text(limits: Ceilings) -> str:
    """Return the ceilings in words."""
    found = limits.document()
    peaks = "; ".join(
        f"{name} {', '.join(f'{rate:,.0f} ({n})' for n, rate in rates.items())}"
        for name, rates in found["gigaops_s"].items()
    )
    copies = ", ".join(f"{rate:.1f} ({n})" for n, rate in found["gigabytes_s"].items())
    return (
        f"Product or convolution, Gop/s (threads): {peaks}\nMemory copy, GB/s (threads): {copies}"
    )


def agreements(arguments: argparse.Namespace, chosen: Sequence[Configuration]) -> dict[str, Any]:
    """Compare the cells of the configurations, on images with a truth and on a slide."""
    pairs = []
    if arguments.images is not None:
        pairs = find_pairs(arguments.images, arguments.labels, arguments.list)
    crop = None if arguments.slide is None else crop_of(arguments.slide)
    between, accuracy = agreement(chosen, pairs, crop)
    for title, rows in (("Agreement at IoU 0.5", between), ("AP, all cells pooled", accuracy)):
        show(title, rows)
    return {"agreement": between, "accuracy": accuracy}


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> None:
    """Print a table."""
    if rows:
        print(f"\n{title}\n{plain(rows, columns or {name: name for name in rows[0]})}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--slide", type=Path, help="a TIFF; without it there is no slide in the table")
    add("--plate", type=Path, help="a folder of TIFFs; default: the demo plate as 43 fields")
    add("--inputs", nargs="*", choices=SCENES, default=SCENES, help="none: time none of them")
    add("--config", action="append", default=[], metavar="KEY=VALUE,...")
    add("--precisions", nargs="+", metavar="PRECISION")
    add("--inference", nargs="+", metavar="ENGINE")
    add("--repeats", type=int, default=3)
    add("--tiles", type=int, default=TILES, help="of which network and parts are timed")
    add("--growth", nargs="*", choices=MODELS, help="models; without one, both")
    add("--growth-side", type=int, default=SIDE, help="px of the first image")
    add("--agreement", action="store_true")
    add("--images", type=Path, help="with a truth, for --agreement")
    add("--labels", type=Path, help="of the same names")
    add("--list", type=Path, help="a text file with a name a line: only these")
    add("--quick", action="store_true", help="a tiny image, to see that all is measured")
    add("--json", type=Path)
    add("--markdown", type=Path)
    found = parser.parse_args(arguments)
    if found.growth == []:
        found.growth = MODELS
    if (found.images is None) != (found.labels is None):
        parser.error("--images and --labels belong together")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print its tables, write its JSON."""
    asked = parse(arguments)
    document = run(asked)
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if asked.markdown:
        asked.markdown.write_text(markdown(document), encoding="utf-8")


if __name__ == "__main__":
    main()
