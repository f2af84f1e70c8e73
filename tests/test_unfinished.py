"""Working files come back as written, tell what is done, and a damaged one is removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellseg.models import CellsegError, Instances
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.order import on_plane
from cellseg.pipeline.overlaps import Overlaps, Shared
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.unfinished import Unfinished
from synthetic import cells

KEYS = Keys("a", "b", "c")
Stored = Candidates | Cells | Overlaps | Shared
GRID = Grid(Box(0, 0, 256, 256), 128, 32)


@pytest.fixture
def found() -> Candidates:
    return Candidates.of_tile(Instances.from_labels(cells(0)[1]), GRID, 0, 4)


def equal(one: Stored, other: Stored) -> bool:
    arrays = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items())


def test_tiles_come_back_and_background_is_counted(tmp_path: Path, found: Candidates) -> None:
    work = Unfinished(tmp_path, KEYS)
    work.write_tile(3, found)
    work.write_tile(5, None)
    assert work.done("segment") == {3, 5}
    assert work.count_background() == 1
    assert equal(work.read_tile(3), found)
    assert len(work.read_tile(5)) == 0
    again = work.read_tile(3)
    for index in range(len(found)):
        assert np.array_equal(again.mask(index), found.mask(index))


def test_completed_cells_come_back_with_the_box_around_them(
    tmp_path: Path, found: Candidates
) -> None:
    work = Unfinished(tmp_path, KEYS)
    work.write_completed(4, found)
    work.write_completed(5, Candidates.none())
    low, high = found.boxes[:, :2].min(axis=0), found.boxes[:, 2:].max(axis=0)
    assert work.completed_extents(4, 2) == {0: Box(*low.tolist(), *high.tolist())}
    assert equal(work.read_completed(4), found)


def test_decided_cells_come_back_in_part_and_their_own_masks(
    tmp_path: Path, found: Candidates
) -> None:
    work, kept = Unfinished(tmp_path, KEYS), np.ones(len(found), bool)
    decided = Decided.concatenate([Decided.uncontested(found, 0, kept)])
    work.write_decided(2, Decided(decided.cells, found))
    work.write_decided(3, Decided(Cells.none(), Candidates.none()))
    block = work.decided(2, 7)
    assert block is not None
    assert work.decided(3, 7) is None
    middle = 100.0
    parts = Cells.concatenate([block.between(block.low, middle), block.between(middle, 1e9)])
    assert equal(parts, on_plane(decided.cells, 7))
    assert (block.between(block.low, middle).centres[:, 0] < middle).all()
    assert equal(work.read_extra(2), found)


def test_runs_are_found_by_plane_and_height(tmp_path: Path, found: Candidates) -> None:
    work, kept = Unfinished(tmp_path, KEYS), np.ones(len(found), bool)
    cells = Decided.uncontested(found, 0, kept).cells
    assert work.runs is None
    for number, plane in enumerate((0, 1)):
        work.write_run(number, on_plane(cells, plane))
    work.write_run(2, Cells.none())
    work.write_runs(3)
    assert work.runs == 3
    low, high = int(cells.boxes[:, 0].min()), int(cells.boxes[:, 2].max())
    assert work.runs_near(1, Box(low, 0, low + 1, 9)) == [1]
    assert work.runs_near(0, Box(high, 0, high + 1, 9)) == []


def test_what_cells_share_comes_back(tmp_path: Path) -> None:
    work = Unfinished(tmp_path, KEYS)
    shared = Shared(np.array([[3, 4], [4, 9]]), np.array([3, 4, 9]), np.array([5, 6, 1]))
    overlaps = Overlaps.of(2, 8, shared)
    work.write_shared(1, shared)
    work.write_shared(2, Shared.concatenate([]))
    work.write_overlaps(0, overlaps)
    work.write_overlaps(1, Overlaps.none())
    assert work.done("share") == {1, 2}
    pairs: list[tuple[Stored, Stored]] = [
        (work.read_shared(1), shared),
        (work.read_shared(2), Shared.concatenate([])),
        (work.read_overlaps(0), overlaps),
        (work.read_overlaps(1), Overlaps.none()),
    ]
    for found, written in pairs:
        assert equal(found, written)


def test_cells_of_all_runs_are_counted_by_plane(tmp_path: Path, found: Candidates) -> None:
    work, kept = Unfinished(tmp_path, KEYS), np.ones(len(found), bool)
    cells = Decided.uncontested(found, 0, kept).cells
    parts = [on_plane(cells, 1), Cells.concatenate([on_plane(cells, 1), on_plane(cells, 3)])]
    for number, part in enumerate([*parts, Cells.none()]):
        work.write_run(number, part)
    work.write_runs(3)
    assert work.count_by_plane(5).tolist() == [0, 2 * len(cells), 0, len(cells), 0]


def test_files_of_other_keys_are_not_done_and_go(tmp_path: Path, found: Candidates) -> None:
    Unfinished(tmp_path, KEYS).write_tile(0, found)
    other = Unfinished(tmp_path, Keys("z", "b", "c"))
    assert other.done("segment") == set()
    other.clear_others()
    assert Unfinished(tmp_path, KEYS).done("segment") == set()


@pytest.mark.parametrize("content", [b"", b"half a file", b"\x10" * 4000])
def test_a_damaged_file_is_named_and_removed(
    tmp_path: Path, found: Candidates, content: bytes
) -> None:
    work = Unfinished(tmp_path, KEYS)
    work.write_tile(0, found)
    (path,) = tmp_path.rglob("*.safetensors")
    for damaged in (content, path.read_bytes()[:-5]):
        work.write_tile(0, found)
        path.write_bytes(damaged)
        with pytest.raises(CellsegError, match=r"0000000.safetensors: damaged .* Run again"):
            work.read_tile(0)
        assert work.done("segment") == set()
