"""What tiles do to cells: oracle segmenters first, then the shipped network against one window.

    python benchmarks/seams.py --json seams.json --mosaic plate/images --slide slide.ome.tif

The first table is of segmenters that are perfect in their window, or fail in
one controlled way (`benchmarks.scenes`). The second compares `cellseg run` in
tiles with the same in one window, on mosaics of a folder of fields and on
crops of a slide: how many cells have no partner, near the borders of tiles and
elsewhere (`benchmarks.windows`).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.oracle import OFFSETS, SETTINGS, experiment
from benchmarks.scenes import EXPERIMENTS, intact, scene
from benchmarks.windows import NEAR_PX, crops, mosaics, network_rows


def oracle_rows(names: Sequence[str], seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each experiment, tile size, halo and offset, and each seed if it fails."""
    for name, (size, halo), offset in product(names, SETTINGS, OFFSETS):
        for seed in range(seeds if scene(name).failure is not intact else 1):
            yield {**experiment(name, size, halo, offset, seed), "seed": seed}


def flat(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row as the table prints it: what differs with its rate, what does not apply as -."""
    cells: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            for where in ("near", "elsewhere"):
                cells[f"{key}_{where}"] = (
                    f"{value[where]}/{value[f'of_{where}']} ({value[f'{where}_rate']:.2%})"
                )
            cells[f"p_{key.removeprefix('differ_')}"] = f"{value['p']:.2g}"
        else:
            cells[key] = "-" if value is None else str(value)
    return cells


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    lines = [flat(row) for row in rows]
    widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
    print(f"\n{title}")
    print("  ".join(f"{key:>{width}}" for key, width in widths.items()))
    for line in lines:
        print("  ".join(f"{line[key]:>{width}}" for key, width in widths.items()))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--experiments", nargs="*", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=1, help="draws of each failure")
    parser.add_argument("--mosaic", type=Path, help="folder of fields for mosaics")
    parser.add_argument("--slide", type=Path, help="image for crops of its first channel")
    parser.add_argument("--crop", type=int, default=700, help="side of a crop, px")
    parser.add_argument("--diameter", type=float, default=8.0, help="of the slide's nuclei, px")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--halos", nargs="+", type=int, default=[64])
    parser.add_argument("--near", type=float, default=NEAR_PX, help="px that count as near")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print its tables, write its JSON."""
    chosen = parsed(arguments)
    document: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    tiles = list(product(chosen.sizes, chosen.halos))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.experiments:
            document["oracle"] = list(oracle_rows(chosen.experiments, chosen.seeds))
            show("oracle segmenters, in tiles", document["oracle"])
        for kind, source in (("mosaic", chosen.mosaic), ("slide", chosen.slide)):
            if source is None:
                continue
            of_slide = kind == "slide"
            (folder / kind).mkdir()
            planes = (
                crops(source, chosen.crop, folder / kind)
                if of_slide
                else mosaics(source, folder / kind)
            )
            diameter = chosen.diameter if of_slide else None
            document[kind] = list(network_rows(planes, folder / kind, tiles, diameter, chosen.near))
            show(f"{source.name}, {kind}: network in tiles against one window", document[kind])
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
