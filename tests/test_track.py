"""Cells over time: what moves keeps its track, what divides begins two, in whole runs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.link_rules import Shares
from cellseg.pipeline.track import TrackRules, Tracks, follow
from exact import Exact

CPU = Config(device="cpu")
Places = list[list[tuple[float, float]]]
NOTHING = Shares(*(np.zeros(0, np.int64) for _ in range(3)))


def followed(places: Places, shares: Shares = NOTHING, **rules: Any) -> Tracks:
    """Follow points, sorted in each time point, of one size."""
    times = np.repeat(np.arange(len(places)), [len(each) for each in places])
    centres = np.array([place for each in places for place in each], np.float64).reshape(-1, 2)
    how = TrackRules(**({"distance": 6.0} | rules))
    return follow(times, centres, np.full(len(times), 50), shares, how)


def test_cells_that_move_keep_their_track_and_strangers_get_another() -> None:
    places: Places = [[(0, t), (10, 20 - t)] for t in range(4)]
    places[2].append((40, 40))
    assert followed(places).track.tolist() == [1, 2, 1, 2, 1, 2, 3, 1, 2]


def test_the_whole_of_the_gains_decides_and_not_the_nearest_pair() -> None:
    # The second cell is nearest to the first one's place, but then the first had nowhere to go.
    assert followed([[(0, 0), (0, 4)], [(0, 3.5), (0, 8)]]).track.tolist() == [1, 2, 1, 2]


def test_overlap_counts_beyond_the_distance() -> None:
    places: Places = [[(0, 0)], [(0, 9)]]
    assert followed(places).track.tolist() == [1, 2]
    shares = Shares(np.array([0]), np.array([1]), np.array([20]))
    assert followed(places, shares).track.tolist() == [1, 1]


def test_a_cell_missed_for_a_while_keeps_its_track_if_a_gap_is_allowed() -> None:
    places: Places = [[(0, 0)], [], [(0, 1)]]
    assert followed(places).track.tolist() == [1, 2]
    assert followed(places, gap=1).track.tolist() == [1, 1]


def test_a_division_begins_two_tracks_that_know_their_parent() -> None:
    places: Places = [[(0, 0)], [(0, 0)], [(-3, 0), (3, 0)], [(-5, 0), (5, 0)]]
    found = followed(places)
    assert found.track.tolist() == [1, 1, 2, 3, 2, 3]
    assert found.parent.tolist() == [0, 0, 1, 1, 1, 1]
    without = followed(places, divisions=False)
    assert len(set(without.track.tolist())) == 2
    assert not without.parent.any()


def disc(y: float, x: float, r: float = 5.0) -> NDArray[np.bool_]:
    yy, xx = np.ogrid[:50, :80]
    return np.asarray((yy - y) ** 2 + (xx - x) ** 2 <= r * r)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_run_follows_planes_and_volumes_in_tiles_of_any_size(tmp_path: Path, depth: int) -> None:
    frames = np.zeros((4, depth, 50, 80), np.uint16)
    for t in range(4):
        frames[t, :, disc(10, 10 + 3 * t)] = 1 + t
        for number, away in enumerate((-7, 7) if t > 1 else (0,)):
            frames[t, :, disc(34, 40 + away)] = 11 + 2 * t + number
    axes = {"axes": "TZYX"}
    tifffile.imwrite(tmp_path / "m.tif", frames, imagej=True, metadata=axes)
    text = 'images = "m.tif"\n[normalise]\nmethod = "none"\n[track]\nenabled = true\n'
    (tmp_path / "w.toml").write_text(f"{text}distance_px = 9\n[tiling]\nsize = 128\nhalo = 16\n")
    rows = {}
    for name, *overrides in (
        ("whole",),
        ("tiled", "tiling.size=32"),
        # Measured again, on the same labels.
        ("whole", 'measure.groups=["shape"]'),
    ):
        workflow = read_workflow(tmp_path / "w.toml", overrides, output=tmp_path / name)
        result = run(workflow, CPU, Exact())
        assert not result.failed
        table = pq.read_table(result.cells_path)
        rows[name, *overrides] = table.select(["t", "y_px", "track", "parent"]).to_pylist()
    first, *others = rows.values()
    assert all(other == first for other in others)
    assert [(row["t"], row["track"], row["parent"]) for row in first] == [
        (0, 1, None), (0, 2, None), (1, 1, None), (1, 2, None),
        (2, 1, None), (2, 3, 2), (2, 4, 2), (3, 1, None), (3, 3, 2), (3, 4, 2),
    ]  # fmt: skip
    um = read_workflow(tmp_path / "w.toml", output=tmp_path / "um")
    track = um.track.model_copy(update={"distance_px": None, "distance_um": 3.0})
    um = um.model_copy(update={"track": track})
    with pytest.raises(CellsegError, match=r"distance_um is given.* Set pixel_size_um"):
        run(um, CPU, Exact())
